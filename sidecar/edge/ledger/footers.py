"""The place that a file was written for, which its footer states.

A Parquet file ends with its footer, the length of it (4 bytes, little-endian) and `PAR1`. The ledger's writer puts
`usage.records/p0007.<first>-<last>` into the footer's key-value metadata, so that a file of another program, and a copy
under another name, are noticed without DuckDB: the footer is searched for these bytes, as Thrift's compact protocol has
them. They come after the statistics, which have texts of clients, so the last occurrence is the writer's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sidecar.edge.files import open_regular

PLACE_KEY: Final = "sidecar_place"  # the last key of the metadata
_MAGIC: Final = b"PAR1"
_STRING: Final = b"\x18"  # the next field of a structure, which is a string: its length and bytes follow
_KEY: Final = _STRING + bytes([len(PLACE_KEY)]) + PLACE_KEY.encode() + _STRING
_LENGTH_BYTES: Final = 2  # of a place
CUT: Final = "damaged: not a whole Parquet file"
FOREIGN: Final = "damaged, or not a file of the ledger"
COPY: Final = "a copy: it was written as"


def fault_of(path: Path, place: str) -> str:
    """The fault of the file for this place; "": it has none, or is gone, because it was compacted since."""
    try:
        footer = _read_footer(path)
    except FileNotFoundError:
        return "a link to a file that does not exist" if os.path.lexists(path) else ""
    except OSError as error:
        return f"damaged: {error.strerror}"
    if footer is None:
        return CUT
    written = _place_in(footer)
    if written == os.fsencode(place):
        return ""
    return f"{COPY} {os.fsdecode(written)}: delete it, or rename it back" if written else FOREIGN


def _read_footer(path: Path) -> bytes | None:
    """The footer; None: the file is not a whole Parquet file. OSError: it cannot be read, or is not a regular file."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        begin = file.read(4)
        file.seek(max(0, size - 8))
        length, end = int.from_bytes(file.read(4), "little"), file.read(4)
        if begin != _MAGIC or end != _MAGIC or length + 12 > size:
            return None
        file.seek(size - 8 - length)
        return file.read(length)


def _place_in(footer: bytes) -> bytes:
    """The place that the footer states; b"": none."""
    start = footer.rfind(_KEY) + len(_KEY)
    if start < len(_KEY):
        return b""
    size = 0
    for number, byte in enumerate(footer[start : start + _LENGTH_BYTES]):  # seven bits each, the lowest first
        size |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            begin = start + number + 1
            return footer[begin : begin + size]
    return b""
