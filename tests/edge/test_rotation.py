import bz2
import gzip
import os

import pytest

from sidecar.edge import rotation
from sidecar.edge.rotation import compressed, open_with_rotated, with_rotated


def test_rotated_files_come_before_the_file_oldest_first(tmp_path):
    # Fails if 10 is sorted before 9, or if compressed files or those of the denials are taken.
    names = ["r.jsonl-20261119", "r.jsonl-20261120", "r.jsonl.10", "r.jsonl.9", "r.jsonl.1"]
    for name in [*names, "r.jsonl", "r.jsonl.2.gz", "r.jsonl.positions", "r.jsonl.lock", "r.denials.jsonl.1",
                 "r.jsonl-old", "r.jsonl.1.jsonl", "xr.jsonl.1"]:  # fmt: skip
        (tmp_path / name).touch()
    assert [path.name for path in with_rotated(tmp_path / "r.jsonl")] == [*names, "r.jsonl"]
    assert with_rotated(tmp_path / "nowhere" / "r.jsonl") == [tmp_path / "nowhere" / "r.jsonl"]


def contents(path):
    read = []
    for file in open_with_rotated(path):
        with file:
            read.append(file.read())
    return read


def test_a_compressed_file_counts_as_read_where_its_contents_are(tmp_path):
    # Fails if the name alone makes a copy: logrotate gives the name of an unpacked file to another one.
    path, content = tmp_path / "r.jsonl", b"one\n"
    for number in (1, 2, 3):
        (tmp_path / f"r.jsonl.{number}.gz").write_bytes(gzip.compress(content * number))
    (tmp_path / "r.jsonl.2").write_bytes(b"eno\n" * 2)  # of the same size
    (tmp_path / "copy").write_bytes(content * 3)
    assert [each.name for each in compressed(path)] == ["r.jsonl.3.gz", "r.jsonl.2.gz", "r.jsonl.1.gz"]
    (tmp_path / "r.jsonl.2").write_bytes(content * 2)
    (tmp_path / "r.jsonl.4.gz").write_bytes(b"")
    names = ["r.jsonl.4.gz", "r.jsonl.1.gz"]
    assert [each.name for each in compressed(path, [tmp_path / "copy", tmp_path / "nowhere"])] == names


def test_another_compression_counts_as_read_where_name_and_time_are_the_same(tmp_path):
    path = tmp_path / "r.jsonl"
    (tmp_path / "r.jsonl-20261121.bz2").write_bytes(bz2.compress(b"one\n"))
    (tmp_path / "r.jsonl-20261121").write_bytes(b"one\n")
    os.utime(tmp_path / "r.jsonl-20261121", (1, 1))
    assert [each.name for each in compressed(path)] == ["r.jsonl-20261121.bz2"]
    os.utime(tmp_path / "r.jsonl-20261121.bz2", (1, 1))
    assert compressed(path) == []


def test_files_that_are_rotated_while_they_are_opened_are_read_once_each(tmp_path, monkeypatch):
    # Fails if the names are opened as they were listed: the second file would be left out.
    path, real = tmp_path / "r.jsonl", rotation.with_rotated
    path.write_bytes(b"2")
    (tmp_path / "r.jsonl.1").write_bytes(b"1")

    def rotate(path):
        names = real(path)
        if not (tmp_path / "r.jsonl.2").exists():
            (tmp_path / "r.jsonl.1").rename(tmp_path / "r.jsonl.2")
            path.rename(tmp_path / "r.jsonl.1")
            path.write_bytes(b"3")
        return names

    monkeypatch.setattr(rotation, "with_rotated", rotate)
    assert contents(path) == [b"1", b"2", b"3"]


def test_the_file_itself_may_be_absent_where_it_was_rotated(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_with_rotated(tmp_path / "r.jsonl")
    (tmp_path / "r.jsonl.1").write_bytes(b"1")
    assert contents(tmp_path / "r.jsonl") == [b"1"]


def test_files_that_never_stay_are_an_error(tmp_path, monkeypatch):
    (tmp_path / "r.jsonl").touch()
    monkeypatch.setattr(rotation, "_identities", lambda path: [])
    with pytest.raises(OSError, match="is rotated too often"):
        open_with_rotated(tmp_path / "r.jsonl")
