"""How one caller's exchanges on one route are told: forms at hand for as long as the same head comes again.

Exchanges of one caller mostly differ in figures alone. When a second one comes that differs from the first in no more,
all else is filled in for good, and the next has only its figures written. The bytes are what the whole form yields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import sub
from typing import TYPE_CHECKING, Final

from sidecar.core.digits import decimal, eighteen, six
from sidecar.core.record.forms import allowed_form, dumps, json, open_form, reserved, second, usage_form, verdict

if TYPE_CHECKING:
    from sidecar.core.counter import Checks
    from sidecar.core.decision import Decision
    from sidecar.core.identity import Identity
    from sidecar.core.record.events import Facts

_PLACE: Final = re.compile(rb"%%|%\d*[bd]")


class Like:
    """What the last record said that was no figure. `filled`: all of it stands ready, with the figures between."""

    __slots__ = (
        "_amounts", "_attempts", "_billable", "_checks", "_figures", "_mode", "_path", "_quality", "_reason", "_source",
        "_status", "_told", "_usage", "filled",
    )  # fmt: skip

    def __init__(self, facts: Facts, decision: Decision | None, source: str) -> None:
        self._source = source
        self._path = facts.path
        self._status = facts.status
        self._usage = facts.usage
        self._quality = facts.quality
        self._billable = facts.billable
        self._reason = facts.billable_reason
        self._attempts = facts.attempts
        self._checks: Checks | None = decision.checks if decision is not None else None
        self._mode = decision.mode if decision is not None else ""
        self._amounts: tuple[int, ...] = ()
        self._figures: Callable[[Sequence[int]], tuple[int, ...]] | None = None
        self._told: list[bytes] = []  # every second one is a figure
        self.filled = False

    def holds(self, facts: Facts, decision: Decision | None, source: str) -> bool:
        """Whether this exchange's record says the same, but for figures."""
        if decision is None:
            if self._checks is not None:
                return False
        elif decision.checks is not self._checks or decision.mode != self._mode:
            return False
        return (
            facts.usage is self._usage  # shared where it is not measured each time
            and facts.status == self._status
            and facts.path == self._path
            and facts.attempts == self._attempts
            and facts.billable == self._billable
            and facts.billable_reason == self._reason
            and facts.quality == self._quality
            and source is self._source
        )

    def fill(self, facts: Facts, whole: bytes) -> None:
        """Make of the whole form what stands between the figures."""
        told = b""
        if self._checks is not None:
            told, self._amounts, self._figures = allowed_form(self._checks, self._mode)
        fixed = (
            json(facts.path),
            b"%d" % facts.status,
            dumps(facts.usage),
            verdict(facts.quality, facts.billable, facts.billable_reason, facts.outcome),
        )
        figures = b"%d", b"%d", b"%d", b"%d"
        places = (b"%b", b"%b", b"%06d", b"%018d", b"", *map(_literal, fixed), b"{}", *figures)
        form = _filled(whole, (*places, b"%d" % facts.attempts, b"false", told))
        self._told = [part for text in _between(form) for part in (text, b"")][:-1]
        self.filled = True

    def tell(self, facts: Facts, time_us: int, sequence: int) -> bytes:
        """The record, once it is filled."""
        told, decision = self._told, facts.decision
        told[1] = facts.id
        told[3] = second(time_us // 1_000_000)
        told[5] = six(time_us % 1_000_000)
        told[7] = eighteen(sequence)
        told[9] = decimal(facts.duration_us)
        told[11] = decimal(facts.upstream_us)
        told[13] = decimal(facts.bytes_in)
        told[15] = decimal(facts.bytes_out)
        if decision is not None:
            at, remaining, figures = 17, decision.remaining, self._figures
            for used in map(sub, self._amounts, remaining) if figures is None else figures(remaining):
                told[at] = decimal(used)
                at += 2
        return b"".join(told)


class Voice:
    """The forms of one head's caller."""

    __slots__ = ("_held", "_like", "_open", "_opening", "_path", "_source", "_usage", "_who")

    def __init__(self, identity: Identity | None, plan: str, route: str, method: str) -> None:
        self._who = identity, plan, route, method
        self._open = b""
        self._source = self._path = ""
        self._usage = self._opening = b""
        self._like: Like | None = None
        self._held: Checks | None = None

    def usage(self, source: str) -> bytes:
        """The whole form of a usage record. `source` changes with an epoch at most."""
        if source is not self._source:
            self._source = source
            self._usage = usage_form(source, *self._who)
        return self._usage

    def open(self) -> bytes:
        """The whole form of an OPEN entry."""
        if not self._open:
            self._open = open_form(*self._who)
        return self._open

    def like(self, facts: Facts, source: str) -> Like | None:
        """The last record, where this one is to be like it; None where all of it has to be written."""
        decision, like = facts.decision, self._like
        if (
            facts.outcome != "ok" or facts.traceparent or facts.dims or facts.client_disconnected
            or (decision is not None and (not decision.allowed or decision.shadowed))
        ):  # fmt: skip
            return None
        if like is None or not like.holds(facts, decision, source):
            self._like = Like(facts, decision, source)
            return None
        if not like.filled:
            like.fill(facts, self.usage(source))
        return like

    def opening(self, path: str, checks: Checks | None) -> bytes:
        """An OPEN entry with a place for its time, where the last one was like it; else b""."""
        if checks is not self._held or path != self._path or not self._path:
            self._held, self._path, self._opening = checks, path, b""
            return b""
        if not self._opening:
            held = b"{}" if checks is None else reserved(checks)
            self._opening = _filled(self.open(), (b"%d", b"", _literal(json(path)), _literal(held)))
        return self._opening


def _literal(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")


def _filled(form: bytes, values: Sequence[bytes]) -> bytes:
    """`form` with its places replaced, in order. A value may be a place itself; what is none has its % doubled."""
    left = iter(values)
    return _PLACE.sub(lambda place: place[0] if place[0] == b"%%" else next(left), form)


def _between(form: bytes) -> list[bytes]:
    """The text before, between and behind the places of `form`, as it will be written."""
    found, end = [b""], 0
    for place in _PLACE.finditer(form):
        found[-1] += form[end : place.start()]
        end = place.end()
        if place[0] == b"%%":
            found[-1] += b"%"
        else:
            found.append(b"")
    found[-1] += form[end:]
    return found
