import orjson
import pytest

from sidecar.core.errors import SidecarError
from sidecar.core.record.changes import History, correction_of, void_of
from sidecar.edge.clock import SystemClock
from sidecar.edge.files import OwnedError
from sidecar.edge.journal.command_source import COMMANDS, CommandSource
from sidecar.edge.journal.journals import workers
from sidecar.records.changes import record_change
from sidecar.records.originals import StoredOriginals
from sidecar.records.sources import RecordSource
from tests.edge.journal.logs import entries

ID = "01M8N97TG90000000000000001"
USAGE = {
    "type": "sidecar.usage.v1", "id": ID, "subject": "app", "time": "2026-11-30T03:51:06.505000Z",
    "data": {"customer": "acme", "key_id": "k", "usage": {"tokens": 5}},
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """A file with the record; its changes are in the journal beside it."""
    (tmp_path / "records").write_bytes(orjson.dumps(USAGE) + b"\n")
    return tmp_path


def originals(place):
    journal = place / "j"
    journal.mkdir(exist_ok=True)
    return StoredOriginals([RecordSource("records", journal=journal), RecordSource("records", file=place / "records")])


async def change(place, make, id_=ID, *, wait_us=10_000_000):
    commands = CommandSource(place / "j", "//sidecar/local/n", SystemClock(), wait_us=wait_us)
    return await record_change(commands, originals(place), id_, make, "0.1.0")


def void(history):
    return void_of(history, "test", "ann")


def recorded(place):
    if not workers(place / "j"):
        return []
    records = [orjson.loads(entry.body) for entry in entries(place / "j", COMMANDS)]
    return [record for record in records if "causationid" in record]


async def test_a_void_is_recorded_once_also_before_it_is_shipped(place):
    # Fails if the journal is not read for the history, or `is_recorded` is ignored.
    first, second = await change(place, void), await change(place, void)
    assert (bool(first.source), second.source) == (True, "")
    [record] = recorded(place)
    assert record["data"]["usage"] == {"tokens": -5}


async def test_a_record_that_is_nowhere_cannot_be_changed_and_nothing_is_recorded(place):
    with pytest.raises(SidecarError, match="no record has the id 01M8N97TG90000000000000002"):
        await change(place, void, "01M8N97TG90000000000000002")
    assert recorded(place) == []


async def test_the_history_is_read_while_no_other_command_can_record(place):
    # Fails if it is read before the folder is owned: the void would take back 5, the correction another 2.
    tried = []

    class Originals(StoredOriginals):
        async def find(self, id):
            with pytest.raises(OwnedError):
                await change(
                    place, lambda history: correction_of(history, {"tokens": -2}, "a", "test", "ann"), wait_us=0
                )
            tried.append(True)
            return await super().find(id)

    commands = CommandSource(place / "j", "//sidecar/local/n", SystemClock())
    watched = Originals(originals(place)._sources)
    await record_change(commands, watched, ID, void, "0.1.0")
    assert tried == [True]
    assert [record["data"]["usage"] for record in recorded(place)] == [{"tokens": -5}]


async def test_a_void_of_what_was_corrected_takes_back_the_rest(place):
    await change(place, lambda history: correction_of(history, {"tokens": -2}, "a", "test", "ann"))
    await change(place, void)
    changes = tuple(recorded(place))
    assert History(USAGE, changes).usage == {"tokens": 0}
