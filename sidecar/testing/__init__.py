"""Test doubles of all ports, in memory, so that a test of the gateway needs no server and no real clock.

A double answers at once, or holds its answers until the test releases them, and stores the calls that it receives.
Doubles decide by the same rule as the real counters (core/decision).
"""

from sidecar.testing.basics import HandClock, Held, Tally, minted
from sidecar.testing.journal import SOURCE, MemoryJournal, Written
from sidecar.testing.stores import AlertBook, CounterBook, KeyBook, PeekBook, RetryBook, apply_writes
from sidecar.testing.traffic import Call, PaperClient, ScriptedUpstream

__all__ = [
    "SOURCE", "AlertBook", "Call", "CounterBook", "HandClock", "Held", "KeyBook", "MemoryJournal", "PaperClient",
    "PeekBook", "RetryBook", "ScriptedUpstream", "Tally", "Written", "apply_writes", "minted",
]  # fmt: skip
