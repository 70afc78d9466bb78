"""What a configuration binds us to: routes, plans, limits, and by how much a limit may be missed, in numbers.

It opens no port and changes nothing. What is wrong is an error (PolicyError); what is only doubtful is a warning.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from sidecar.app import kafka
from sidecar.app.balances import balances, prices
from sidecar.app.loading import load_all, mistermed, planless
from sidecar.config.compile import Loaded
from sidecar.config.plans import compiled
from sidecar.config.settings import Settings
from sidecar.core.decision.lease import bound
from sidecar.core.errors import SinkError
from sidecar.core.policy import Limit, Route
from sidecar.core.usage import Exclusion, Json, Lookup, MeterRule, When
from sidecar.edge.degraded import over_admission_bound
from sidecar.edge.kafka_topics import topic_faults

KAFKA_SECONDS = 10
BROKERS_EXPECTED = 3
_AMOUNTS: dict[str, Callable[[Limit], str]] = {
    "rate": lambda limit: f"{limit.per} per {_span(limit.period_us)}, {limit.amount} at once",
    "window": lambda limit: f"{limit.amount} per {_span(limit.period_us)}" + (" (fixed)" if limit.fixed else ""),
    "quota": lambda limit: f"{limit.amount} per {limit.calendar}" + (" of subscription" if limit.anchored else ""),
    "concurrency": lambda limit: f"{limit.amount} at once",
}
_SPANS = (("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000))


async def findings(settings: Settings) -> dict[str, Any]:
    """Everything that `sidecar check` tells, as plain data. PolicyError: policies or keys are wrong."""
    loaded, keys = load_all(settings)
    policy = loaded.policy
    warnings = [f"key {key.id}: plan {key.plan!r} is not defined: refused" for key in planless(policy, keys)]
    warnings += [
        f"key {key.id}: is on {key.plan}, and the terms of {key.customer} are on top of {plan}: they do not apply"
        for key, plan in mistermed(loaded, keys)
    ]
    warnings += [*_unread_warnings(loaded, settings), *_folder_warnings(settings)]
    return {
        "version": policy.version,
        "counters": "redis" if settings.redis is not None else "memory",
        "records": "kafka" if settings.kafka is not None else str(settings.sink.file or "stdout"),
        "workers": settings.workers,
        "nodes": settings.redis.nodes if settings.redis is not None else 1,
        "leases": settings.redis is not None and settings.redis.leases,
        "routes": [_route(route) for route in policy.routes],
        "plans": {name: plan.label for name, plan in policy.plans.items()},
        "limits": _limits(loaded, settings),
        "prices": prices(loaded),
        "balances": balances(loaded, settings),
        "exclude": [_exclusion(exclusion) for exclusion in loaded.exclusions],
        "keys": len(keys) if settings.keys.file is not None else None,
        "warnings": warnings + await _topic_warnings(settings),
    }


def _route(route: Route) -> dict[str, Any]:
    return {
        "id": route.id,
        "methods": sorted(route.methods) or ["any"],
        "path": route.pattern,
        "upstream": route.upstream,
        "unattributed": route.unattributed,
        "reads": [f"{side} body" for side in sorted(route.reads)],
        "usage": route.usage,
        "models": dict(route.models),
    }


def _exclusion(exclusion: Exclusion) -> dict[str, Any]:
    retries, customers = exclusion.retries_us, sorted(exclusion.customers)
    said = [
        f"retries within {_span(retries, one='1 ')}" if retries else "",
        f"customers {', '.join(customers)}" if customers else "",
        "test keys" if exclusion.test_keys else "",
        "as its `when` says" if exclusion.when != When() else "",
    ]
    return {"id": exclusion.id, "says": "; ".join(filter(None, said))}


def _limits(loaded: Loaded, settings: Settings) -> list[dict[str, Any]]:
    """Every limit of every plan, and of a customer's own terms those unlike the plan's. Balances are told apart."""
    return [
        _limit(limit, plan, customer) | bounds(limit, settings)
        for (customer, plan), offer in loaded.offers.items()
        for _, limit in compiled(offer)
        if limit.kind in _AMOUNTS and not (customer and limit in loaded.policy.plans[plan].limits)
    ]


def _limit(limit: Limit, plan: str, customer: str) -> dict[str, Any]:
    return {
        "plan": plan,
        "customer": customer,
        "id": limit.id,
        "kind": limit.kind,
        "says": _AMOUNTS[limit.kind](limit),
        "meter": limit.meter,
        "scope": limit.scope,
        "routes": sorted(limit.routes) or ["all"],
        "over": limit.over,
        "stage": limit.stage,
        "alert": list(limit.alerts),
        "link": limit.link,
        "on_store_failure": limit.on_store_failure,
        "exact": limit.exact,
    }


def bounds(limit: Limit, settings: Settings) -> dict[str, int]:
    """By how many units a limit may be missed, per window.

    Over: while the store answers, none; while it does not, the local share of each worker on all `redis.nodes`. In
    memory nothing can be away, but a restart forgets: one whole amount more. Under: what a killed worker had leased is
    lost to that window; what it had reserved and never settled stays used, and a slot comes back when its reservation
    expires.
    """
    forgets = limit.stage == "enforce" and limit.over == "deny" and limit.kind != "concurrency"
    if settings.redis is None:
        return {"over_by_at_most": 0, "over_after_restart": limit.amount if forgets else 0, "lost_by_a_kill": 0}
    return {
        "over_by_at_most": over_admission_bound(limit, settings.sharers),
        "over_after_restart": 0,
        "lost_by_a_kill": bound(limit, settings.sharers) if settings.redis.leases else 0,
    }


def _unread_warnings(loaded: Loaded, settings: Settings) -> list[str]:
    """Routes on which a client can send a body too large to be read, and so choose what meters of its content count."""
    found = []
    for route in loaded.policy.routes:
        terms = loaded.policy.terms("", route)
        meters = [meter.id for meter in (terms.meters if terms else ()) if _looks_inside(loaded.rules[meter.id])]
        bound = route.max_body_bytes or settings.http.body_max_bytes
        if meters and not 0 < bound <= route.body_bytes:
            found.append(
                f"route {route.id}: of a body over {route.body_bytes} bytes {', '.join(meters)} count their default: "
                f"`max_body: {route.body_bytes}B` refuses it"
            )
    return found


def _looks_inside(rule: MeterRule) -> bool:
    """Whether a meter depends on what stands in the request's body."""
    when, value = rule.when, rule.value
    by_name = isinstance(value, Lookup) and value.dim in {"model", "json_rpc_method"}
    in_body = isinstance(value, Json) and value.side == "request"
    return bool(by_name or in_body or when.models or when.json_rpc or any(test.side == "request" for test in when.json))


def _folder_warnings(settings: Settings) -> list[str]:
    folder = settings.journal.dir
    while not folder.exists():
        folder = folder.parent
    return [] if os.access(folder, os.W_OK) else [f"journal.dir: {folder} cannot be written by this user"]


async def _topic_warnings(settings: Settings) -> list[str]:
    if settings.kafka is None:
        return []
    wanted = kafka.plans(settings.kafka, 1, BROKERS_EXPECTED)
    try:
        async with asyncio.timeout(KAFKA_SECONDS):
            return [str(fault) for fault in await topic_faults(kafka.connection(settings.kafka), wanted)]
    except (SinkError, TimeoutError) as error:
        return [f"kafka: its topics could not be looked at: {str(error) or 'no answer'}"]


def _span(us: int, *, one: str = "") -> str:
    for unit, size in _SPANS:
        if us % size == 0:
            return one + unit if us == size else f"{us // size} {unit}"
    return f"{us} us"
