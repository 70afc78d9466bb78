"""The steps of an exchange until the upstream sees it: identify → check entitlement → reserve → decide → open → send.

Each is a function of the exchange (exchange.py), which either starts the next one or answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError
from sidecar.core.headers import denial_problem
from sidecar.core.http.problem import (
    BAD_KEY,
    JOURNAL_FULL,
    KEYS_AWAY,
    NO_PLAN,
    NOT_RECORDED,
    Problem,
    no_feature,
    too_many_failures,
)
from sidecar.core.http.response import ResponseHead
from sidecar.core.identity import Identity
from sidecar.core.policy import Terms
from sidecar.core.record import Denied, open_entry, templates_for
from sidecar.gateway import accounting, usage
from sidecar.gateway.routing import RoutedRequest
from sidecar.gateway.states import ARRIVED, OPENED

if TYPE_CHECKING:
    from sidecar.gateway.exchange import RequestExchange

CONTINUE: Final = ResponseHead(100, b"Continue", 1, [])


def identify(exchange: RequestExchange, routed: RoutedRequest) -> None:
    """Find the identity of the credential, where the request goes any further and has one."""
    if routed.refusal is not None:
        return refuse_key(exchange) if routed.refusal is BAD_KEY else exchange.answer(routed.refusal)
    if not routed.digest:
        return check_entitlement(exchange, routed.policy.terms("", routed.route))
    keys = exchange.context.keys
    known = keys.known(routed.digest)
    if known is not None:
        return take_identity(exchange, known)
    wait_s = exchange.context.failures.wait_s(exchange.request, exchange.client.peer)
    if wait_s and not keys.was_known(routed.digest):
        return exchange.answer(too_many_failures(wait_s))
    return keys.find(routed.digest, exchange.on_identity)


def take_identity(exchange: RequestExchange, identity: Identity | StoreError | None) -> None:
    """Find the terms of the identity; those of the last exchange with this head are kept with it."""
    if identity is None:  # also of a client that does not wait for the answer
        exchange.context.failures.add(exchange.request, exchange.client.peer)
    if exchange.ended:
        return None
    if identity is None or isinstance(identity, StoreError):
        return exchange.answer(BAD_KEY if identity is None else KEYS_AWAY)
    exchange.identity = identity
    routed = exchange.routed
    if routed.shows_usage:
        return usage.show(exchange, identity)
    if routed.identity is not identity:
        routed.identity = identity
        routed.terms = routed.policy.terms(identity.plan, routed.route, identity.customer)
        routed.checks = routed.templates = None
    return check_entitlement(exchange, routed.terms)


def refuse_key(exchange: RequestExchange) -> None:
    """Refuse a mistyped key, which needs no look-up: also with 429 where its client has failed too often."""
    failures, peer = exchange.context.failures, exchange.client.peer
    wait_s = failures.wait_s(exchange.request, peer)
    if wait_s:
        return exchange.answer(too_many_failures(wait_s))
    failures.add(exchange.request, peer)
    return exchange.answer(BAD_KEY)


def check_entitlement(exchange: RequestExchange, terms: Terms | None) -> None:
    """Go on where the plan includes the route; an inspected exchange reads the request's body first."""
    if terms is None:
        return exchange.answer(NO_PLAN)
    if not terms.entitled:
        return exchange.answer(feature_missing(exchange, exchange.routed.route.feature))
    exchange.terms = terms
    if exchange.inspection is not None:
        return exchange.inspection.gather(exchange)
    return reserve(exchange)


def feature_missing(exchange: RequestExchange, feature: str) -> Problem:
    """The answer to a caller whose plan lacks `feature`."""
    return no_feature(exchange.routed.policy.offering(feature))


def reserve(exchange: RequestExchange) -> None:
    """Ask the counters for all limits at once."""
    routed, terms, context = exchange.routed, exchange.terms, exchange.context
    exchange.plan = terms.plan
    templates = routed.templates
    if templates is None:
        names = tuple(terms.unused)
        templates = routed.templates = templates_for(
            exchange.identity, terms.plan, exchange.route, exchange.method, names
        )
    exchange.templates = templates
    if exchange.identity is None or not terms.limits:
        return _open(exchange)
    checks = context.policies.checks(routed, exchange.request, exchange.arrived_us, exchange.tap)
    exchange.checks = checks
    decision = context.counters.try_local(exchange.id, checks)
    if decision is not None:
        return take_decision(exchange, decision)
    return context.counters.reserve(exchange.id, checks, exchange.on_decision)


def take_decision(exchange: RequestExchange, decision: Decision | StoreError) -> None:
    """Open the exchange, or deny it. A denied request consumes nothing."""
    if isinstance(decision, StoreError):  # only where this store has no degraded one in front
        return None if exchange.ended else exchange.answer(KEYS_AWAY)
    exchange.decision = decision
    checks = exchange.checks = decision.checks
    if decision.shadowed:
        exchange.context.log.count_shadowed(decision)
    if checks.alerting:
        exchange.context.alerts.evaluate(decision, exchange.on_alert)
    if decision.allowed:
        return _open(exchange)
    return None if exchange.ended else _deny(exchange, decision)


def _deny(exchange: RequestExchange, decision: Decision) -> None:
    context = exchange.context
    problem = denial_problem(decision)
    usage.complete(exchange, decision, problem.extra)
    exchange.status = problem.status
    limit = decision.checks.entries[decision.violated].limit.id
    context.probe.denied(limit, shadow=False)
    exchange.duration_us = context.clock.mono_us() - exchange.started_us
    denied = Denied(exchange.customer, exchange.plan, limit, problem.slug, problem.status)
    context.journal.deny(exchange.id, denied, exchange.write_denial)
    exchange.answer(problem)


def _open(exchange: RequestExchange) -> None:
    """Give the OPEN entry to the journal: nothing goes up before it is there."""
    if exchange.gone or exchange.ended:
        return exchange.withdraw()
    journal = exchange.context.journal
    if not journal.accepting():
        accounting.settle(exchange, None)
        return exchange.answer(JOURNAL_FULL)
    exchange.state = OPENED
    return journal.open(exchange.id, open_entry(exchange, exchange.arrived_us), exchange.on_opened)


def send_upstream(exchange: RequestExchange, written: bool) -> None:
    """The OPEN entry is in the journal, or (False) cannot be: then the upstream never sees the request."""
    if exchange.ended:
        return None
    if not written:
        exchange.state = ARRIVED
        accounting.settle(exchange, None)
        return exchange.answer(NOT_RECORDED)
    if exchange.request.expect and (exchange.inspection is None or not exchange.inspection.continued):
        exchange.client.interim(CONTINUE)
    context = exchange.context
    upstream = exchange.upstream = context.policies.upstream(exchange.routed.route)
    exchange.sent_us = context.clock.mono_us()
    return upstream.send(context.heads.upstream_head(exchange), exchange)
