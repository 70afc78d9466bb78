"""What a configuration binds us to: routes, plans, limits, and by how much a limit may be missed, in numbers.

It opens no port and changes nothing. What is wrong is an error (PolicyError); what is only doubtful is a warning.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from sidecar.app import kafka
from sidecar.app.loading import load_all, planless
from sidecar.config import policies
from sidecar.config.models import Model
from sidecar.config.settings import Settings
from sidecar.core.errors import SinkError
from sidecar.core.policy import Limit, Policy, Route
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
    policy, keys = load_all(settings)
    warnings = [f"key {key.id}: plan {key.plan!r} is not defined: refused" for key in planless(policy, keys)]
    warnings += _folder_warnings(settings)
    return {
        "version": policy.version,
        "counters": "redis" if settings.redis is not None else "memory",
        "records": "kafka" if settings.kafka is not None else str(settings.sink.file or "stdout"),
        "workers": settings.workers,
        "routes": [_route(route) for route in policy.routes],
        "plans": {name: plan.label for name, plan in policy.plans.items()},
        "limits": _limits(policy, settings),
        "keys": len(keys) if settings.keys.file is not None else None,
        "not_in_this_version": later(),
        "warnings": warnings + await _topic_warnings(settings),
    }


def _route(route: Route) -> dict[str, Any]:
    return {
        "id": route.id,
        "methods": sorted(route.methods) or ["any"],
        "path": route.pattern,
        "upstream": route.upstream,
        "unattributed": route.unattributed,
    }


def _limits(policy: Policy, settings: Settings) -> list[dict[str, Any]]:
    return [
        {
            "plan": name,
            "id": limit.id,
            "kind": limit.kind,
            "says": _AMOUNTS[limit.kind](limit),
            "meter": limit.meter,
            "scope": limit.scope,
            "routes": sorted(limit.routes) or ["all"],
            "over": limit.over,
            "stage": limit.stage,
            "on_store_failure": limit.on_store_failure,
        }
        | bounds(limit, settings)
        for name, plan in policy.plans.items()
        for limit in plan.limits
    ]


def bounds(limit: Limit, settings: Settings) -> dict[str, int]:
    """By how many units a limit may be missed, per window.

    Over: while the store answers, none; while it does not, each worker's local share. In memory nothing can be away,
    but a restart forgets: one whole amount more. Under: what a killed worker had reserved and never settled comes back
    when the reservation expires.
    """
    forgets = limit.stage == "enforce" and limit.over == "deny" and limit.kind != "concurrency"
    if settings.redis is None:
        return {"over_by_at_most": 0, "over_after_restart": limit.amount if forgets else 0}
    return {"over_by_at_most": over_admission_bound(limit, settings.workers), "over_after_restart": 0}


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


def later() -> dict[str, list[str]]:
    """What comes with a later version, and the words of policy documents that are refused by name until then."""
    found: dict[str, list[str]] = {}
    for model in vars(policies).values():
        if isinstance(model, type) and issubclass(model, Model):
            known: dict[str, str] = getattr(model, "elsewhere", {})
            for word, why in known.items():
                found.setdefault(why, []).append(f"{model.__name__.removesuffix('Doc').lower()}.{word}")
    return found


def _span(us: int) -> str:
    for unit, size in _SPANS:
        if us % size == 0:
            return unit if us == size else f"{us // size} {unit}"
    return f"{us} us"
