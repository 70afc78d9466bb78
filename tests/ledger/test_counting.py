"""The units of open counters by SQL, held to a plain sum over the records."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from sidecar.config.compile import load as load_policy
from sidecar.core.identity import KeyRecord
from sidecar.core.limits import KINDS
from sidecar.core.limits.base import COUNT
from sidecar.core.window import calendar_window
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.edge.ledger.views import create_views
from sidecar.ledger.counting import Identities, Scope, count
from tests.edge.ledger.events import change, usage
from tests.edge.ledger.ledgers import load
from tests.ledger.policies import HEALTH_EXCLUDED

POLICY = (
    HEALTH_EXCLUDED
    + """\
meters:
  tokens: { value: response.bytes }
plans:
  free:
    limits:
      - { id: monthly, meter: requests, quota: 1000/month, scope: customer }
      - { id: hourly, meter: requests, quota: 1000/hour, scope: key }
  pro:
    currency: usd
    prices: { tokens: { per_unit: "0.01" } }
    limits:
      - { id: monthly, meter: requests, quota: 100000/month, scope: customer, zone: customer, anchor: subscription }
      - { id: weekly, meter: tokens, quota: 100000/week, scope: subject, zone: Asia/Kathmandu }
      - { id: daily, meter: tokens, quota: 100000/day, scope: key, zone: customer, routes: [api] }
      - { id: fixed, meter: requests, window: 100000/24h, scope: subject, fixed: true }
      - { id: sliding, meter: tokens, window: 100000/12h, scope: key }
      - { id: rate, meter: requests, rate: 10/s, burst: 10, scope: key }
      - { id: at_once, concurrency: 5, scope: key }
      - { id: credit, balance: usd }
"""
)

NOW = datetime(2026, 12, 1, 0, 20, 30, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
ZONES = ("UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia")


@pytest.fixture
def policy(tmp_path):
    (tmp_path / "p.yaml").write_text(POLICY)
    return load_policy(tmp_path / "p.yaml", {"default"}).policy


def keys_of(rng):
    """Eight keys of four customers; a customer has one zone and one anchor."""
    homes = [(rng.choice(ZONES), rng.choice(["", "2026-01-31", "2025-06-01", "2026-02-15"])) for _ in range(4)]
    return [
        KeyRecord(f"k{number}", f"sha256:{number:064x}", f"c{number % 4}", f"s{number % 3}",
                  rng.choice(["free", "pro"]), "revoked" if number == 7 else "active",
                  zone=homes[number % 4][0], anchor=homes[number % 4][1])
        for number in range(8)
    ]  # fmt: skip


def stamp(moment):
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"


def record_of(rng, number, key, policy):
    """A record of a random time before now, billable or not, with the limits that its plan has on the route."""
    plan = rng.choice(["free", "pro"]) if rng.random() < 0.2 else key.plan
    route = next(each for each in policy.routes if each.id == rng.choice(["api", "api", "health"]) or each.id == "api")
    spread = rng.choice([1800, 86_400, 86_400 * 9, 86_400 * 65])
    moment = NOW - timedelta(seconds=rng.random() * spread)
    excluded = route.id == "health"
    billable, reason = (False, "probes") if excluded else rng.choice([(True, f"plan:{plan}"), (False, "upstream_5xx")])
    outcome = rng.choice(["ok"] * 8 + ["withheld", "crashed"])
    limits = [each.id for each in policy.terms(plan, route, key.customer).limits if not KINDS[each.kind].is_priced]
    decision = {"mode": "exact", "limits": [{"id": each, "period": "", "used": 1, "limit": 9} for each in limits]}
    if outcome == "ok" and rng.random() < 0.1:
        decision = {"mode": "degraded", "limits": []}
    if outcome == "ok" and rng.random() < 0.1 and plan == "free":
        decision["limits"] = decision["limits"][1:]  # decided before its plan had the limit `monthly`
    return usage(
        number, {"requests": rng.randrange(3), "tokens": rng.randrange(50)}, customer=key.customer, key_id=key.id,
        plan=f"{plan}@3", route=route.id, billable=billable, billable_reason=reason, outcome=outcome,
        period_time=stamp(moment), decision=None if outcome == "crashed" else decision,
        envelope={"subject": key.subject},
    )  # fmt: skip


def change_of(rng, number, original):
    data = original["data"]
    units = {meter: -rng.randrange(amount + 1) for meter, amount in data["usage"].items()}
    return change(number, original["id"], units, customer=data["customer"], key_id=data["key_id"],
                  period_time=data["period_time"])  # fmt: skip


def plain_sum(records, changes, policy, identity_of):
    """The units of each open counter, record by record, by the rules that the data path uses."""
    more = {}
    for each in changes:
        more.setdefault(each["causationid"], []).append(each["data"]["usage"])
    units = {}
    for each in records:
        data = each["data"]
        if data["outcome"] == "withheld":
            continue
        identity = identity_of(each)
        route = next(route for route in policy.routes if route.id == data["route"])
        terms = policy.terms(identity.plan, route, identity.customer)
        used = {meter: amount + sum(one[meter] for one in more.get(each["id"], ())) for meter, amount in
                data["usage"].items()}  # fmt: skip
        actual = terms.actual_units(used, billable=data["billable"], excluded=data["billable_reason"] == "probes")
        at_us = round(datetime.fromisoformat(data["period_time"]).timestamp() * 1_000_000)
        decision = data.get("decision") or {"mode": "degraded", "limits": []}
        named = {limit["id"] for limit in decision["limits"]} if decision["mode"] == "exact" else None
        for limit, amount in zip(terms.limits, actual, strict=True):
            kind = KINDS[limit.kind]
            if kind.stored_as != COUNT or not (named is None or limit.id in named or kind.is_priced):
                continue
            own, now = kind.window(limit, identity, at_us), kind.window(limit, identity, NOW_US)
            if own.id in {now.id, kind.window(limit, identity, now.start_us - 1).id if limit.id == "sliding" else ""}:
                key = kind.keys(limit, identity, own)[0]
                units[key] = units.get(key, 0) + amount
    return {key: amount for key, amount in units.items() if amount}


def counted(folder, policy, keys, scope=Scope(), journal="none"):  # noqa: B008 - a value
    with Engine() as engine:
        create_views(engine, LedgerFolder(folder))
        return count(engine, folder / journal, policy, keys, NOW_US, scope)


def nonzero(result):
    return {each.key: units for each, units in result.units if units}


@pytest.mark.parametrize("seed", range(4))
def test_the_sums_by_sql_are_those_record_by_record(tmp_path, policy, seed):
    # Fails if: a window is computed in UTC or from the 1st, a sliding one without the one before it, excluded records
    # count for quotas or unbilled ones for prices, withheld ones count, a change counts by its own row, a limit
    # counts records that were decided without it, or a key that is revoked has no zone.
    rng = random.Random(seed)
    keys = keys_of(rng)
    records = [record_of(rng, number, rng.choice(keys), policy) for number in range(1, 401)]
    changes = [change_of(rng, 1000 + number, each) for number, each in enumerate(rng.sample(records, 40))]
    load(tmp_path, records[:250], records[250:] + changes[:30], changes[30:])
    identities = Identities(keys)

    def identity_of(record):
        data = record["data"]
        zone = next(each for each in identities.registered if each.key_id == data["key_id"])
        return type(zone)(data["key_id"], record["subject"], data["customer"], data["plan"][:-2], zone.zone,
                          zone.anchor_us)  # fmt: skip

    result = counted(tmp_path, policy, keys)
    expected = plain_sum(records, changes, policy, identity_of)
    assert nonzero(result) == expected
    assert len(expected) > 20
    assert (result.skipped, result.unknown, result.pending) == ({}, 0, 0)
    one = counted(tmp_path, policy, keys, Scope("c1", "monthly"))
    assert nonzero(one) == {key: units for key, units in expected.items() if "q=monthly:cc1:" in key}


def test_every_registered_key_has_its_counters_also_without_records(tmp_path, policy):
    load(tmp_path, [usage(1)])
    keys = [KeyRecord("k1", f"sha256:{1:064x}", "c1", "s1", "pro")]
    assert sorted({(each.limit, each.window) for each, _ in counted(tmp_path, policy, keys).units}) == [
        ("credit.tokens", "2026-12"), ("daily", "2026-12-01"), ("fixed", "s86400:20788"), ("monthly", "2026-12"),
        ("sliding", "s43200:41575"), ("sliding", "s43200:41576"), ("weekly", "2026-W49"),
    ]  # fmt: skip


def test_limits_of_a_customer_without_a_registered_key_are_named_where_its_zone_matters(tmp_path, policy):
    # Fails if UTC is taken for a customer whose zone is not known.
    record = usage(1, {"requests": 1, "tokens": 5}, customer="gone", key_id="k9", plan="pro@3", route="api",
                   period_time=stamp(NOW), decision={"mode": "degraded", "limits": []})  # fmt: skip
    load(tmp_path, [record])
    result = counted(tmp_path, policy, [])
    assert result.skipped == {"daily": "gone", "monthly": "gone"}
    window = calendar_window("week", "Asia/Kathmandu", 0, NOW_US)
    assert nonzero(result)[f"sc:{{gone}}:q=weekly:sapp:{window.id}"] == 5


def test_a_change_without_its_original_is_reported_and_counts_nothing(tmp_path, policy):
    load(tmp_path, [change(1, "01M8N97TG90000000000000001", {"requests": -1}, period_time=stamp(NOW))])
    result = counted(tmp_path, policy, [])
    assert (result.unknown, result.units) == (1, [])


def test_a_record_at_the_instant_of_a_boundary_is_in_one_window(tmp_path, policy):
    # Fails if it is in both windows of a sliding limit, or in neither.
    boundary = NOW.replace(minute=0, second=0)
    times = [boundary - timedelta(microseconds=1), boundary]
    records = [usage(n, {"requests": 1, "tokens": 10**n}, customer="c1", key_id="k1", plan="pro@3", route="api",
                     period_time=stamp(each)) for n, each in enumerate(times, 1)]  # fmt: skip
    for each in records:
        each["data"]["decision"]["limits"] = [{"id": "sliding"}]
    load(tmp_path, records)
    keys = [KeyRecord("k1", f"sha256:{1:064x}", "c1", "app", "pro")]
    units = {each.window: units for each, units in counted(tmp_path, policy, keys).units if each.limit == "sliding"}
    assert units == {"s43200:41575": 10, "s43200:41576": 100}
