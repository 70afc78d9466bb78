import pytest

from sidecar.core.errors import SinkError
from sidecar.ledger.connection import open_ledger
from tests.edge.ledger.ledgers import damage_page
from tests.ledger.parquet import event, write


def test_all_files_are_one_relation_with_their_positions_and_faults(tmp_path):
    # Fails if offsets that are in no file are not a fault: a period would be sealed without them.
    write(tmp_path, [event("usage", "s", 1, usage={"a": 1})])
    first = write(tmp_path, [event("usage", "s", number, usage={"a": 1}) for number in (2, 3)], part=7)
    second = write(tmp_path, [event("usage", "s", 4, usage={"a": 1})], part=7)
    write(tmp_path, [event("denial", "s/denials", 1)], topic="usage.denials")
    with open_ledger(tmp_path) as ledger:
        topics = ledger.engine.run("SELECT DISTINCT topic FROM ledger ORDER BY topic")
        assert topics == [("usage.denials",), ("usage.records",)]
        assert ledger.positions() == {"usage.denials/p0000": 0, "usage.records/p0000": 0, "usage.records/p0007": 2}
        assert ledger.faults == ()
    write(tmp_path, [event("usage", "s", 5, usage={"a": 1})], part=7)
    second.unlink()
    first.write_bytes(b"x")
    with open_ledger(tmp_path) as ledger:
        assert [fault.partition(":")[0] for fault in ledger.faults] == [f"usage.records/{first.name}"]


def test_offsets_that_are_in_no_file_are_a_fault(tmp_path):
    files = [write(tmp_path, [event("usage", "s", number, usage={"a": 1})]) for number in (1, 2, 3)]
    files[1].unlink()
    with open_ledger(tmp_path) as ledger:
        assert ledger.faults == ("usage.records partition 0: offsets 1 to 1 are in no file",)


def test_without_records_it_says_how_they_get_there(tmp_path):
    with pytest.raises(SinkError, match="`sidecar ledger load`"), open_ledger(tmp_path):
        pass


def test_a_damaged_page_that_a_question_meets_is_named(tmp_path):
    path = write(tmp_path, [event("usage", "s", number, usage={"a": number}) for number in range(1, 9)])
    damage_page(path, "units")
    with pytest.raises(SinkError, match=f"^usage.records/{path.name}: damaged, or an"), open_ledger(tmp_path) as ledger:
        ledger.engine.run("SELECT sum(units + 1) FROM ledger")
