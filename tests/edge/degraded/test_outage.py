"""Reading the file of an outage line by line. What it says after kills is in test_ledger.py."""

import orjson
import pytest

from sidecar.edge.degraded.outage import read

UNREADABLE = [b"\0" * 512, b"garbage\n", b'["h",3,1,1]\n', b'{"a":1}\n', b'["l","k","count",3,99]\n', b"\0\n" * 9]


def write(path, *lines):
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def test_there_is_nothing_to_read_where_there_is_no_file_or_an_empty_one(tmp_path):
    assert read(tmp_path / "none") is None
    assert read(write(tmp_path / "empty")) is None


@pytest.mark.parametrize("data", UNREADABLE)
def test_a_file_without_a_head_is_damaged(tmp_path, data):
    (tmp_path / "f").write_bytes(data)
    found = read(tmp_path / "f")
    assert found.damage
    assert not found.local


# Fails if a torn last line is taken for damage, or lost lines for a torn one: the "m" line of a debt may be among them.
def test_only_what_is_lost_behind_a_line_is_damage(tmp_path):
    head, sum_ = b'["h",1,1,1]\n', b'["l","k","count",3,99]\n'
    (tmp_path / "f").write_bytes(head + sum_ + b'["m",["i')
    assert not read(tmp_path / "f").damage
    (tmp_path / "f").write_bytes(head + b"\0" * 99 + b"\n" + sum_)
    assert read(tmp_path / "f").damage.startswith("line 2 ")
    (tmp_path / "f").unlink()
    (tmp_path / "f").mkdir()
    assert "directory" in read(tmp_path / "f").damage


@pytest.mark.parametrize("bad", [["x"], ["l", "k"], ["a", "id", 9, [], [], 0], ["t", "id", 0, [1], [], []], 7, []])
def test_what_stands_before_a_line_that_is_not_ours_is_taken(tmp_path, bad):
    found = read(write(tmp_path / "f", ["h", 1, 2, 4], ["l", "k", "count", 3, 99], bad, ["l", "k2", "count", 3, 99]))
    assert (found.workers, found.total_workers, found.local) == (2, 4, {"k": ("count", 3, 99)})


def test_what_has_ended_is_dropped(tmp_path):
    lines = [["l", "k", "count", 3, 99], ["l", "m", "rate", [98, 0], 101], ["v", "m", 98], ["v", "n", 101]]
    found = read(write(tmp_path / "f", ["h", 1, 1, 1], *lines))
    found.drop(100)
    assert (found.local, found.leaks_us) == ({"m": ("rate", [98, 0], 101)}, {"n": 101})
