"""A regular tick that reports how late it is.

Where one step of the loop takes long, peers have sent bytes that are not read yet. A check of deadlines subtracts the
delay once; before the next tick those bytes are read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable


async def ticks(
    every_s: float, time: Callable[[], float], sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> AsyncIterator[tuple[float, float]]:
    """Yield `time()`, and how much later than due it is, in seconds: now, and `every_s` after each use."""
    late_s = 0.0
    while True:
        yield time(), late_s
        due = time() + every_s
        await sleep(every_s)
        late_s = max(0.0, time() - due)
