"""A sink file is known by its first line, and read no further than its sink has committed."""

import json

import pytest

from sidecar.core.errors import SinkError
from sidecar.ledger import sink_files
from sidecar.ledger.sink_files import SinkFile
from tests.edge.ledger.events import lines, usage


def pairs(file, position=0):
    return [pair for chunk, _ in file.chunks(position) for pair in chunk]


def test_offsets_are_places_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(sink_files, "_CHUNK_BYTES", 10)
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"one\n\n" + b"x" * 25 + b"\nthree\nhalf")
    assert pairs(SinkFile(path)) == [(0, b"one"), (5, b"x" * 25), (31, b"three")]
    assert pairs(SinkFile(path), 31) == [(31, b"three")]
    with path.open("ab") as file:
        file.write(b" and half\n")
    assert pairs(SinkFile(path), 37) == [(37, b"half and half")]


def test_a_renamed_or_grown_file_has_the_same_topic(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(lines(usage(1)))
    topic = SinkFile(path).topic
    path.write_bytes(lines(usage(1), usage(2)))
    moved = path.rename(tmp_path / "r.jsonl.1")
    assert SinkFile(moved).topic == topic
    assert len(topic) == len("file.") + 16
    path.write_bytes(lines(usage(2)))
    assert SinkFile(path).topic != topic
    path.write_bytes(b'{"half')
    assert SinkFile(path).topic == ""


# Fails if the whole file is read: the sink cuts off what it has not committed, and writes it again.
@pytest.mark.parametrize(("name", "stream"), [("r.jsonl", "records"), ("r.denials.jsonl", "denials")])
def test_bytes_that_the_sink_has_not_committed_are_not_read(tmp_path, name, stream):
    path = tmp_path / name
    path.write_bytes(b"one\ntwo\n")
    lengths = {"records": 100, "denials": 100, stream: 4}
    (tmp_path / "r.jsonl.positions").write_text(json.dumps({"positions": {}, "lengths": lengths}))
    assert pairs(SinkFile(path)) == [(0, b"one")]


def test_a_file_that_was_cut_or_changed_is_refused(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"one\ntwo\n")
    tail = SinkFile(path).tail(8)
    SinkFile(path).check(8, tail)
    path.write_bytes(b"one\n")
    with pytest.raises(SinkError, match="4 bytes, and 8 were loaded"):
        SinkFile(path).check(8, tail)
    path.write_bytes(b"one\ntoo\nthree\n")
    with pytest.raises(SinkError, match="not the file that was loaded"):
        SinkFile(path).check(8, tail)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SinkError, match="nowhere: No such file"):
        SinkFile(tmp_path / "nowhere")
