"""The journal's bytes: frames in segments. Bytes are a frame only if they are complete and their CRC is right.

Other bytes are torn if no frame follows them, and corrupt if one does. Magic, version, CRC
and length stay where they are in every version to come, so that a frame from the future is refused by name, and never
taken for damage. docs/journal.md has the layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple, Self, Union

from sidecar.core.checksum import crc32
from sidecar.core.errors import SinkError

if TYPE_CHECKING:
    from mmap import mmap

Buffer = Union[bytes, "mmap"]

MAGIC: Final = b"\xf5SJ"  # no UTF-8 has 0xf5, so no id, key or body can hold it
VERSION: Final = 1
HEADER_BYTES: Final = 50
PAYLOAD_MAX: Final = 1 << 20  # a record is a few hundred bytes, its path at most 8 KiB
RECORD_MAX: Final = PAYLOAD_MAX - (1 << 17)  # of a record, beside its id and a key of at most 64 KiB

HEAD, OPEN, PROGRESS, CLOSE, RECORD, NOTE = 1, 2, 3, 4, 5, 6  # CLOSE and RECORD are records; NOTE stays on its node
STREAMS: Final = ("", "records", "denials")
NO_ID: Final = b"0" * 26

# Magic and version; CRC-32 of all that follows it; type, stream, bytes of key, bytes of id + key + body, sequence, id.
LAYOUT: Final = Struct("<4sIBBHIQ26s")
MAGIC_NOW: Final = MAGIC + bytes((VERSION,))
_CRC: Final = crc32
SEED: Final = crc32(MAGIC_NOW)  # a frame's CRC is that of what follows it, begun with this
_KINDS: Final = {stream: [bytes((kind, number)) for kind in range(NOTE + 1)] for number, stream in enumerate(STREAMS)}
_SEGMENT: Final = re.compile(r"(\d{8,})-(\d{8,})\.seg")


class NewerVersionError(SinkError):
    """A frame of a version that this code does not know. `version` is its number."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"journal version {version}; this sidecar reads version {VERSION}: start the newer one again to ship it"
        )
        self.version = version


class Frame(NamedTuple):
    """`sequence` numbers a stream's records from 1 without gaps; the others have no stream and 0."""

    type: int
    stream: str
    sequence: int
    id: bytes
    key: bytes
    body: bytes


class Bad(NamedTuple):
    """Bytes `start` to `end` are not a frame. `torn`: no frame follows in the buffer; else they are corrupt."""

    start: int
    end: int
    torn: bool


class Position(NamedTuple):
    """A place in one worker's journal, after which to read on. Ordered; `str` and `parse` are inverse."""

    epoch: int
    segment: int
    offset: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.segment}.{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """SinkError where `text` is not three whole numbers: epoch, segment, offset."""
        if re.fullmatch(r"\d+\.\d+\.\d+", text, re.ASCII) is None:
            raise SinkError(f"journal position {text!r}: should be epoch.segment.offset, as in 7.1.4711")
        return cls(*map(int, text.split(".")))


def encode_frame(type_: int, stream: str, sequence: int, id_: bytes, key: bytes, body: bytes) -> bytes:
    """The bytes of a frame. `id_` has 26. SinkError: key and body are longer than a reader would believe."""
    length = 26 + len(key) + len(body)
    if length > PAYLOAD_MAX or len(id_) != 26:
        raise SinkError(f"journal: an entry of {length} bytes, id {id_!r}: at most {PAYLOAD_MAX}, and an id has 26")
    key_bytes = len(key).to_bytes(2, "little")
    rest = b"".join((
        _KINDS[stream][type_], key_bytes, length.to_bytes(4, "little"), sequence.to_bytes(8, "little"), id_, key, body
    ))  # fmt: skip
    return MAGIC_NOW + _CRC(rest, SEED).to_bytes(4, "little") + rest


def frame_at(buffer: Buffer, offset: int) -> tuple[int, Frame] | None:
    """The frame that starts at `offset`, and where it ends; None where there is no whole one.

    NewerVersionError: a whole frame, of a version from the future.
    """
    if len(buffer) - offset < HEADER_BYTES:
        return None
    magic, crc, type_, stream, key_bytes, length, sequence, id_ = LAYOUT.unpack_from(buffer, offset)
    end = offset + 24 + length
    if magic != MAGIC_NOW:
        if magic[:3] == MAGIC and magic[3] > VERSION and crc32(buffer[offset + 8 : end], crc32(magic)) == crc:
            raise NewerVersionError(magic[3])
        return None
    if length > PAYLOAD_MAX or end > len(buffer) or crc32(buffer[offset + 8 : end], SEED) != crc:
        return None
    body = offset + HEADER_BYTES + key_bytes
    return end, Frame(type_, STREAMS[stream], sequence, id_, buffer[offset + HEADER_BYTES : body], buffer[body:end])


def next_frame(buffer: Buffer, offset: int) -> int:
    """The offset of the first whole frame at or after `offset`; -1: there is not any."""
    start = buffer.find(MAGIC, offset)
    while start >= 0 and frame_at(buffer, start) is None:
        start = buffer.find(MAGIC, start + 1)
    return start


def scan(buffer: Buffer, offset: int = 0) -> Iterator[tuple[int, Frame | Bad]]:
    """Everything in `buffer` from `offset` on, in order, each with the offset of its end."""
    size = len(buffer)
    while offset < size:
        match = frame_at(buffer, offset)
        if match is None:
            start, after = offset, next_frame(buffer, offset + 1)
            offset = size if after < 0 else after
            yield offset, Bad(start, offset, torn=after < 0)
        else:
            offset = match[0]
            yield match


def segment_name(epoch: int, segment: int) -> str:
    """The file name of a segment; names sort as segments do."""
    return f"{epoch:08d}-{segment:08d}.seg"


def segment_of(name: str) -> tuple[int, int] | None:
    """Epoch and number of the segment with that file name, or None for other files."""
    match = _SEGMENT.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None
