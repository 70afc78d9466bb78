import resource
import subprocess
from contextlib import contextmanager

import pytest

from sidecar.core.record.frame import RECORD, encode_frame
from sidecar.edge.journal.folder import Disk, Folder
from sidecar.edge.journal.segments import Figures, Segments
from tests.edge.journal.disks import FailingDisk, NoCut
from tests.edge.journal.logs import entries, exchange, journal, mint, sequences, told, until, write


def frame(sequence, size=100):
    return encode_frame(RECORD, "records", sequence, b"0" * 26, b"", b"x" * size)


def segments(tmp_path, disk, segment_bytes=1 << 20, *, durable=False):
    folder = Folder(tmp_path / "0")
    folder.own()
    found = Segments(folder, disk, Figures(), segment_bytes=segment_bytes, durable=durable)
    found.begin(1, "//sidecar/r/n/0/1")
    return found


@pytest.mark.parametrize("disk", [FailingDisk, NoCut])
def test_a_write_that_ends_anywhere_keeps_what_is_whole_and_says_how_much(tmp_path, disk):
    # Fails if a frame that a reader may have seen is cut off again, or half a frame counts as written.
    log = segments(tmp_path, disk := disk())
    batch = [frame(1), frame(2), frame(3)]
    for room in range(len(batch[0]) * 3):
        disk.room = None
        assert log.append([frame(9)]) == 1
        disk.room = room
        assert log.append(batch) == room // len(batch[0])
    disk.room = None
    log.close()


def test_a_rotation_that_fails_goes_on_in_the_long_file(tmp_path):
    # Fails if a process out of descriptors stops recording.
    log = segments(tmp_path, disk := FailingDisk(), segment_bytes=4_000)
    assert log.append([frame(1)]) == 1
    disk.creates_fail = True
    for n in range(2, 200):
        assert log.append([frame(n)]) == 1
    assert log.figures.rotations == 1
    assert log.figures.write_errors < 70  # tried now and then, not at each write
    disk.creates_fail = False
    for n in range(200, 220):
        assert log.append([frame(n)]) == 1
    log.close()
    assert sequences(tmp_path) == list(range(1, 220))


def test_a_file_that_could_not_get_its_head_is_not_left_behind(tmp_path):
    log = segments(tmp_path, disk := FailingDisk())
    disk.room = 10
    assert log.append([frame(1)]) == 0
    assert list((tmp_path / "0").glob("*.seg")) == []
    assert not log.ready


def test_a_rotated_file_stays_open_until_it_is_synced(tmp_path):
    log = segments(tmp_path, disk := FailingDisk(), segment_bytes=300, durable=True)
    for n in range(1, 10):
        log.append([frame(n)])
    files = log.figures.rotations
    log.begin_sync()()
    log.end_sync()
    assert len(disk.synced) == files
    log.begin_sync()()
    assert len(disk.synced) == files + 1
    log.close()


@contextmanager
def files_of_at_most(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_kernel_that_ends_a_write_short_costs_nothing(tmp_path):
    # The kernel's own short write (RLIMIT_FSIZE), then EFBIG: each file takes what fits, the rest goes into the next.
    log = journal(tmp_path)
    log.start()
    with files_of_at_most(2_000):
        for _ in range(40):
            await exchange(log)
    await log.aclose()
    assert log.figures.write_errors >= 5
    assert sequences(tmp_path) == list(range(1, 41))


@contextmanager
def small_disk(path, size):
    """A tmpfs of `size` where we may mount one; else a disk of our own that counts."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=False, capture_output=True
    )
    if mounted.returncode:
        disk = FailingDisk()
        disk.room = size
        yield disk
        return
    try:
        yield Disk()
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def make_room(path, disk):
    if isinstance(disk, FailingDisk):
        disk.room = None
    else:
        (path / "ballast").unlink()


async def test_a_disk_without_room_is_survived(tmp_path):
    # Fails if ENOSPC loses what was acknowledged, or the journal does not come back by itself (I8).
    path = tmp_path / "small"
    with small_disk(path, 256 << 10) as disk:
        if not isinstance(disk, FailingDisk):
            (path / "ballast").write_bytes(bytes(128 << 10))
        log = journal(path, disk, segment_bytes=32 << 10)
        log.start()
        acknowledged, refused = [], 0
        for _ in range(2_000):
            id_ = mint()
            if await told(log.close, "records", id_, "c", write):
                acknowledged.append(id_)
            else:
                refused += 1
                break
        assert refused
        assert log.figures.broken == 1
        make_room(path, disk)
        await until(log.accepting)
        acknowledged.append(await exchange(log))
        await log.aclose()
        found = [entry.id for entry in entries(path)]
        assert set(acknowledged) <= set(found)
        assert len(found) == len(set(found))


def test_a_disk_that_takes_nothing_and_says_nothing_is_full(tmp_path):
    class Mute(Disk):
        def write(self, fd, data):
            return 0

    log = segments(tmp_path, Mute())
    assert log.append([frame(1)]) == 0
