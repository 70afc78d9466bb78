"""Each fault of a ledger is reported by itself; a ledger without faults is whole."""

import pytest

from sidecar.edge.ledger.digests import DAMAGED
from sidecar.edge.ledger.engine import Engine
from sidecar.ledger.connection import open_ledger
from sidecar.ledger.sealing import Period, seal
from sidecar.ledger.verify import Difference, Late, verify
from tests.ledger.parquet import BASE_US, checkpoint, event, rejected, write

END_US = 1_796_083_200_000_000  # 2026-12-01
NOVEMBER = Period("2026-11", END_US - 30 * 86_400_000_000, END_US)
LATER_US = END_US + 3_600_000_000
S = "//sidecar/eu/n/0/1"


def usage(sequence, tokens=5, **more):
    return event("usage", S, sequence, usage={"requests": 1, "tokens": tokens}, **more)


def good():
    """A source of which everything is here."""
    return [
        event("source", S, 1, {"state": "started", "about": S}),
        usage(2),
        usage(3, data={"billable": False}),
        event("correction", S, 4, {"usage": {"tokens": -2}, "reason": "twice"}, cause=f"{S} 2"),
        checkpoint(S, 5, BASE_US, {"requests": 2, "tokens": 10}),
        usage(6),
        checkpoint(S, 7, LATER_US, {"requests": 3, "tokens": 15}, denials=1, final=True),
    ]


def denial():
    return event("denial", f"{S}/denials", 1, {"customer": "acme"})


def report(folder, records, denials=None):
    write(folder, records)
    write(folder, [denial()] if denials is None else denials, topic="usage.denials")
    with open_ledger(folder) as ledger:
        return verify(ledger)


def test_a_ledger_without_faults_is_whole(tmp_path):
    # Fails if corrections, or usage that is not billed, are left in or out of what checkpoints state.
    found = report(tmp_path, good())
    assert (found.is_whole, found.missing, found.differences) == (True, 0, [])
    assert found.kinds == {"checkpoint": 2, "correction": 1, "denial": 1, "source": 1, "usage": 3}


@pytest.mark.parametrize("lost", [1, 2, 4])
def test_a_lost_record_is_missing(tmp_path, lost):
    records = good()
    del records[lost]
    found = report(tmp_path, records)
    assert (found.is_whole, found.missing, found.gaps(S)) == (False, 1, [(lost + 1, lost + 1)])


def test_the_units_of_a_lost_record_are_the_difference_to_the_checkpoint(tmp_path):
    records = good()
    del records[1]
    assert report(tmp_path, records).differences == [Difference(S, "requests", 3, 2), Difference(S, "tokens", 15, 10)]


def test_units_that_were_changed_on_the_way_are_a_difference(tmp_path):
    # Fails if only numbers are looked at.
    records = good()
    records[1] = usage(2, tokens=4)
    found = report(tmp_path, records)
    assert (found.missing, found.differences) == (0, [Difference(S, "tokens", 15, 14)])
    assert not found.is_whole


def test_records_after_the_last_checkpoint_are_not_in_its_totals(tmp_path):
    records = [*good()[:6]]
    found = report(tmp_path, records)
    assert found.differences == []


def test_denials_that_a_checkpoint_states_and_that_are_not_here_are_missing(tmp_path):
    # Fails if the denials' source has to have records before it is looked at.
    found = report(tmp_path, good(), denials=[event("denial", "//other/denials", 1)])
    assert (found.missing, found.gaps(f"{S}/denials")) == (1, [(1, 1)])


def test_numbers_that_a_successor_states_and_that_are_not_here_are_missing_until_the_source_is_retired(tmp_path):
    # Fails if only checkpoints are looked at, or a retired source keeps the ledger from being whole.
    killed = "//sidecar/eu/n/0/0"
    closed = event("source", S, 1, {"state": "closed", "about": killed, "highest": {"records": 3, "denials": 2}})
    found = report(tmp_path, [closed, *good()[1:], event("usage", killed, 1, usage={"tokens": 1})])
    assert (found.missing, found.gaps(killed), found.gaps(f"{killed}/denials")) == (4, [(2, 3)], [(1, 2)])
    commands = "//sidecar/eu/n/commands/1"
    write(tmp_path, [event("source", commands, 1, {"state": "retired", "about": killed})])
    with open_ledger(tmp_path) as ledger:
        found = verify(ledger)
    assert (found.missing, found.gaps(killed), found.is_whole) == (0, [(2, 3)], True)


def test_copies_are_listed_and_are_not_a_fault(tmp_path):
    # Fails if the same record again counts as a number used twice, or its units in the totals.
    found = report(tmp_path, [*good(), usage(2)])
    assert (found.is_whole, found.copies, found.reused) == (True, {S: 1}, [])


def test_a_copy_under_a_number_of_its_own_is_in_the_totals_of_its_source(tmp_path):
    # Fails if copies are left out where units are compared: the source counted it.
    other = "//sidecar/eu/n/0/2"
    crashed = event("usage", other, 1, id_=f"{S} 2", usage={"requests": 1, "tokens": 5})
    last = checkpoint(other, 2, LATER_US, {"requests": 1, "tokens": 5})
    found = report(tmp_path, [*good(), crashed, crashed, last])
    assert (found.is_whole, found.differences, found.copies) == (True, [], {other: 2})


def test_an_alert_that_two_sources_report_is_not_a_copy_that_counts(tmp_path):
    alerts = [event("alert", S, 8, id_="alert"), event("alert", S, 9, id_="alert")]
    assert report(tmp_path, [*good(), *alerts]).copies == {}


def test_a_number_under_two_ids_is_named(tmp_path):
    found = report(tmp_path, [*good(), usage(2, id_="another producer")])
    assert (found.is_whole, found.reused, found.reused_count) == (False, [(S, 2, 2)], 1)


def test_what_was_rejected_and_what_changes_nothing_is_named(tmp_path):
    unknown = event("void", S, 8, {"usage": {"tokens": -1}, "reason": "test"}, cause="nowhere")
    found = report(tmp_path, [*good(), rejected(), unknown])
    assert found.rejected == [("usage.records", 0, 7, "not JSON")]
    assert found.unknown_originals == [(f"{S} 8", "nowhere")]
    assert (found.is_whole, found.rejected_count, found.unknown_count) == (False, 1, 1)


def sealed(folder):
    report(folder, good())
    with open_ledger(folder) as ledger:
        assert seal(ledger, NOVEMBER, LATER_US).is_sealed


def test_records_of_a_sealed_period_that_come_later_are_reported(tmp_path):
    # Fails if the offsets at the seal are not looked at: then all records of the period were late, or none.
    sealed(tmp_path)
    late = [usage(8, time_us=LATER_US, period_us=END_US - 1), usage(9, time_us=LATER_US, period_us=END_US)]
    write(tmp_path, late, part=3)
    with open_ledger(tmp_path) as ledger:
        found = verify(ledger)
    assert found.late == [Late("2026-11", False, 1, {"requests": 1, "tokens": 5})]
    assert not found.is_whole


def test_changes_by_operators_after_the_seal_are_reported_and_are_not_a_fault(tmp_path):
    sealed(tmp_path)
    commands = "//sidecar/eu/n/commands/1"
    void = event("void", commands, 1, {"usage": {"tokens": -5}, "reason": "test"}, cause=f"{S} 2", period_us=BASE_US)
    backfill = event("usage", commands, 2, {"origin": "ingested"}, usage={"requests": 3}, period_us=BASE_US)
    write(tmp_path, [void, backfill])
    with open_ledger(tmp_path) as ledger:
        found = verify(ledger)
    assert found.late == [Late("2026-11", True, 2, {"requests": 3, "tokens": -5})]
    assert found.is_whole


def test_what_retention_has_removed_of_a_sealed_period_is_not_missing(tmp_path):
    # Fails if numbers below a seal are looked for, or the totals of all records are compared with those that are left.
    sealed(tmp_path)
    removed = [*tmp_path.glob("usage.*/*.parquet")]
    write(tmp_path, [usage(8), checkpoint(S, 10, LATER_US + 1, {"requests": 4, "tokens": 20}, denials=1)])
    for path in removed:
        path.unlink()
    with open_ledger(tmp_path) as ledger:
        found = verify(ledger)
    assert (found.missing, found.gaps(S), found.differences, found.changed) == (1, [(9, 9)], [], [])


def test_units_of_a_sealed_period_that_change_are_a_fault(tmp_path):
    # Fails if a part of a sealed month can be lost unseen, because its numbers are proven.
    other = "//sidecar/eu/n/1/1"
    path = write(tmp_path, [event("usage", other, 1, usage={"tokens": 7})], part=3)
    write(tmp_path, [checkpoint(other, 2, BASE_US, {"tokens": 7}, final=True)], part=4)
    sealed(tmp_path)
    with open_ledger(tmp_path) as ledger:
        assert verify(ledger).is_whole
    path.unlink()
    with open_ledger(tmp_path) as ledger:
        found = verify(ledger)
    assert found.changed == [Difference("2026-11 billable", "tokens", 15, 8)]
    assert (found.missing, found.is_whole) == (0, False)


def test_a_plan_label_that_means_two_things_is_a_fault(tmp_path):
    # Fails if labels are compared within one source only: two nodes would sell pro@3 at two prices.
    other = S.replace("/0/", "/1/")
    same, pro = {"free@1": "aa" * 32}, {"pro@3": "bb" * 32}
    policy = {"policy": "p", "state": "applied", "files": {}}
    write(tmp_path, [
        *good(),
        event("policy", other, 1, policy | {"plans": same | pro}), event("policy", other, 2, policy | {"plans": same}),
    ])  # fmt: skip
    write(tmp_path, [denial()], topic="usage.denials")
    with open_ledger(tmp_path) as ledger:
        assert verify(ledger).labels == []
    third = S.replace("/0/", "/2/")
    write(tmp_path, [event("policy", third, 1, policy | {"plans": same | {"pro@3": "cc" * 32}})], part=1)
    with open_ledger(tmp_path) as ledger:
        report = verify(ledger)
    assert report.labels == [("pro@3", ["bb" * 32, "cc" * 32], [other, third])]
    assert not report.is_whole


def checked(folder):
    with open_ledger(folder, checks_digests=True) as ledger:
        return verify(ledger)


def place_in_column(path, column):
    """An offset in the file that is in a page of a column, past its header and dictionary."""
    with Engine() as engine:
        ((first, size),) = engine.run(
            "SELECT data_page_offset, total_compressed_size FROM parquet_metadata(?) WHERE path_in_schema = ?",
            [str(path), column],
        )
    return first + size // 2


# Fails if only columns that a query reads are looked at, or a file that fails ends the command.
@pytest.mark.parametrize("column", ["path", "traceparent", "units", "decision"])
def test_one_bit_of_any_column_that_has_changed_is_named_and_the_rest_is_verified(tmp_path, column):
    records = good()
    path = write(tmp_path, records[:3])
    write(tmp_path, records[3:])
    write(tmp_path, [denial()], topic="usage.denials")
    assert checked(tmp_path).is_whole
    data = bytearray(path.read_bytes())
    data[place_in_column(path, column)] ^= 1
    path.write_bytes(data)
    found = checked(tmp_path)
    assert found.faults == (f"usage.records/{path.name}: {DAMAGED}",)
    assert (found.gaps(S), found.kinds) == ([(1, 3)], {"checkpoint": 2, "correction": 1, "denial": 1, "usage": 1})


# Fails if the digest is of the bytes alone (another partition), or is not compared (an older cut).
@pytest.mark.parametrize("other", ["partition", "topic", "cut"])
def test_another_whole_file_in_the_place_of_one_is_named(tmp_path, other):
    path = write(tmp_path, good())
    write(tmp_path, [denial()], topic="usage.denials")
    old = tmp_path / "old"
    if other == "partition":
        copied = write(old, good(), part=1)
    elif other == "topic":
        copied = write(old, [*good()[:6], usage(7)], topic="usage.other")
    else:
        copied = write(old, good()[:4])
    # With its digest in the name, as somebody who renames it would leave it; and under the name that it replaces.
    renamed = path.with_name(".".join([*path.name.split(".")[:2], copied.name.split(".")[-2], "parquet"]))
    for target in (path, renamed):
        path.unlink(missing_ok=True)
        target.write_bytes(copied.read_bytes())
        assert [fault.partition(":")[0] for fault in checked(tmp_path).faults] == [f"usage.records/{target.name}"]
        with open_ledger(tmp_path, checks_digests=True) as ledger:
            assert not seal(ledger, NOVEMBER, LATER_US).is_sealed


def test_a_file_that_was_cut_is_named(tmp_path):
    # Fails if the footer, which is at the end, is all that is looked at: a file is cut in the middle as well.
    path = write(tmp_path, good())
    data = path.read_bytes()
    for cut in (data[:-1], data[:300] + data[400:], b"PAR1"):
        path.write_bytes(cut)
        assert [fault.partition(":")[0] for fault in checked(tmp_path).faults] == [f"usage.records/{path.name}"]
