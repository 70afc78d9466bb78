"""A file is read only in the place that it was written for, and nothing but a regular file is opened."""

import os
import shutil

import pytest

from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.edge.ledger.footers import CUT, FOREIGN, fault_of
from tests.edge.ledger.events import usage
from tests.edge.ledger.ledgers import TOPIC, ask, load, write_place

SUM = "SELECT sum(units) FROM usage"
PLACE = "t/p0000.000000000000000000-000000000000000009"


# Fails if the names are all that is looked at: the records would be in every sum twice.
@pytest.mark.parametrize("where", ["topic", "linked topic", "partition", "offsets"])
def test_a_copy_under_another_place_is_named_and_in_no_sum(tmp_path, where):
    [loaded] = load(tmp_path, [usage(1), usage(2)])
    path = LedgerFolder(tmp_path).at(loaded.file)
    copied = loaded.file
    if where == "topic":
        copied = copied._replace(topic="copy")
        shutil.copytree(path.parent, tmp_path / "copy")
    elif where == "linked topic":
        copied = copied._replace(topic="copy")
        (tmp_path / "copy").symlink_to(path.parent)
    else:
        copied = copied._replace(part=1) if where == "partition" else copied._replace(first=2, last=3)
        shutil.copy(path, LedgerFolder(tmp_path).at(copied))
    assert ask(tmp_path, SUM) == [(2,)]
    [(name, why)] = LedgerFolder(tmp_path).listing().refused
    assert name == str(copied)
    assert why == f"a copy: it was written as {loaded.file.place}: delete it, or rename it back"


# Fails if it is opened before it is looked at: a pipe would block for ever.
@pytest.mark.parametrize("what", ["pipe", "linked pipe", "folder", "link to nothing", "link to itself"])
def test_what_is_not_a_regular_file_is_named(tmp_path, what):
    [loaded] = load(tmp_path, [usage(1)])
    file = loaded.file._replace(first=1, last=9)
    path = LedgerFolder(tmp_path).at(file)
    if what.endswith("pipe"):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "pipe").rename(path) if what == "pipe" else path.symlink_to(tmp_path / "pipe")
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere" if what == "link to nothing" else path)
    assert ask(tmp_path, SUM) == [(1,)]
    [(name, why)] = LedgerFolder(tmp_path).listing().refused
    fault = {"link to nothing": "a link to a file that does not exist", "link to itself": f"damaged: {os.strerror(40)}"}
    assert name == str(file)
    assert why.startswith(fault.get(what, "damaged: not a regular file"))


def test_a_file_may_be_on_another_disk_behind_a_link(tmp_path):
    [loaded] = load(tmp_path / "ledger", [usage(1)])
    path = LedgerFolder(tmp_path / "ledger").at(loaded.file)
    path.rename(tmp_path / "x")
    path.symlink_to(tmp_path / "x")
    assert ask(tmp_path / "ledger", SUM) == [(1,)]


def test_a_file_of_another_program_is_not_of_the_ledger(tmp_path):
    path = tmp_path / "f"
    with Engine() as engine:
        engine.run(f"COPY (SELECT 1 AS a) TO '{path}' (FORMAT parquet)")
    assert fault_of(path, PLACE) == FOREIGN
    path.write_bytes(path.read_bytes()[:-1])
    assert fault_of(path, PLACE) == CUT
    path.unlink()
    assert fault_of(path, PLACE) == ""  # it was compacted since


def test_the_place_is_the_last_text_of_the_footer_that_looks_like_one(tmp_path):
    # Fails if the first one is taken: statistics, which come before it, have texts of clients.
    write_place(tmp_path / "client", PLACE)
    client = (tmp_path / "client").read_bytes()[4:-8]
    write_place(tmp_path / "f", f"{'u' * 249}/p0000", begin=client)
    assert fault_of(tmp_path / "f", PLACE).startswith("a copy: it was written as uuu")
    assert fault_of(tmp_path / "f", f"{'u' * 249}/p0000") == ""


def test_a_place_that_is_cut_is_not_read(tmp_path):
    for end in (b"", b"\xff", b"\xff\xff\xff"):
        footer = b"\x18\x0dsidecar_place\x18" + end
        (tmp_path / "f").write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
        assert fault_of(tmp_path / "f", PLACE) == FOREIGN


def test_the_place_is_found_in_a_file_of_each_topic(tmp_path):
    topic = "file.0123456789abcdef"
    load(tmp_path, [usage(1)], topic=topic, part=3)
    load(tmp_path, [usage(2)], topic="t" * 249, part=999_999)
    load(tmp_path, [usage(3)], topic=TOPIC)
    assert LedgerFolder(tmp_path).listing().refused == []
