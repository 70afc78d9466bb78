"""The identity of a caller."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """The caller that a request is attributed to. Compared and hashed by object, so that caches can use it as a key.

    `zone` is the customer's IANA time zone; `anchor_us` the start of the subscription, in µs since the Unix epoch
    (0: periods begin at calendar boundaries). The key is invalid from `expires_us` (0: it never expires). `plan_since`
    is the time of the last change of plan, RFC 3339 ("": no change); counters do not depend on it.
    """

    key_id: str
    subject: str
    customer: str
    plan: str
    zone: str = "UTC"
    anchor_us: int = 0
    test: bool = False
    expires_us: int = 0
    plan_since: str = ""

    @property
    def account(self) -> str:
        """The root that the customer belongs to: the customer itself."""
        return self.customer

    def same_as(self, other: Identity) -> bool:
        """Whether all fields are equal: a refresh without a change keeps the old object, and the caches that use it."""
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)
