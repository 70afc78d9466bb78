"""Who is calling: credentials, API keys and the identity that attribution yields.

A credential is never kept: only its SHA-256 (with an optional pepper) is looked up, cached or stored.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """The result of attribution. Compared and hashed by object: one look-up yields one object, which caches may key on.

    `zone` is the customer's IANA time zone; `anchor_us` the start of the subscription, in µs since the Unix epoch
    (0: the calendar's own boundaries).
    """

    key_id: str
    subject: str
    customer: str
    plan: str
    zone: str = "UTC"
    anchor_us: int = 0
    test: bool = False
