"""The report of `sidecar check`: routes, plans, limits, and the bounds by which each limit may be exceeded.

It opens no port and changes nothing. An invalid configuration is an error (PolicyError), a doubtful one a warning.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from sidecar.checks import upstreams
from sidecar.checks.contacts import Contacts, contact
from sidecar.config.compile import Loaded
from sidecar.config.document import did_you_mean
from sidecar.config.settings import Settings
from sidecar.core.decision.lease import bound
from sidecar.core.identity import KeyRecord, Source
from sidecar.core.limits import KINDS
from sidecar.core.policy import Escape, Limit, Policy, Route, escapes
from sidecar.core.usage import Exclusion, Json, Lookup, MeterRule, When
from sidecar.core.window import describe_length
from sidecar.edge.clock import SystemClock
from sidecar.edge.degraded import over_admission_bound
from sidecar.listening import descriptors
from sidecar.loading import exposure
from sidecar.loading.certificates import expiries
from sidecar.loading.documents import keys_outside_customer_terms, keys_with_unknown_plan, load_all
from sidecar.wallets.balances import balances, prices

EXPIRES_SOON_S = 14 * 86_400


async def findings(settings: Settings, *, offline: bool = False) -> dict[str, Any]:
    """The whole report as plain data. `errors`: why `run` would not work with Redis, Kafka or the sink.

    `offline`: none of them is contacted. PolicyError: policies, keys or certificates are invalid.
    """
    loaded, keys, pem = load_all(settings)
    policy = loaded.policy
    warnings = _plan_warnings(loaded, keys, settings)
    warnings += [
        f"key {key.id}: its plan is {key.plan}, but the terms of {key.customer} extend {plan}: they do not apply"
        for key, plan in keys_outside_customer_terms(loaded, keys)
    ]
    expires = expiries(settings, pem)
    warnings += _expiry_warnings(expires)
    warnings += descriptors.warnings(settings)
    warnings += [*upstreams.warnings(settings), *_unread_warnings(loaded, settings)]
    folder_errors, folder_warnings = _journal_folder(settings)
    warnings += [*_spelling_warnings(loaded), *folder_warnings, *exposure.warnings(settings)]
    wallets = balances(loaded, settings)
    stored = _stored_in_redis(settings, has_wallets=bool(wallets))
    warnings += [] if offline else await upstreams.unreachable(settings)
    contacts = Contacts({}, [], []) if offline else await contact(settings, loaded.source.scales(), stored=stored)
    return {
        "version": policy.version,
        "counters": "redis" if settings.redis is not None else "memory",
        "records": str(settings.record_file or settings.destination),
        "workers": settings.workers,
        "max_connections": descriptors.max_connections(settings),
        "usage_path": settings.usage_path,
        "usage_hidden": [plan.id for plan in policy.plans.values() if plan.show_usage == "off"],
        "nodes": settings.redis.nodes if settings.redis is not None else 1,
        "leases": settings.redis is not None and settings.redis.leases,
        "listeners": _listeners(settings),
        "upstreams": upstreams.report(settings),
        "routes": [_route(route, policy) for route in policy.routes],
        "plans": {name: plan.label for name, plan in policy.plans.items()},
        "limits": _limits(loaded, settings),
        "prices": prices(loaded),
        "balances": wallets,
        "exclude": [_exclusion(exclusion) for exclusion in loaded.exclusions],
        "certificates": {name: _date(expires_s) for name, expires_s in expires.items()},
        "keys": len(keys) if settings.keys.file is not None else None,
        "contacted": contacts.results,
        "errors": folder_errors + contacts.errors,
        "warnings": warnings + contacts.warnings,
    }


def _listeners(settings: Settings) -> list[dict[str, Any]]:
    control = settings.control.listen
    return [
        {"setting": setting, "address": str(each), "scope": each.scope, "url": each.url(scheme)}
        for setting, scheme, addresses in (
            ("listen", settings.scheme, settings.listen),
            ("control.listen", "http", control),
        )
        for each in addresses
    ]


def _route(route: Route, policy: Policy) -> dict[str, Any]:
    refuses = any(terms.refuses_unread for plan in policy.plans if (terms := policy.terms(plan, route)) is not None)
    return {
        "id": route.id,
        "methods": sorted(route.methods) or ["any"],
        "path": route.pattern,
        "host": route.host,
        "headers": [_header(name, values) for name, values in route.headers],
        "upstream": route.upstream,
        "credentials": [_place(source) for source in route.sources],
        "unattributed": route.unattributed,
        "reads": [f"{side} body" for side in sorted(route.reads)],
        "unread": "" if "request" not in route.reads else "deny" if refuses else "allow",
        "paths": route.paths,
        "cors": sorted(route.cors.origins) if route.cors is not None else [],
        "usage": route.usage,
        "models": dict(route.models),
    }


def _header(name: bytes, values: frozenset[bytes]) -> str:
    return f"{name.decode()}: {' or '.join(sorted(value.decode() for value in values)) or 'any'}"


def _place(source: Source) -> str:
    """Where a key is looked for: `bearer`, `basic`, the name of a header, or `?` and that of a parameter."""
    name = source.name.decode()
    return {"header": name, "query": f"?{name}"}.get(source.kind, source.kind)


def _exclusion(exclusion: Exclusion) -> dict[str, Any]:
    retries, customers = exclusion.retries_us, sorted(exclusion.customers)
    parts = [
        f"retries within {describe_length(retries, one='1 ')}" if retries else "",
        f"customers {', '.join(customers)}" if customers else "",
        "test keys" if exclusion.test_keys else "",
        "as its `when` says" if exclusion.when != When() else "",
    ]
    return {"id": exclusion.id, "says": "; ".join(filter(None, parts))}


def _limits(loaded: Loaded, settings: Settings) -> list[dict[str, Any]]:
    """Every limit of every plan, and the limits of a customer's own terms that differ. Balances have their own list."""
    return [
        _limit(limit, plan, customer) | bounds(limit, settings)
        for (customer, plan), offer in loaded.offers.items()
        for _, limit in offer.compiled_limits
        if KINDS[limit.kind].describe(limit) and not (customer and limit in loaded.policy.plans[plan].limits)
    ]


def _limit(limit: Limit, plan: str, customer: str) -> dict[str, Any]:
    return {
        "plan": plan,
        "customer": customer,
        "id": limit.id,
        "kind": limit.kind,
        "says": KINDS[limit.kind].describe(limit),
        "meter": limit.meter,
        "scope": limit.scope,
        "routes": sorted(limit.routes) or ["all"],
        "over": limit.over,
        "stage": limit.stage,
        "alert": list(limit.alerts),
        "link": limit.link,
        "on_store_failure": limit.on_store_failure,
        "on_store_loss": limit.on_store_loss,
        "exact": limit.exact,
    }


def bounds(limit: Limit, settings: Settings) -> dict[str, int]:
    """By how many units a limit may be exceeded or undershot, per window.

    Exceeded: 0 units while the store answers. During an outage, the local share of each worker on all `redis.nodes`;
    restarts do not add to it. Each Redis that comes back empty allows one more whole amount, unless the limit denies on
    store loss. In memory there are no outages, and a restart loses no counters.
    Undershot: units that a killed worker had leased are lost for that window. Units that it had reserved but not
    settled stay used, and a slot becomes free when its reservation expires.
    """
    if settings.redis is None:
        return {"over_by_at_most": 0, "over_after_restart": 0, "over_by_a_store_loss": 0, "lost_by_a_kill": 0}
    refuses = limit.stage == "enforce" and limit.over == "deny"
    return {
        "over_by_at_most": over_admission_bound(limit, settings.total_workers),
        "over_after_restart": 0,
        "over_by_a_store_loss": limit.amount if refuses and limit.on_store_loss == "allow" else 0,
        "lost_by_a_kill": bound(limit, settings.total_workers) if settings.redis.leases else 0,
    }


def _unread_warnings(loaded: Loaded, settings: Settings) -> list[str]:
    """Routes that accept bodies too large to be read: a client can choose to have meters count their default."""
    warnings = []
    for route in loaded.policy.routes:
        terms = loaded.policy.terms("", route)
        readers = [meter for meter in (terms.meters if terms else ()) if _reads_body(loaded.rules[meter.id])]
        meters = [meter.id for meter in readers if meter.unread is None or route.unread == "allow"]
        bound = route.max_body_bytes or settings.http.body_max_bytes
        if meters and not 0 < bound <= route.body_bytes:
            warnings.append(
                f"route {route.id}: {', '.join(meters)} count their default for bodies over {route.body_bytes} bytes: "
                f"set `max_body: {route.body_bytes}B` to refuse such bodies"
            )
    return warnings


def _reads_body(rule: MeterRule) -> bool:
    """Whether a meter depends on the content of the request's body."""
    when, value = rule.when, rule.value
    by_name = isinstance(value, Lookup) and value.dim in {"model", "json_rpc_method"}
    in_body = isinstance(value, Json) and value.side == "request"
    return bool(by_name or in_body or when.models or when.json_rpc or any(test.side == "request" for test in when.json))


def _spelling_warnings(loaded: Loaded) -> list[str]:
    """Spellings of a route's path that a broader route takes, without what the route demands."""
    return [str(loaded.places[each.route.id].fault(_escape(each), "match", "path")) for each in escapes(loaded.policy)]


def _escape(escape: Escape) -> str:
    route, other = escape.route, escape.other
    paths = ", ".join(f"{path} ({spelling})" for spelling, path in escape.paths)
    slash = f"write {route.pattern.rstrip('/')}/** for the slash at the end; " if "slash" in paths else ""
    return (
        f"servers that take these spellings for the same path serve them by route {other.id}, without "
        f"{', '.join(escape.missing)}: {paths}: {slash}demand the same on route {other.id}, or narrow its methods or "
        f"its path {other.pattern} to those of the API"
    )


def _expiry_warnings(expires: dict[str, int]) -> list[str]:
    now_s = SystemClock().now_us() // 1_000_000
    return [
        f"{name}: {'has expired' if expires_s < now_s else 'expires'} on {_date(expires_s)}: renew it"
        for name, expires_s in expires.items()
        if expires_s < now_s + EXPIRES_SOON_S
    ]


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _plan_warnings(loaded: Loaded, keys: list[KeyRecord], settings: Settings) -> list[str]:
    """Keys of plans that no policy defines. The nearest name is looked for once for each plan."""
    unknown = keys_with_unknown_plan(loaded.policy, keys)
    hints = {plan: did_you_mean(plan, loaded.policy.plans) for plan in dict.fromkeys(key.plan for key in unknown)}
    return [
        f"{settings.keys.file}: key {key.id}: plan {key.plan!r} is not defined, its requests are refused (403); "
        f"{hints[key.plan]}"
        for key in unknown
    ]


def _journal_folder(settings: Settings) -> tuple[list[str], list[str]]:
    """The errors and the warnings of `journal.dir`. Another user may run the node, so its rights are a warning."""
    folder = settings.journal.dir
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        return [str(settings.fault(("journal", "dir"), f"{folder} is a file, not a folder: name another path"))], []
    if os.access(folder, os.W_OK):
        return [], []
    what = f"{folder} cannot be written by this user: give the folder to the user of the node"
    return [], [str(settings.fault(("journal", "dir"), what))]


def _stored_in_redis(settings: Settings, *, has_wallets: bool) -> str:
    """The data that only Redis has, beside counters."""
    return " and ".join(["wallets"] * has_wallets + ["API keys"] * settings.keys.redis)
