"""The usage path: a client sees what is left of its own limits and balances, with its own key.

It is answered by the worker, from the counters that enforce. Nothing is reserved, metered or recorded, so that a client
that is over its limits can ask as well; a key is answered once a second by each worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

from sidecar.core.decision import Decision
from sidecar.core.decision.live import limits_of, live, usage_document
from sidecar.core.decision.peek import Peeked
from sidecar.core.errors import StoreError
from sidecar.core.http.problem import NO_PLAN, NO_ROUTE, Problem
from sidecar.core.http.response import ResponseHead
from sidecar.core.identity import Identity
from sidecar.core.limits import Limit, checks_for
from sidecar.core.policy import Plan
from sidecar.gateway.guard import end_faulty
from sidecar.gateway.states import DISMISSED

if TYPE_CHECKING:
    from sidecar.gateway.exchange import RequestExchange

EVERY_US: Final = 1_000_000
KEYS_MAX: Final = 10_000  # that were answered within a second
TOO_OFTEN: Final = Problem(
    429,
    "usage-asked-too-often",
    "usage is shown once a second for each key",
    headers=((b"Retry-After", b"1"),),
)
NOT_KNOWN: Final = Problem(
    503,
    "usage-unavailable",
    "usage cannot be read now: the counter store does not answer; try again",
    headers=((b"Retry-After", b"1"),),
)


class UsageRate:
    """Lets each key ask once in EVERY_US; where too many keys ask, all of them wait."""

    def __init__(self) -> None:
        self._next_us: dict[str, int] = {}

    def allows(self, key_id: str, mono_us: int) -> bool:
        """Whether the key may ask now; if so, it has."""
        if mono_us < self._next_us.get(key_id, 0):
            return False
        if len(self._next_us) >= KEYS_MAX:
            self._next_us = {each: next_us for each, next_us in self._next_us.items() if next_us > mono_us}
            if len(self._next_us) >= KEYS_MAX:
                return False
        self._next_us[key_id] = mono_us + EVERY_US
        return True


def complete(exchange: RequestExchange, decision: Decision, members: dict[str, Any]) -> None:
    """Complete the members of a denial: the usage path, and no figures of the customer that the plan does not show."""
    identity = exchange.identity
    plan = exchange.routed.policy.plan_of(identity.plan, identity.customer) if identity is not None else None
    if plan is None:
        return
    path = exchange.context.options.usage_path
    if path and plan.show_usage != "off":
        members["usage"] = path
    if plan.show_usage != "all" and decision.checks.entries[decision.violated].limit.scope == "customer":
        members.pop("limit", None)


def show(exchange: RequestExchange, identity: Identity) -> None:
    """Answer with the limits of the caller's plan, or say why not."""
    context, policy = exchange.context, exchange.routed.policy
    plan = policy.plan_of(identity.plan, identity.customer)
    if plan is None or plan.show_usage == "off":
        return exchange.answer(NO_PLAN if plan is None else NO_ROUTE)
    if not context.usage_rate.allows(identity.key_id, context.clock.mono_us()):
        return exchange.answer(TOO_OFTEN)
    return _Question(exchange, identity, plan).ask(limits_of(policy, identity))


class _Question:
    """The figures of one answer, as they come."""

    def __init__(self, exchange: RequestExchange, identity: Identity, plan: Plan) -> None:
        self._exchange = exchange
        self._identity = identity
        self._plan = plan
        self._peeked: list[Peeked] = []
        self._missing = 0

    def ask(self, questions: Sequence[Sequence[Limit]]) -> None:
        exchange = self._exchange
        self._missing = len(questions)
        for limits in questions:
            checks = checks_for(limits, (0,) * len(limits), self._identity, exchange.arrived_us)
            exchange.context.peeks.peek(checks, self._on_peeked)
        if not questions:
            self._answer()

    def _on_peeked(self, peeked: Peeked | StoreError) -> None:
        exchange = self._exchange
        try:
            self._missing -= 1
            if exchange.ended:
                return
            if exchange.gone:
                exchange.dismiss()
            elif isinstance(peeked, StoreError):
                exchange.answer(NOT_KNOWN)
            else:
                self._peeked.append(peeked)
                if not self._missing:
                    self._answer()
        except Exception as error:  # noqa: BLE001 - as in exchange.py
            end_faulty(exchange, error)

    def _answer(self) -> None:
        exchange = self._exchange
        figures = live(self._peeked).for_client(only_own=self._plan.show_usage == "own")
        document = usage_document(self._identity, self._plan.label, figures, exchange.context.clock.now_us())
        body = orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
        exchange.context.probe.count("usage_answers")
        exchange.state = DISMISSED
        exchange.status = 200
        exchange.client.respond(_head(len(body)), exchange.id, ())
        exchange.client.end(body, [])
        exchange.finish()


def _head(length: int) -> ResponseHead:
    fields = [
        (b"Content-Type", b"application/json"),
        (b"Cache-Control", b"no-store"),
        (b"Content-Length", b"%d" % length),
    ]
    head = ResponseHead(200, b"OK", 1, fields)
    head.names = [name.lower() for name, _ in fields]
    head.fields = {name.lower(): value for name, value in fields}
    head.length = length
    return head
