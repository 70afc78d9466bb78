import pytest

from sidecar.cli.counter_comparison import Comparison, Difference, report_notes, write_metrics
from sidecar.core.billing.open_counters import OpenCounter
from sidecar.core.errors import SinkError
from sidecar.ledger.counting import Counted


def differing(limit, customer, units, records):
    counter = OpenCounter("key", limit, customer, "customer", customer, "2026-12", "requests", 0, 1, 2, 0)
    return Difference(counter, units, records)


def test_the_text_file_has_the_sum_by_limit_and_customer_and_when_it_was_compared(tmp_path):
    # Fails if a name with a quote ends the label, or the file can be read half written.
    some = [differing("monthly", 'a"\\c', 3, 10), differing("daily", "b", 5, 1), differing("daily", "b", 1, 0)]
    path = tmp_path / "drift.prom"
    write_metrics(path, Comparison(Counted([(each.counter, 1) for each in some], 0, {}, 0), some, ()), 17 * 10**6)
    assert [line for line in path.read_text().splitlines() if line[0] != "#"] == [
        'sidecar_counters_drift_units{limit="daily",customer="b"} 5',
        r'sidecar_counters_drift_units{limit="monthly",customer="a\"\\c"} -7',
        "sidecar_counters_drift_compared 3",
        "sidecar_counters_drift_timestamp_seconds 17",
    ]
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(SinkError, match="cannot be written"):
        write_metrics(tmp_path / "none" / "drift.prom", Comparison(Counted([], 0, {}, 0), [], ()), 0)


@pytest.mark.parametrize(
    ("number", "pending", "unknown"),
    [
        (1, "1 record of the journal is not in the ledger yet; it counts too", "1 correction or void without"),
        (2, "2 records of the journal are not in the ledger yet; they count too", "2 corrections or voids without"),
    ],
)
def test_notes_count_in_the_right_form(capsys, number, pending, unknown):
    report_notes(Comparison(Counted([], number, {}, number), [], ()))
    assert capsys.readouterr().err.splitlines() == [pending, f"warning: {unknown} an original"]
