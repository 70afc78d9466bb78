"""Mirrors sidecar/edge/journal/replay.py."""

from itertools import pairwise

import pytest

from sidecar.core.errors import SinkError
from sidecar.core.record.frame import CLOSE, HEAD, MAGIC, NOTE, OPEN, Position, segment_name
from sidecar.edge.journal.folder import Folder
from sidecar.edge.journal.replay import frames_after, has_gap
from tests.edge.journal.logs import exchange, journal, told


async def written(folder, **more):
    log = journal(folder, **more)
    log.start()
    for _ in range(3):
        await exchange(log)
    assert await told(log.note, b'{"a":1}')
    here = log.here().written
    await exchange(log)
    await log.aclose()
    return here


async def test_every_kind_of_entry_behind_a_position_is_read_in_order(tmp_path):
    here = await written(tmp_path, segment_bytes=700)
    found = list(frames_after(tmp_path / "0", Position(0, 0, 0)))
    assert [frame.type for _, frame in found if frame.type != HEAD] == [OPEN, CLOSE] * 3 + [NOTE] + [OPEN, CLOSE]
    assert all(one < other for (one, _), (other, _) in pairwise(found))
    behind = [frame.type for _, frame in frames_after(tmp_path / "0", here)]
    assert [kind for kind in behind if kind != HEAD] == [OPEN, CLOSE]
    assert Folder(tmp_path / "0").end() == found[-1][0]


async def test_a_newer_version_is_refused(tmp_path):
    await written(tmp_path)
    path = next((tmp_path / "0").glob("*.seg"))
    data = bytearray(path.read_bytes())
    data[3] = 9
    from zlib import crc32  # noqa: PLC0415 - of this test alone

    length = int.from_bytes(data[12:16], "little")
    data[4:8] = crc32(bytes(data[8 : 24 + length]), crc32(MAGIC + b"\x09")).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(SinkError, match="version 9"):
        list(frames_after(tmp_path / "0", Position(0, 0, 0)))


async def test_a_segment_that_was_freed_is_a_gap(tmp_path):
    here = await written(tmp_path)
    assert not has_gap(tmp_path / "0", here)
    assert not has_gap(tmp_path / "0", Position(7, 0, 0))  # nothing had been written yet
    (tmp_path / "0" / segment_name(*here[:2])).unlink()
    assert has_gap(tmp_path / "0", here)
    assert Folder(tmp_path / "0").end() is None
