"""Progress goes to standard error: lines in a log, each trouble once, nothing where a program reads."""

from sidecar.cli.ledger_progress import LedgerDisplay
from sidecar.edge.ledger.clickhouse_tables import Pushed
from sidecar.edge.ledger.files import LedgerFile
from sidecar.edge.ledger.writer import Loaded
from sidecar.ledger.report import LoadReport, Progress

LOADED = Loaded(LedgerFile("t", 7, 0, 9), records=5, rows=10, rejected=1, copies=2, size=99)


def test_a_file_is_a_line_and_a_trouble_is_one_line(capsys):
    with LedgerDisplay() as display:
        display.on_file(LOADED)
        display.on_progress(Progress("t", 7, 5, 9))
        for text in ("no broker", "no broker"):
            display.on_trouble(text)
        display.on_insert(Pushed("t", 7, 0, 9, 10))
        display.on_success()
        display.on_trouble("no broker")
    assert capsys.readouterr().err.splitlines() == [
        "t/p0007.000000000000000000-000000000000000009.parquet: 5 records, 99 bytes, 1 rejected, 2 twice",
        "sidecar: no broker: trying again",
        "t/p0007 0-9: 10 rows",
        "sidecar: no broker: trying again",
    ]


def test_a_program_gets_no_lines(capsys):
    with LedgerDisplay(quiet=True) as display:
        display.on_file(LOADED)
        display.on_insert(Pushed("t", 7, 0, 9, 10))
        display.on_progress(Progress("t", 7, 5, 9))
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_rate_and_lag(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with LedgerDisplay() as display:
        display.on_progress(Progress("t", 7, 5, 9))
        display.on_progress(Progress("t", 7, 7, 1_009))
        display.on_file(LOADED)
    err = capsys.readouterr().err
    assert "lag 1,002" in err
    assert ".parquet" not in err


def test_a_push_has_the_same_bar_under_its_own_name(capsys, monkeypatch):
    # Fails if an insert is a line on a terminal: it would go through the bar.
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with LedgerDisplay("pushing") as display:
        display.on_progress(Progress("t", 7, 0, 9))
        display.on_insert(Pushed("t", 7, 0, 6, 10))
        display.on_progress(Progress("t", 7, 7, 9))
    err = capsys.readouterr().err
    assert ("pushing" in err, "lag 2" in err, "10 rows" in err) == (True, True, False)


def test_the_end_has_the_sums(capsys):
    report = LoadReport()
    report.add(LOADED)
    report.add(LOADED)
    LedgerDisplay().conclude(report)
    out, err = capsys.readouterr()
    assert out == "10 records in 2 files, 2 rejected, 4 twice\n"
    assert err.startswith("sidecar: 2 lines are not records and NOT in any sum: `sidecar ledger verify` says where")
    assert err.count("\n") == 1
    LedgerDisplay().conclude(LoadReport())
    assert capsys.readouterr().err == ""
