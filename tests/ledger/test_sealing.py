"""A seal is written once, when the period is complete, and says of what."""

import orjson
import pytest

from sidecar.core.errors import SinkError
from sidecar.ledger.connection import open_ledger
from sidecar.ledger.sealing import Period, read_seal, seal, sealed_path
from tests.ledger.parquet import checkpoint, event, rejected, write
from tests.ledger.test_verify import END_US, LATER_US, NOVEMBER, S, denial, good, usage


def sealing(folder, period=NOVEMBER, now_us=LATER_US, **options):
    with open_ledger(folder) as ledger:
        return seal(ledger, period, now_us, **options)


@pytest.fixture
def whole(tmp_path):
    write(tmp_path, good())
    write(tmp_path, [denial()], topic="usage.denials")
    return tmp_path


def test_a_complete_period_is_sealed_with_its_sources_offsets_and_units(whole):
    # Fails if units that are not billed are summed up with the others, or corrections are left out.
    done = sealing(whole)
    assert (done.is_sealed, done.is_new) == (True, True)
    document = read_seal(sealed_path(whole, "2026-11"))
    assert document == done.document
    assert document["sources"] == {S: {"state": "complete", "highest": {"records": 7, "denials": 1}}}
    assert document["positions"] == {"usage.denials/p0000": 0, "usage.records/p0000": 6}
    assert document["units"] == {
        "requests": {"billable": 2, "not_billable": 1},
        "tokens": {"billable": 8, "not_billable": 5},
    }
    assert (document["start"], document["end"]) == ("2026-11-01T00:00:00.000000Z", "2026-12-01T00:00:00.000000Z")


def test_a_period_that_is_not_over_is_not_sealed(whole):
    # Fails if complete sources are enough: those that come after the seal would be in no bill.
    done = sealing(whole, now_us=END_US + 60_000_000 - 1)
    assert (done.is_sealed, done.is_over, [each.is_complete for each in done.sources]) == (False, False, [True])
    assert not sealed_path(whole, "2026-11").exists()
    assert sealing(whole, now_us=END_US + 60_000_000).is_sealed


def test_a_seal_is_never_written_again(whole):
    # Fails if the file is replaced: what was billed by it could not be told any more.
    first = sealing(whole)
    again = sealing(whole, now_us=LATER_US + 10**9)
    assert (again.is_sealed, again.is_new, again.document) == (True, False, first.document)


def test_a_period_is_sealed_only_when_nothing_is_missing_any_more(tmp_path):
    # Fails if the file is written before the verdict.
    records = good()
    write(tmp_path, records[:4])
    assert not sealing(tmp_path).is_sealed
    write(tmp_path, records[5:])
    [verdict] = sealing(tmp_path).sources
    assert verdict.missing == ("numbers 5 to 5", "denials: numbers 1 to 1")
    write(tmp_path, [records[4]], part=1)
    write(tmp_path, [denial()], topic="usage.denials")
    assert not (tmp_path / "sealed").exists()
    assert sealing(tmp_path).is_sealed


def test_one_source_that_is_only_named_keeps_a_period_open(whole):
    other = "//sidecar/eu/n/1/5"
    write(whole, [event("source", other, 1, {"state": "started", "about": other, "predecessor": "//sidecar/eu/n/1/4"}),
                  checkpoint(other, 2, LATER_US)], part=2)  # fmt: skip
    done = sealing(whole)
    assert not done.is_sealed
    assert [(each.source, each.missing) for each in done.sources if not each.is_complete] == [
        ("//sidecar/eu/n/1/4", ("no record of it is here",))
    ]


def test_a_retired_source_lets_a_period_be_sealed_and_the_seal_says_what_may_be_missing(tmp_path):
    records = good()[:4]
    retired = {"state": "retired", "about": S, "highest": {"records": 4}, "reason": "burned"}
    write(tmp_path, [*records, event("source", "//sidecar/eu/n/commands/1", 1, retired),
                     checkpoint("//sidecar/eu/n/commands/1", 2, LATER_US, final=True)])  # fmt: skip
    document = sealing(tmp_path).document
    assert document["sources"][S]["state"] == "retired"
    assert document["sources"][S]["may_be_missing"] == ["no checkpoint after the end; nor before it"]


def test_files_that_could_not_be_read_keep_a_period_open(whole):
    with open_ledger(whole) as ledger:
        assert not seal(ledger._replace(faults=("a file",)), NOVEMBER, LATER_US).is_sealed
        assert seal(ledger, NOVEMBER, LATER_US).is_sealed


def test_an_earlier_period_needs_less(whole):
    # Fails if the last checkpoint has to be there for every period.
    write(whole, [usage(9)])  # 8 is lost
    assert not sealing(whole, Period("2026-12", END_US, LATER_US)).is_sealed
    assert sealing(whole, NOVEMBER).is_sealed


def test_a_seal_of_a_newer_version_or_of_something_else_is_refused_by_name(whole):
    sealing(whole)
    path = sealed_path(whole, "2026-11")
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"format": 2}))
    with pytest.raises(SinkError, match=r"2026-11\.json: format 2 is newer"):
        sealing(whole)
    path.write_text("x")
    with pytest.raises(SinkError, match=r"2026-11\.json: is not the file of a sealed period"):
        sealing(whole)


def test_a_month_can_be_sealed_after_retention_has_removed_the_one_before(whole):
    # Fails if what earlier seals prove is not known: the sources would begin late, or be named and not here.
    former, second = "//sidecar/eu/n/1/1", "//sidecar/eu/n/1/2"
    removed = [write(whole, [checkpoint(former, 1, LATER_US - 10**10, final=True)], part=2)]
    start = event("source", second, 1, {"state": "started", "about": second, "predecessor": former})
    write(whole, [start, checkpoint(second, 2, LATER_US)], part=3)
    assert sealing(whole).is_sealed
    removed += [*(whole / "usage.records").glob("p0000.*.parquet"), *(whole / "usage.denials").glob("*.parquet")]
    december = Period("2026-12", END_US, END_US + 31 * 86_400_000_000)
    after_us = december.end_us + 3_600_000_000
    write(whole, [usage(8), checkpoint(S, 9, after_us, denials=1)])
    write(whole, [checkpoint(second, 3, after_us, final=True)], part=3)
    for path in removed:
        path.unlink()
    done = sealing(whole, december, after_us)
    assert [(each.source[-3:], each.state, each.missing) for each in done.sources] == [
        ("0/1", "complete", ()),
        ("1/1", "closed", ()),
        ("1/2", "complete", ()),
    ]
    write(whole, [checkpoint(second, 5, after_us)], part=3)
    assert sealing(whole, Period("2027-01", december.end_us, after_us)).sources[2].missing == ("numbers 4 to 4",)


def wrong(time_us, period_us=None):
    """A rejected line with readable times: usage without `billable`."""
    return event("usage", S, 900, {"customer": "acme", "usage": {"tokens": 1}}, time_us=time_us, period_us=period_us)


# Fails if the line is not looked at: what it was may be usage of the month, and is in no sum.
@pytest.mark.parametrize(
    "line", [rejected(), b'"x"', b"{}", b'{"time": "soon"}', wrong(END_US - 1), wrong(END_US + 5, END_US - 1)]
)
def test_a_rejected_line_that_may_be_of_the_period_keeps_it_open_until_it_is_accepted(whole, line):
    write(whole, [line], part=1)
    done = sealing(whole)
    assert (done.is_sealed, done.rejected, [each.is_complete for each in done.sources]) == (False, 1, [True])
    done = sealing(whole, accepts_rejected=True)
    assert done.is_sealed
    assert read_seal(sealed_path(whole, "2026-11"))["rejected"] == 1


@pytest.mark.parametrize("line", [wrong(LATER_US), wrong(END_US - 31 * 86_400_000_000)])
def test_a_rejected_line_of_another_period_does_not_matter(whole, line):
    write(whole, [line], part=1)
    done = sealing(whole)
    assert (done.is_sealed, done.document["rejected"]) == (True, 0)


def test_a_rejected_line_that_was_accepted_does_not_keep_the_next_period_open_and_a_new_one_does(whole):
    # Fails if each month has to accept the same line: it would be in every script; or if a seal accepts what was
    # loaded after it, or one of an earlier version what it did not look at.
    december = Period("2026-12", END_US, END_US + 31 * 86_400_000_000)
    later = {"period": december, "now_us": december.end_us + 10**9}
    write(whole, [rejected()], part=1)
    assert sealing(whole, accepts_rejected=True).is_sealed
    assert sealing(whole, **later).rejected == 0
    sealed_path(whole, "2026-12").unlink()
    write(whole, [rejected()], part=1)
    assert sealing(whole, **later).rejected == 1
    november = sealed_path(whole, "2026-11")
    document = orjson.loads(november.read_bytes())
    del document["rejected"]  # as an earlier version sealed it
    november.write_bytes(orjson.dumps(document))
    assert sealing(whole, **later).rejected == 2


def test_a_rejected_line_of_december_is_not_accepted_by_the_seal_of_november(whole):
    december = Period("2026-12", END_US, END_US + 31 * 86_400_000_000)
    write(whole, [wrong(LATER_US)], part=1)
    assert sealing(whole).is_sealed
    assert sealing(whole, december, december.end_us + 10**9).rejected == 1
