"""Records of commands: a source of their own that is complete at once, and never a part of one, however it ends."""

import errno
import os
import threading

import orjson
import pytest
from jsonschema import Draft202012Validator

from sidecar import ports
from sidecar.core.errors import SinkError
from sidecar.core.record import record_schema
from sidecar.core.record.statements import Audit, statement_record
from sidecar.edge.clock import SystemClock
from sidecar.edge.files import OwnedError
from sidecar.edge.journal import Disk
from sidecar.edge.journal.command_source import COMMANDS, CommandSource, PendingRecord
from sidecar.edge.journal.folder import Folder
from sidecar.edge.journal.journals import workers
from sidecar.edge.journal.orphan_recovery import Orphans
from tests.edge.journal.disks import FailingDisk
from tests.edge.journal.logs import entries, mint

NODE = "//sidecar/eu-1/gw-3"
SECOND_US = 1_000_000
validator = Draft202012Validator(record_schema())


def audit(number=1, usage=None):
    id_, statement = mint(), Audit("keys.revoke", "ann", f"key/k_{number}", "cli", "done")

    def render(time_us, source, sequence):
        return statement_record(statement, id_, (time_us, source, sequence))

    return PendingRecord(id_, "acme", render, usage or {})


def write(directory, *records, disk=None):
    with CommandSource(directory, NODE, SystemClock(), disk, wait_us=0) as commands:
        return commands.write(records, "0.1.0")


def recorded(directory):
    return [orjson.loads(entry.body) for entry in entries(directory, COMMANDS)]


def test_a_command_is_a_source_that_begins_with_its_start_and_ends_with_a_final_checkpoint(tmp_path):
    # Fails if the checkpoint is written before the records, counts itself, or leaves out `final`.
    source = write(tmp_path, audit(1, {"requests": 2}), audit(2, {"requests": 3, "tokens": 1}))
    records = recorded(tmp_path)
    assert [record["type"].split(".")[1] for record in records] == ["source", "audit", "audit", "checkpoint"]
    assert [int(record["sequence"]) for record in records] == [1, 2, 3, 4]
    assert {record["source"] for record in records} == {source}
    assert source.startswith(f"{NODE}/{COMMANDS}/")
    assert all(validator.is_valid(record) for record in records)
    assert records[0]["data"] == {"state": "started", "about": source, "version": "0.1.0"}
    final = records[-1]["data"]
    assert (final["highest"], final["final"]) == ({"records": 3, "denials": 0}, True)
    assert final["totals"] == {"requests": 5, "tokens": 1}


def test_each_command_names_the_one_before_it(tmp_path):
    # Fails if the epoch is not raised, or the segment that says who wrote it is read wrongly.
    first, second = write(tmp_path, audit()), write(tmp_path, audit())
    write(tmp_path, audit())
    starts = [record["data"] for record in recorded(tmp_path) if record["type"] == "sidecar.source.v1"]
    assert first != second
    assert [start.get("predecessor") for start in starts] == [None, first, second]


class Killed(BaseException):
    """The process ends at this call."""


class MortalDisk(Disk):
    """Ends the process before the call number `calls`, or (`after`) once it is done. A write takes `short` bytes."""

    def __init__(self, calls, short, *, after):
        self.calls, self.short, self.after = calls, short, after

    def _call(self, do):
        self.calls -= 1
        if self.calls < 0 and not self.after:
            raise Killed
        result = do()
        if self.calls < 0:
            raise Killed
        return result

    def create(self, path):
        return self._call(lambda: super(MortalDisk, self).create(path))

    def write(self, fd, data):
        return self._call(lambda: super(MortalDisk, self).write(fd, data[: self.short]))

    def sync(self, fd):
        return self._call(lambda: super(MortalDisk, self).sync(fd))


@pytest.mark.parametrize("after", [False, True])
def test_a_command_that_is_killed_at_any_call_has_recorded_nothing_and_the_next_one_works(tmp_path, monkeypatch, after):
    # Fails if the file has a segment's name while it is written (replace `unfinished` by `path`): a part is read.
    monkeypatch.setattr(CommandSource, "_remove_unfinished", lambda _: None)  # a kill removes nothing
    calls = 0
    while True:
        directory = tmp_path / str(calls)
        try:
            write(directory, audit(1), audit(2), disk=MortalDisk(calls, 400, after=after))
        except Killed:
            assert workers(directory) == []
            calls += 1
            continue
        break
    assert calls > 5
    assert len(recorded(directory)) == 4
    monkeypatch.undo()
    directory = tmp_path / "3"
    assert len(list((directory / COMMANDS).glob("*.new"))) == 1
    write(directory, audit())
    assert len(recorded(directory)) == 3
    assert list((directory / COMMANDS).glob("*.new")) == []


def test_the_records_are_synced_before_they_can_be_read(tmp_path):
    # Fails if the sync comes after the rename, or is left out.
    class Noting(Disk):
        readable = None

        def sync(self, fd):
            super().sync(fd)
            self.readable = workers(tmp_path)

    disk = Noting()
    write(tmp_path, audit(), disk=disk)
    assert disk.readable == []
    assert workers(tmp_path) == [COMMANDS]


def test_on_a_full_disk_nothing_is_recorded_and_the_error_says_so(tmp_path):
    disk = FailingDisk()
    disk.room = 700
    with pytest.raises(SinkError, match=r"commands/\d+-00000001.seg: nothing was recorded: No space left on device"):
        write(tmp_path, audit(), disk=disk)
    assert workers(tmp_path) == []
    assert list((tmp_path / COMMANDS).glob("*.new")) == []
    disk.room = None
    disk.syncs_fail = 1
    with pytest.raises(SinkError, match=f"nothing was recorded: {os.strerror(errno.EIO)}"):
        write(tmp_path, audit(), disk=disk)
    assert workers(tmp_path) == []


def test_a_record_that_cannot_be_made_leaves_nothing_behind(tmp_path):
    # Fails if only errors of the disk are handled.
    def broken(_time_us, _source, _sequence):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write(tmp_path, PendingRecord(mint(), "acme", broken))
    assert [path.name for path in (tmp_path / COMMANDS).glob("*.seg*")] == []


def test_a_second_command_waits_for_the_first(tmp_path):
    # Fails if the folder is tried once.
    folder = Folder(tmp_path / COMMANDS)
    folder.own()
    tried = threading.Event()

    class Clock(ports.Clock):
        now_us = staticmethod(SystemClock().now_us)

        def mono_us(self):
            tried.set()
            return SystemClock().mono_us()

    def release():
        tried.wait(10)
        folder.release()

    releasing = threading.Thread(target=release)
    releasing.start()
    with CommandSource(tmp_path, NODE, Clock()) as commands:
        commands.write([audit()], "0.1.0")
    releasing.join()
    assert len(recorded(tmp_path)) == 3


def test_a_command_that_never_ends_is_named_and_nothing_is_recorded(tmp_path):
    folder = Folder(tmp_path / COMMANDS)
    folder.own()
    with pytest.raises(OwnedError, match=rf"pid {os.getpid()}.*Another command.*nothing was recorded, try again"):
        write(tmp_path, audit())
    folder.release()
    assert workers(tmp_path) == []


async def test_recovery_of_orphans_leaves_the_records_of_commands_as_they_are(tmp_path):
    # Fails if recovery writes an epoch of its own here, or does not end while commands come.
    write(tmp_path, audit())
    orphans = Orphans(tmp_path, NODE, ["0"])
    assert await orphans.recover_all()
    write(tmp_path, audit())
    assert await orphans.recover_all()
    assert (orphans.recovered, orphans.faults) == (0, {})
    assert len(recorded(tmp_path)) == 6
