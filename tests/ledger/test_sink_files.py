"""A sink file is known by its first line, and read no further than its sink has committed."""

import gzip
import json
import os
import re

import pytest

from sidecar.core.errors import SinkError
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.ledger import sink_files
from sidecar.ledger.load_options import LoadOptions
from sidecar.ledger.loading import Loader
from sidecar.ledger.sink_files import SinkFile, longer_copy
from tests.edge.ledger.events import lines, usage
from tests.edge.ledger.ledgers import ask


def pairs(path, position=0):
    with SinkFile(path) as file:
        return [pair for chunk, _ in file.chunks(position) for pair in chunk]


def topic_of(path):
    with SinkFile(path) as file:
        return file.topic


def check(path, position, tail):
    with SinkFile(path) as file:
        file.check(position, tail)


def test_offsets_are_places_in_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(sink_files, "_CHUNK_BYTES", 10)
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"one\n\n" + b"x" * 25 + b"\nthree\nhalf")
    assert pairs(path) == [(0, b"one"), (5, b"x" * 25), (31, b"three")]
    assert pairs(path, 31) == [(31, b"three")]
    with path.open("ab") as file:
        file.write(b" and half\n")
    assert pairs(path, 37) == [(37, b"half and half")]


def test_a_renamed_or_grown_file_has_the_same_topic(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(lines(usage(1)))
    topic = topic_of(path)
    path.write_bytes(lines(usage(1), usage(2)))
    moved = path.rename(tmp_path / "r.jsonl.1")
    assert topic_of(moved) == topic
    assert len(topic) == len("file.") + 16
    path.write_bytes(lines(usage(2)))
    assert topic_of(path) != topic
    path.write_bytes(b'{"half')
    assert topic_of(path) == ""


# Fails if the whole file is read: the sink cuts off what it has not committed, and writes it again.
@pytest.mark.parametrize(("name", "stream"), [("r.jsonl", "records"), ("r.denials.jsonl", "denials")])
def test_bytes_that_the_sink_has_not_committed_are_not_read(tmp_path, name, stream):
    path = tmp_path / name
    path.write_bytes(b"one\ntwo\n")
    lengths = {"records": 100, "denials": 100, stream: 4}
    (tmp_path / "r.jsonl.positions").write_text(json.dumps({"positions": {}, "lengths": lengths}))
    assert pairs(path) == [(0, b"one")]


def test_a_file_that_was_cut_or_changed_is_refused(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"one\ntwo\n")
    with SinkFile(path) as file:
        tail = file.tail(8)
    check(path, 8, tail)
    path.write_bytes(b"one\n")
    with pytest.raises(SinkError, match="4 bytes, and 8 were loaded"):
        check(path, 8, tail)
    path.write_bytes(b"one\ntoo\nthree\n")
    with pytest.raises(SinkError, match="not the file that was loaded"):
        check(path, 8, tail)


# Fails if the file is loaded: its bytes would be rejected lines of the ledger, which nothing takes out again.
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (gzip.compress(lines(usage(1))), "compressed: decompress it first, with gunzip"),
        (gzip.compress(b"x"), "compressed: decompress it first, with gunzip"),
        (b"\x28\xb5\x2f\xfd....", "compressed: decompress it first, with unzstd"),
        (b"BZh91AY&SY\n", "compressed: decompress it first, with bunzip2"),
        (b"\xfd7zXZ\0\n", "compressed: decompress it first, with unxz"),
        (b"id,customer\n1,acme\n", "not a sink file: its first line is not a JSON object"),
        (b"[1]\n" + lines(usage(1)), "not a sink file: its first line is not a JSON object"),
        (b"{}\n" + lines(usage(1)), "not a sink file: its first line is not a record: it has no type"),
    ],
)
def test_a_file_that_no_sink_wrote_is_refused_by_name(tmp_path, content, fault):
    path = tmp_path / "r.jsonl.1"
    path.write_bytes(content)
    with SinkFile(path) as file, pytest.raises(SinkError, match=re.escape(f"{path}: {fault}")):
        file.check_format()


def test_a_sink_file_passes_with_a_bad_line_later_or_half_a_line(tmp_path):
    path = tmp_path / "r.jsonl"
    for content in (lines(usage(1), b"nonsense"), b'{"half', b""):
        path.write_bytes(content)
        with SinkFile(path) as file:
            file.check_format()


def test_a_file_that_is_rotated_while_it_is_read_is_read_to_its_end(tmp_path, monkeypatch):
    # Fails if it is opened by its name again: lines of the new file would be at offsets of the old one, or the old one
    # would be refused from then on, because the digest of its end is of the new one.
    monkeypatch.setattr(sink_files, "_CHUNK_BYTES", 10)
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"one\n" * 5)
    with SinkFile(path) as file:
        chunks = file.chunks(0)
        next(chunks)
        moved = path.rename(tmp_path / "r.jsonl.1")
        path.write_bytes(b"two\n" * 10)
        assert [line for chunk, _ in chunks for _, line in chunk] == [b"one"] * 3
        tail = file.tail(20)
    check(moved, 20, tail)


def test_a_copy_of_the_beginning_of_another_file_is_known_by_its_bytes(tmp_path, monkeypatch):
    # Fails if the first line or the sizes decide.
    monkeypatch.setattr(sink_files, "_CHUNK_BYTES", 5)
    short, long, other = (tmp_path / name for name in ("short", "long", "other"))
    short.write_bytes(b"one\ntwo\n")
    long.write_bytes(b"one\ntwo\nthree\n")
    other.write_bytes(b"one\ntoo\nthree\n")
    assert longer_copy(short, [tmp_path / "nowhere", short, other, long]) == long
    assert longer_copy(short, [short, other]) is None
    assert longer_copy(long, [short, other]) is None


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SinkError, match="nowhere: No such file"):
        SinkFile(tmp_path / "nowhere")


def test_a_pipe_is_refused_and_does_not_block(tmp_path):
    # Fails if it is opened as a file: that waits for a writer.
    os.mkfifo(tmp_path / "r.jsonl")
    with pytest.raises(SinkError, match=r"r\.jsonl: not a regular file"):
        SinkFile(tmp_path / "r.jsonl")


def test_a_load_goes_on_after_the_last_good_file_and_names_the_refused_one_behind_it(tmp_path):
    # Fails if the name of a file of another program says where to go on: "10 bytes, and 99 were loaded: it was cut".
    path, folder = tmp_path / "r.jsonl", LedgerFolder(tmp_path / "ledger")
    path.write_bytes(lines(usage(1)))

    def load():
        with Loader(folder, LoadOptions(), memory="512MB") as loader:
            loader.load_file(path)
            return loader.report

    load()
    [good] = folder.listing().files
    refused = good._replace(first=good.last + 1, last=10**18 - 1)
    with Engine() as engine:
        engine.run(f"COPY (SELECT 1 AS a) TO '{folder.at(refused)}' (FORMAT parquet)")
    path.write_bytes(lines(usage(1), usage(2)))
    report = load()
    [fault] = report.faults
    assert fault.startswith(f"{refused}: damaged, or not a file of the ledger; loading goes on before it")
    assert fault.endswith("delete it and load again")
    assert report.total("records") == 1
    folder.at(refused).unlink()
    assert load().faults == []
    assert ask(folder.path, "SELECT sum(units) FROM usage") == [(2,)]
