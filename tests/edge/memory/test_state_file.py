"""Mirrors sidecar/edge/memory/state_file.py."""

import re
from zlib import crc32

import orjson
import pytest

from sidecar.core.errors import SinkError, StateError
from sidecar.core.record.frame import HEAD, MAGIC, NO_ID, NOTE, OPEN, Position, encode_frame
from sidecar.edge.memory import state_file
from sidecar.edge.memory.state_file import (
    Slice,
    StateFile,
    check_slices,
    keep_nothing,
    needed_from,
    read_slices,
)

FIRST = Slice(Position(7, 1, 900), Position(7, 1, 800), 4, [["count", "k", 9, 1]])
SECOND = Slice(Position(7, 1, 950), Position(7, 1, 950), 5, [["count", "l", 9, 2]])
LATER = Slice(Position(7, 3, 10), Position(7, 3, 10), 9, [["count", "k", 9, 5]])

WHERE = {"written": "7.1.1", "settled": "7.1.1", "highest": 0, "rows": []}


def save(folder, *slices):
    file = StateFile(folder, 1).open()
    for each in slices:
        file.add(each)
    file.keep()


def test_what_is_saved_is_read_back(tmp_path):
    assert read_slices(tmp_path) == ([], [])
    save(tmp_path, FIRST, SECOND)
    assert read_slices(tmp_path) == ([FIRST, SECOND], [])


def test_a_slice_of_many_rows_is_several_frames_with_one_place(tmp_path):
    rows = [["count", "k" * 1000, 9, number] for number in range(1000)]
    save(tmp_path, FIRST._replace(rows=rows))
    slices, _ = read_slices(tmp_path)
    assert len(slices) > 2
    assert [row for each in slices for row in each.rows] == rows
    assert {each[:3] for each in slices} == {FIRST[:3]}


def test_a_state_of_nothing_is_a_state(tmp_path):
    save(tmp_path, FIRST._replace(rows=[]))
    assert read_slices(tmp_path) == ([FIRST._replace(rows=[])], [])


# Fails if a file's end is not looked for, if its frames are not counted, or if the previous file is not kept.
@pytest.mark.parametrize("damage", ["cut", "zeros", "flipped", "no end", "no middle", "missing"])
def test_a_damaged_file_gives_way_to_the_previous_one_and_is_told(tmp_path, damage):
    save(tmp_path, FIRST, SECOND)
    save(tmp_path, LATER)
    path = tmp_path / "state"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        half = len(data) // 2
        flipped = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
        _, note, end = (found.start() for found in re.finditer(re.escape(MAGIC), data))
        whole = {"no end": data[:end], "no middle": data[:note] + data[end:]}  # of whole frames, each of them right
        path.write_bytes({"cut": data[:half], "zeros": bytes(half), "flipped": flipped, **whole}[damage])
    slices, faults = read_slices(tmp_path)
    assert slices == [FIRST, SECOND]
    assert len(faults) == (damage != "missing")


@pytest.mark.parametrize("size", range(0, 400, 13))
def test_a_file_cut_anywhere_is_known_for_damaged(tmp_path, size):
    save(tmp_path, LATER)
    data = (tmp_path / "state").read_bytes()
    (tmp_path / "state").write_bytes(data[: size % len(data)])
    with pytest.raises(SinkError, match="counters and wallets are unknown"):
        read_slices(tmp_path)


# Fails if what a checksum does not tell is not looked at: it was a KeyError, and the previous file was not tried.
@pytest.mark.parametrize(
    "frames",
    [
        [(HEAD, {"made_us": 1, "source": "//sidecar/eu/gw/0/7"}), (OPEN, {"customer": "c"})],  # a segment
        [(HEAD, [])],
        [(HEAD, {"version": "x"})],
        [(HEAD, {"version": 1}), (NOTE, {"rows": []}), (HEAD, {"version": 1, "slices": 1})],
        [(HEAD, {"version": 1}), (NOTE, []), (HEAD, {"version": 1, "slices": 1})],
        [(HEAD, {"version": 1}), (NOTE, WHERE | {"written": "x"}), (HEAD, {"version": 1, "slices": 1})],
        [(HEAD, {"version": 1}), (NOTE, WHERE | {"rows": [["other", "k", 0, 1]]}), (HEAD, {"version": 1, "slices": 1})],
        [(HEAD, {"version": 1}), (NOTE, WHERE | {"rows": [[]]}), (HEAD, {"version": 1, "slices": 1})],
        [(HEAD, {"version": 1}), (OPEN, WHERE), (HEAD, {"version": 1, "slices": 1})],
    ],
)
def test_a_file_that_is_something_else_gives_way_to_the_previous_one(tmp_path, frames):
    save(tmp_path, LATER)
    save(tmp_path, FIRST)
    data = b"".join(encode_frame(kind, "", 0, NO_ID, b"", orjson.dumps(body)) for kind, body in frames)
    (tmp_path / "state").write_bytes(data)
    slices, faults = read_slices(tmp_path)
    assert (slices, len(faults)) == ([LATER], 1)
    assert check_slices(tmp_path) == LATER
    (tmp_path / "state.previous").write_bytes(data)
    with pytest.raises(StateError, match="Restore the file"):
        read_slices(tmp_path)


def newer(frame):
    """The same frame in the journal's next version."""
    magic = MAGIC + b"\2"
    return magic + crc32(frame[8:], crc32(magic)).to_bytes(4, "little") + frame[8:]


# Fails if a newer file is taken for damage: the older one would be used, and quotas served again.
@pytest.mark.parametrize(
    ("data", "version"),
    [
        (encode_frame(HEAD, "", 0, NO_ID, b"", b'{"version":4}'), "state of version 4; this sidecar reads version 3"),
        (newer(encode_frame(HEAD, "", 0, NO_ID, b"", b"")), "journal version 2; this sidecar reads version 1"),
    ],
)
def test_a_newer_version_is_refused_by_name(tmp_path, data, version):
    for _ in range(2):
        save(tmp_path, FIRST)
    (tmp_path / "state").write_bytes(data)
    for look in (read_slices, check_slices):
        with pytest.raises(StateError, match=f"/state: {version}"):
            look(tmp_path)


# Fails if only the last file's place is kept: the longer replay from the previous one would find entries gone.
def test_the_journal_is_kept_from_the_older_file_on(tmp_path):
    assert needed_from(tmp_path) is None
    save(tmp_path, FIRST, SECOND)
    assert needed_from(tmp_path) == FIRST.settled
    save(tmp_path, SECOND)
    assert needed_from(tmp_path) == FIRST.settled
    save(tmp_path, LATER)
    assert needed_from(tmp_path) == SECOND.written
    keep_nothing(tmp_path)
    assert needed_from(tmp_path) is None


def test_a_place_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "state.keep").write_text("soon")
    with pytest.raises(SinkError, match="journal position 'soon'"):
        needed_from(tmp_path)


def test_a_draft_that_is_given_up_leaves_the_last_state(tmp_path, monkeypatch):
    save(tmp_path, FIRST)
    file = StateFile(tmp_path, 2).open()
    file.add(LATER)
    monkeypatch.setattr(state_file.os, "write", lambda _fd, _data: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        file.keep()
    file.drop()
    assert read_slices(tmp_path) == ([FIRST], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state", "state.keep"]
