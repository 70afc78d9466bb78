"""Names say which offsets are there, whatever a kill left between two steps."""

import itertools
import json
import os

import pytest

from sidecar.core.errors import SinkError
from sidecar.edge.files import OwnedError
from sidecar.edge.ledger.files import LedgerFile, LedgerFolder
from sidecar.edge.ledger.footers import CUT
from tests.edge.ledger.events import usage
from tests.edge.ledger.ledgers import TOPIC, load, write_place

DIGEST = "0123456789abcdef"


def put(folder, *names, topic="t"):
    (folder / topic).mkdir(exist_ok=True)
    for name in names:
        write_place(folder / topic / name, f"{topic}/{name[: -len(DIGEST) - 9]}")


def name(first, last, part=0):
    return LedgerFile("t", part, first, last, DIGEST).name


def test_loading_goes_on_after_the_highest_end(tmp_path):
    put(tmp_path, name(0, 9), name(10, 24), name(5, 7, part=1))
    listing = LedgerFolder(tmp_path).listing()
    assert [listing.position("t", part) for part in (0, 1, 2)] == [25, 8, 0]
    assert listing.refused == listing.gaps() == []


# Fails if a covered file is read: after a killed compaction each of its records would be in every sum twice.
@pytest.mark.parametrize("order", [*itertools.permutations([(0, 29), (0, 9), (10, 19), (20, 29)])])
def test_parts_of_a_larger_range_are_not_read(tmp_path, order):
    put(tmp_path, *[name(*each) for each in order])
    listing = LedgerFolder(tmp_path).listing()
    assert [(each.first, each.last) for each in listing.files] == [(0, 29)]
    assert len(listing.covered) == 3
    assert listing.refused == []


def test_other_overlaps_and_foreign_names_are_refused_and_the_rest_is_read(tmp_path):
    put(tmp_path, name(0, 9), name(5, 12), "p0.parquet", name(20, 29), name(9, 3))
    (tmp_path / "t" / name(30, 39)).write_bytes(b"PAR1 cut")
    (tmp_path / "t" / "p0000.lock").touch()
    listing = LedgerFolder(tmp_path).listing()
    assert [each.first for each in listing.files] == [0, 20]
    refused = dict(listing.refused)
    assert refused[f"t/{name(5, 12)}"] == f"its offsets overlap those of {name(0, 9)}"
    assert refused["t/p0.parquet"].startswith("not a name of the ledger: ")
    assert refused[f"t/{name(9, 3)}"] == "its range is empty"
    # The last one of its partition: loading goes on before it.
    assert refused[f"t/{name(30, 39)}"].startswith(CUT + "; loading goes on before it")
    assert listing.position("t", 0) == 30
    assert [(a.last, b.first) for a, b in listing.gaps()] == [(9, 20)]


# Fails if two names are the same file to the ledger: its records would be in every sum twice.
@pytest.mark.parametrize(
    "wrong",
    [
        "p00000." + name(0, 9)[6:],
        "p000\u0660." + name(0, 9)[6:],
        name(0, 9, part=1_000_000),
        name(0, 9).replace(DIGEST, DIGEST.upper()),
        name(0, 9).replace(f".{DIGEST}", ""),
    ],
)
def test_a_name_that_the_ledger_does_not_write_is_refused(tmp_path, wrong):
    put(tmp_path, name(0, 9, part=999_999), wrong)
    listing = LedgerFolder(tmp_path).listing()
    assert [each.part for each in listing.files] == [999_999]
    [(refused, why)] = listing.refused
    assert refused == f"t/{wrong}"
    assert why.startswith("not a name of the ledger: give it the name that it had, or delete it and load again")


def test_a_refused_file_covers_nothing_and_no_load_goes_on_behind_it(tmp_path):
    put(tmp_path, name(0, 9), name(10, 19))
    write_place(tmp_path / "t" / name(0, 10**18 - 1), LedgerFile("t", 1, 0, 10**18 - 1).place)
    listing = LedgerFolder(tmp_path).listing()
    assert ([each.first for each in listing.files], listing.covered, listing.position("t", 0)) == ([0, 10], [], 20)


def test_a_second_process_is_refused_by_its_partition(tmp_path):
    folder = LedgerFolder(tmp_path)
    lock = folder.lock("t", 7)
    with pytest.raises(OwnedError, match=f"t partition 7: the process with pid {os.getpid()} loads it"):
        folder.lock("t", 7)
    os.close(folder.lock("t", 8))
    os.close(lock)
    os.close(folder.lock("t", 7))


def test_a_ledger_has_one_identity_and_each_topic_one_origin(tmp_path):
    folder = LedgerFolder(tmp_path / "new")
    folder.identify()
    folder.identify({"t": "Kafka cluster A"})
    about = json.loads((tmp_path / "new" / "ledger.json").read_text())
    assert (about["format"], len(about["id"]), about["origins"]) == (1, 16, {"t": "Kafka cluster A"})
    # Fails if the cluster is not compared: offsets of another cluster would be taken for those that are loaded.
    with pytest.raises(SinkError, match="t was loaded from Kafka cluster A, and this is Kafka cluster B"):
        folder.identify({"t": "Kafka cluster B"})
    folder.identify({"u": "Kafka cluster B"})
    assert folder.identity()["id"] == about["id"]


@pytest.mark.parametrize(
    ("text", "what"), [('{"format": 2}', "format 2 is of a newer version"), ("[]", "not a ledger")]
)
def test_a_folder_of_a_newer_version_or_another_program_is_refused(tmp_path, text, what):
    (tmp_path / "ledger.json").write_text(text)
    with pytest.raises(SinkError, match=what):
        LedgerFolder(tmp_path).identify()


def test_a_file_is_for_the_operator_and_the_group_alone(tmp_path):
    load(tmp_path, [usage(1)])
    (file,) = (tmp_path / TOPIC).glob("*.parquet")
    assert file.stat().st_mode & 0o777 == 0o640
