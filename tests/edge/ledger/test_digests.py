"""The digest of a file is of its place and its bytes."""

from hashlib import sha256

from sidecar.core.errors import SinkError
from sidecar.edge.ledger.digests import DAMAGED, damaged_files, digest_of, explained, refuse_damaged
from sidecar.edge.ledger.files import LedgerFile, LedgerFolder
from tests.edge.ledger.events import usage
from tests.edge.ledger.ledgers import TOPIC, load


def test_a_digest_is_the_start_of_the_hash_of_place_and_bytes(tmp_path):
    # Fails if the recipe changes: every file that was written before would be refused.
    (tmp_path / "f").write_bytes(b"abc")
    file = LedgerFile("t", 7, 0, 9)
    digest = digest_of(tmp_path / "f", file.place)
    assert digest == sha256(b"t/p0007.000000000000000000-000000000000000009\nabc").hexdigest()[:16]
    assert file._replace(digest=digest).name == f"p0007.000000000000000000-000000000000000009.{digest}.parquet"
    assert file.name == "p0007.000000000000000000-000000000000000009.parquet"


def test_files_are_checked_by_several_threads_and_one_that_is_gone_is_not_damaged(tmp_path):
    load(tmp_path, *[[usage(number)] for number in range(1, 6)])
    folder = LedgerFolder(tmp_path)
    listing = folder.listing()
    assert refuse_damaged(folder, listing, threads=3) == listing
    gone, damaged, unreadable = listing.files[1:4]
    folder.at(gone).unlink()
    folder.at(damaged).write_bytes(folder.at(damaged).read_bytes() + b"x")
    folder.at(unreadable).unlink()
    folder.at(unreadable).mkdir()
    faults = damaged_files(folder, listing.files, 2)
    assert faults == {damaged: DAMAGED, unreadable: "damaged: not a regular file"}
    left = refuse_damaged(folder, listing)
    assert [each.first for each in left.files] == [0, 1, 4]
    assert [name for name, _ in left.refused] == [f"{TOPIC}/{damaged.name}", f"{TOPIC}/{unreadable.name}"]


def test_an_error_of_a_question_names_the_files_that_are_damaged(tmp_path):
    load(tmp_path, [usage(1)], [usage(2)])
    folder = LedgerFolder(tmp_path)
    first, second = folder.listing().files
    error = SinkError("DuckDB: TProtocolException: Invalid data")
    assert explained(error, folder, [first, second]) is error
    folder.at(second).write_bytes(folder.at(second).read_bytes().replace(b"PAR1", b"PAR2", 1))
    assert str(explained(error, folder, [first, second])) == f"{second}: {DAMAGED}"
    for text in ("DuckDB: Binder Error: no such column", "the folder cannot be read"):  # no file leads to these
        error = SinkError(text)
        assert explained(error, folder, [first, second]) is error
