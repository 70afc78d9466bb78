"""The digest in a file's name: a byte that has changed, or another file in its place, does not match it.

It is the start of the SHA-256 of the file's place (`usage.records/p0007.<first>-<last>` and a line feed) and its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sidecar.core.errors import SinkError
from sidecar.edge.files import open_regular

if TYPE_CHECKING:
    from sidecar.edge.ledger.files import LedgerFile, LedgerFolder, Listing

DIGITS: Final = 16  # hexadecimal: 64 bits against damage and mistakes
DAMAGED: Final = "damaged, or another file in its place: its bytes do not have the digest of its name"
_OF_THE_TEXT: Final = ("Parser", "Binder", "Catalog")  # how errors begin that no file can lead to


def digest_of(path: Path, place: str) -> str:
    """The digest of a file for its place. OSError: it cannot be read."""
    with open_regular(path) as file:
        return file_digest(file, lambda: sha256(f"{place}\n".encode())).hexdigest()[:DIGITS]


def damaged_files(folder: LedgerFolder, files: Iterable[LedgerFile], threads: int = 1) -> dict[LedgerFile, str]:
    """The files whose bytes do not have their digest, and why. It reads each file once, `threads` at a time."""

    def fault(file: LedgerFile) -> str:
        try:
            return "" if digest_of(folder.at(file), file.place) == file.digest else DAMAGED
        except FileNotFoundError:
            return ""  # compacted since
        except OSError as error:
            return f"damaged: {error.strerror}"

    named = list(files)
    with ThreadPoolExecutor(threads) as pool:
        faults = pool.map(fault, named)
        return {file: why for file, why in zip(named, faults, strict=True) if why}


def refuse_damaged(folder: LedgerFolder, listing: Listing, threads: int = 1) -> Listing:
    """The listing without the files whose bytes do not have their digest; these are refused."""
    damaged = damaged_files(folder, listing.files, threads)
    refused = [(str(file), why) for file, why in damaged.items()]
    intact = [file for file in listing.files if file not in damaged]
    return listing._replace(files=intact, refused=[*listing.refused, *refused])


def explained(
    error: SinkError, folder: LedgerFolder, files: Iterable[LedgerFile], threads: int = 1
) -> SinkError:  # fmt: skip
    """The error of a question to these files, with the names of those that are damaged: DuckDB may not name them.

    It reads each file once, but for errors that are in the text of the question.
    """
    if not str(error).startswith("DuckDB: ") or str(error).removeprefix("DuckDB: ").startswith(_OF_THE_TEXT):
        return error
    damaged = damaged_files(folder, files, threads)
    return SinkError("; ".join([f"{file}: {why}" for file, why in damaged.items()])) if damaged else error
