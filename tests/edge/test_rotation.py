import bz2
import gzip
import os

import pytest

from sidecar.edge import rotation
from sidecar.edge.rotation import compressed, not_taken, open_with_rotated, with_rotated


def test_rotated_files_come_before_the_file_oldest_first(tmp_path):
    # Fails if 10 is sorted before 9, or if compressed files or those of the denials are taken.
    names = ["r.jsonl-20261119", "r.jsonl-20261120", "r.jsonl.10", "r.jsonl.9", "r.jsonl.1"]
    for name in [*names, "r.jsonl", "r.jsonl.2.gz", "r.jsonl.positions", "r.jsonl.lock", "r.denials.jsonl.1",
                 "r.jsonl-old", "r.jsonl.1.jsonl", "xr.jsonl.1"]:  # fmt: skip
        (tmp_path / name).touch()
    assert [path.name for path in with_rotated(tmp_path / "r.jsonl")] == [*names, "r.jsonl"]
    assert with_rotated(tmp_path / "nowhere" / "r.jsonl") == [tmp_path / "nowhere" / "r.jsonl"]


@pytest.mark.parametrize(
    "names",
    [
        [".20261119", ".20261120", ".3", ".1"],
        ["-20261119", ".2026111923", "-20261119235959", "-2026-11-20", "-2026-11-20-14", ".20261121"],
        ["-1796100000", "-1796100001"],
        ["-20261121-1796100000", "-20261121-1796100001", "-2026-12-01-1796169600", ".1796169600123"],
        ["-2026-11-21", "-1796100000", "-20261202", ".9999", ".1000", ".2"],
    ],
)
def test_names_with_a_date_or_a_time_are_read_from_the_lowest_on(tmp_path, names):
    # Fails if `.20261121` is a number: the newest came first, and a correction before its original.
    for name in sorted(names):
        (tmp_path / f"r{name}").touch()
    assert [path.name for path in with_rotated(tmp_path / "r")] == [*(f"r{name}" for name in names), "r"]
    assert not_taken(tmp_path / "r") == {}


def test_what_is_not_taken_for_a_rotated_file_is_named(tmp_path):
    # Fails if a name that is not understood is passed over in silence, or a directory stops the reading.
    path = tmp_path / "r.jsonl"
    for name in [".1", ".1.1", ".12345", ".bak", "-old", "-1", ".positions", ".lock", ".bak.gz", "x.1"]:
        (tmp_path / f"r.jsonl{name}").touch()
    (tmp_path / "r.jsonl.2").mkdir()
    (tmp_path / "r.jsonl.3").symlink_to("r.jsonl.3")
    (tmp_path / "r.jsonl.4").symlink_to("nowhere")
    assert [each.name for each in with_rotated(path)] == ["r.jsonl.1", "r.jsonl"]
    assert contents(path) == [b""]
    named = {each.name.removeprefix("r.jsonl"): why for each, why in not_taken(path).items()}
    assert {name for name, why in named.items() if why.startswith("not a file")} == {".2", ".3", ".4"}
    assert {name for name, why in named.items() if why.endswith("name it with --file")} == {
        ".1.1", ".12345", ".bak", "-old", "-1"
    }  # fmt: skip
    (tmp_path / "s.denials").touch()
    (tmp_path / "s.denials.1").touch()
    assert not_taken(tmp_path / "s") == {}


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
