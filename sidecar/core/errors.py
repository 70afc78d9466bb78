"""Whose fault it is, what to answer, and whether to try again.

    SidecarError
    ├── ClientError      the request was wrong            → 4xx
    ├── UpstreamError    the API behind us failed         → 502, 503, 504
    ├── StoreError       counters or keys did not answer  → each limit's `on_store_failure` decides
    ├── SinkError        journal, Kafka or file           → `on_full` decides
    └── PolicyError      configuration or policy          → exit code 2; at run time the old one stays

401, 402, 403 and 429 are decisions, not errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class SidecarError(Exception):
    """The root: everything that we raise on purpose."""


class ClientError(SidecarError):
    """The request was wrong. `status` is the HTTP status, `slug` the last part of the problem type."""

    def __init__(self, status: int, slug: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail


class UpstreamError(SidecarError):
    """The upstream failed. `retryable` means that not one byte of the request can have been acted on."""

    def __init__(self, status: int, slug: str, detail: str, *, retryable: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.retryable = retryable


class StoreError(SidecarError):
    """Counters or keys did not answer. `maybe_applied`: the command was sent, so it may have taken effect."""

    def __init__(self, detail: str, *, maybe_applied: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.maybe_applied = maybe_applied


class SinkError(SidecarError):
    """The journal or a sink of records failed."""


class RefusedError(SinkError):
    """A sink will never take these entries (ports.Entry); nothing of the call that held them was committed."""

    def __init__(self, entries: Sequence[Any], reason: str) -> None:
        super().__init__(reason)
        self.entries = entries
        self.reason = reason


class Fault(NamedTuple):
    """One thing wrong with a document: where, what, and what would be right."""

    file: str
    line: int
    where: str
    what: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.where}: {self.what}" if self.where else f"{place}: {self.what}"


class PolicyError(SidecarError):
    """A configuration or policy document is wrong. Carries every fault found, not only the first."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults
