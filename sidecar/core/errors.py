"""The exceptions: which part failed, what the client gets, and whether to retry.

    SidecarError
    ├── UpstreamError    the upstream API failed          → 502, 503, 504: the table `UpstreamReason`
    ├── StoreError       counters or keys did not answer  → each limit's `on_store_failure` decides; `StoreReason`
    ├── SinkError        journal, Kafka or file           → `on_full` decides
    │   └── StateError   state file of a node without Redis → exit code 2, also at run time
    └── PolicyError      configuration or policy          → exit code 2; at run time the old one stays

401, 402, 403 and 429 are decisions, not errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, unique
from typing import Any, Final, NamedTuple


class SidecarError(Exception):
    """The base class of all errors that the sidecar raises itself."""


class Retry(Enum):
    """Whether a failed attempt may be repeated; at most once."""

    NEVER = "never"
    ALWAYS = "always"  # nothing of the request was sent
    IDEMPOTENT = "idempotent"  # it was sent: only a method that may be repeated (RFC 9110 §9.2.2)


@unique
class UpstreamReason(Enum):
    """Why an upstream did not answer: the slug of the problem type, the status, and whether it is retried.

    Slugs are part of the API. Reasons share a slug if the difference is irrelevant to clients.
    """

    SATURATED = ("upstream-saturated", 503, Retry.NEVER)  # no free connection, or this node cannot open one
    SHARE = ("upstream-share-used", 429, Retry.NEVER)  # this customer has its share of the connections in use
    REFUSED = ("upstream-unreachable", 502, Retry.ALWAYS)
    CONNECT_TIMEOUT = ("upstream-unreachable", 504, Retry.ALWAYS)
    DROPPED = ("upstream-closed", 502, Retry.ALWAYS)  # accepted, and closed before a byte was sent
    CLOSED = ("upstream-closed", 502, Retry.IDEMPOTENT)  # closed before a byte of an answer
    TRUNCATED = ("upstream-truncated", 502, Retry.NEVER)
    TIMEOUT = ("upstream-timeout", 504, Retry.NEVER)
    MALFORMED = ("bad-upstream-answer", 502, Retry.NEVER)

    def __init__(self, slug: str, status: int, retry: Retry) -> None:
        self.slug = slug
        self.status = status
        self.retry = retry
        self.outcome = slug.replace("-", "_")  # `outcome` of the record

    @property
    def retry_after_s(self) -> int:
        """When a client may try again, as in Retry-After; 0: nothing is known of it."""
        return 1 if self in {UpstreamReason.SATURATED, UpstreamReason.SHARE} else 0


class UpstreamError(SidecarError):
    """The upstream failed. `detail` is sent to the client and contains no address."""

    def __init__(self, reason: UpstreamReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@unique
class StoreReason(Enum):
    """Why a store did not answer, whether it may have applied the command, and whether another server owns the key.

    `is_moved`: the server does not own the key, or no longer.
    """

    AWAY = ("away", False, False)  # nothing was sent: no connection, an open breaker, too many commands in flight
    NO_REPLY = ("no reply", True, False)  # it was sent; the reply is late, or the connection was lost
    UNREADABLE = ("unreadable", True, False)  # its reply could not be parsed
    REFUSED = ("refused", False, False)  # its reply is an error
    FORBIDDEN = ("forbidden", False, False)  # the user may not run the command, or may not use the key
    NO_SCRIPT = ("no script", False, False)  # it has not seen the text of the script yet
    MOVED = ("moved", False, True)  # another node of the cluster owns the slot
    ASK = ("ask", False, False)  # another node of the cluster owns this key, for now
    UNSERVED = ("unserved", False, True)  # no node of the cluster owns the slot
    FAILED_OVER = ("failed over", False, True)  # the server became a replica

    def __init__(self, label: str, maybe_applied: bool, is_moved: bool) -> None:
        self.label = label
        self.maybe_applied = maybe_applied
        self.is_moved = is_moved


class StoreError(SidecarError):
    """Counters or keys did not answer. `maybe_applied`: the command was sent, so it may have taken effect."""

    def __init__(self, detail: str, reason: StoreReason = StoreReason.AWAY) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason
        self.maybe_applied = reason.maybe_applied


class SinkError(SidecarError):
    """The journal or a sink of records failed."""


class StateError(SinkError):
    """The saved state of a node without Redis cannot be used. Remedy: restore or remove its files, then start again."""


class RefusedError(SinkError):
    """A sink refuses these entries (ports.Entry) for good; nothing of the call was committed."""

    def __init__(self, entries: Sequence[Any], reason: str) -> None:
        super().__init__(reason)
        self.entries = entries
        self.reason = reason


class LostStretchError(SinkError):
    """A part of the journal before a committed position is missing; reading continues after it.

    `lost_bytes` were shipped before they were lost. Records after them that were not shipped yet are lost too.
    """

    def __init__(self, detail: str, lost_bytes: int) -> None:
        super().__init__(detail)
        self.lost_bytes = lost_bytes


def unreadable(error: OSError) -> str:
    """Why a file that a setting names cannot be read, and the remedy."""
    remedy = _REMEDIES.get(type(error), "")
    return f"cannot be read: {error.strerror or error}{remedy and f': {remedy}'}"


_REMEDIES: Final[dict[type[OSError], str]] = {
    FileNotFoundError: "create it, or correct the path",
    PermissionError: "let the user of the sidecar read it",
    IsADirectoryError: "name a file",
}


class Fault(NamedTuple):
    """One fault of a document: its place, and a description with the remedy."""

    file: str
    line: int
    where: str
    what: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.where}: {self.what}" if self.where else f"{place}: {self.what}"


class PolicyError(SidecarError):
    """A configuration or policy document is wrong. It has all faults, not only the first."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults
