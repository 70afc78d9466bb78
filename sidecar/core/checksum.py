"""CRC-32 of ISO 3309, as zlib has it, by whichever implementation this machine has.

`crc32(data, value=0)` takes any buffer. That of `isal` uses the processor's carry-less multiplication: it takes a
seventh of zlib's instructions for the two frames of a request, and finds the same sums.
"""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32
except ImportError:  # a machine that there is no wheel for
    from zlib import crc32

__all__ = ["crc32"]
