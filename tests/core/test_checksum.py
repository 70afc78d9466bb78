"""The journal's CRC: the sums of zlib, by the quick implementation."""

import importlib
import mmap
import platform
import sys
import zlib

import pytest

from sidecar.core import checksum


@pytest.mark.parametrize("size", [0, 1, 15, 16, 63, 64, 1_000, 70_001])
def test_the_sums_are_those_of_zlib(size):
    data = bytes(number * 31 % 251 for number in range(size))
    assert checksum.crc32(data) == zlib.crc32(data)
    # Fails if a sum that was begun is not continued.
    assert checksum.crc32(data, checksum.crc32(b"\xf5SJ\x01")) == zlib.crc32(b"\xf5SJ\x01" + data)
    assert checksum.crc32(memoryview(data)) == zlib.crc32(data)


def test_a_mapped_file_has_a_sum():
    with mmap.mmap(-1, 4096) as mapped:
        mapped[:5] = b"frame"
        assert checksum.crc32(mapped) == zlib.crc32(b"frame" + bytes(4091))


def test_the_quick_one_is_used_where_there_is_a_wheel_and_zlib_elsewhere(monkeypatch):
    # Fails if the dependency is missing, so that each request costs more, or if it is needed.
    assert (checksum.crc32 is not zlib.crc32) == (platform.machine() in {"x86_64", "aarch64"})
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    try:
        assert importlib.reload(checksum).crc32 is zlib.crc32
    finally:
        monkeypatch.undo()
        importlib.reload(checksum)
