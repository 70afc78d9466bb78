"""The usage path shows each key its own figures, charges nothing, and is not there where it is off."""

from dataclasses import replace

import pytest

from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity, Source
from sidecar.core.policy import Limit, Plan, Route
from sidecar.core.price import Price
from sidecar.gateway import GatewayOptions
from sidecar.gateway.usage import KEYS_MAX, UsageRate
from tests.gateway.scene import Scene
from tests.stage import quota

PATH = "/.well-known/usage"
OPTIONS = GatewayOptions("here", usage_path=PATH)
OF_KEY = quota(10)
OF_CUSTOMER = Limit("daily", "quota", 50, calendar="day", scope="customer", link="https://example.com/plans")
PAID = (
    Limit("credit.requests", "priced", 0, calendar="month", scope="customer", unit="usd", price=Price("per_unit", 7)),
    Limit("credit", "balance", 0, scope="customer", unit="usd", period_us=60_000_000),
)


def scene(*limits, options=OPTIONS, **more):
    return Scene(*(limits or (OF_KEY, OF_CUSTOMER)), options=options, **more)


def show(made, *fields, key="ann", **how):
    made.ask(*fields, key=key, target=PATH.encode(), **how)
    assert made.at_rest()
    return made.client.status


def limits(made):
    return {each["id"]: (each["used"], each["remaining"]) for each in made.members["limits"]}


def test_a_client_sees_what_is_left_with_its_own_key():
    # Fails if another key's counter is read, or the question is charged, recorded or sent upstream.
    made = scene()
    for key in ("ann", "ann", "bob"):
        made.ask(key=key)
        made.call.connect().respond(200, b"x")
    records = len(made.journal.entries)
    for _ in range(2):
        assert show(made) == 200
        assert limits(made) == {"monthly": (2, 8), "daily": (2, 48)}
        made.clock.turn(1_000_000)
    assert (made.members["customer"], made.members["key"], made.members["plan"]) == ("cust-ann", "k_ann", "free@1")
    assert made.members["as_of"].endswith("Z")
    assert [each["id"] for each in made.members["limits"] if each["binding"]] == ["monthly"]
    assert (len(made.journal.entries), len(made.upstream.calls)) == (records, 3)
    assert made.tally.counts["usage_answers"] == 2
    assert dict(made.client.fields)[b"Cache-Control"] == b"no-store"


def test_a_client_that_is_over_its_limit_sees_it_and_learns_where():
    # Fails if the question needs a unit, or the denial does not name the path.
    made = scene(quota(1))
    for _ in range(2):
        made.ask()
        if made.client.status != 429:
            made.call.connect().respond(200, b"x")
    assert (made.client.status, made.members["usage"]) == (429, PATH)
    assert show(made) == 200
    assert limits(made) == {"monthly": (1, 0)}


def test_a_balance_is_shown_with_its_unit_and_the_link_of_what_binds():
    made = scene(replace(OF_CUSTOMER, amount=1), *PAID)
    made.counters.fund("cust-ann", "usd", 1_500_000_000)
    assert show(made) == 200
    assert made.members["balances"] == [
        {"unit": "usd", "available": "1.5", "held": "0", "expiring": "0", "expires": None, "binding": False}
    ]
    assert made.members["link"] == "https://example.com/plans"


@pytest.mark.parametrize(
    ("shows", "status", "seen"), [("all", 200, {"monthly", "daily"}), ("own", 200, {"monthly"}), ("off", 404, set())]
)
def test_a_plan_says_how_much_is_shown(shows, status, seen):
    # Fails if `own` shows what other keys of the customer have used.
    plan = Plan("free", "free@1", (OF_KEY, OF_CUSTOMER, *PAID), show_usage=shows)
    made = scene(*plan.limits, customers={"cust-ann": plan})
    assert show(made) == status
    if seen:
        assert set(limits(made)) == seen
        assert bool(made.members["balances"]) is (shows == "all")
    else:
        made.ask(key="ann")
        assert made.client.status == 402
        assert "usage" not in made.members


@pytest.mark.parametrize(("shows", "seen"), [("all", True), ("own", False), ("off", False)])
def test_a_denial_has_the_customer_s_figures_only_where_the_plan_shows_them(shows, seen):
    # Fails if any key of a customer reads its balance, or the sum of all keys, in a refusal.
    plan = Plan("free", "free@1", (OF_CUSTOMER, *PAID), show_usage=shows)
    made = scene(*plan.limits, customers={"cust-ann": plan})
    made.ask()
    assert (made.client.status, "limit" in made.members) == (402, seen)
    assert made.members["violated-policies"] == ["credit"]


def test_limits_in_stage_shadow_are_not_spoken_of():
    made = scene(OF_KEY, replace(OF_CUSTOMER, stage="shadow"))
    assert show(made) == 200
    assert set(limits(made)) == {"monthly"}


def test_a_key_is_answered_once_a_second_and_others_meanwhile():
    # Fails if one key's questions hold up another's, or a refusal counts as an answer.
    made = scene()
    assert [show(made), show(made), show(made, key="bob")] == [200, 429, 200]
    assert (b"Retry-After", b"1") in made.client.fields or made.client.status == 200
    made.clock.turn(999_999)
    assert show(made) == 429
    made.clock.turn(1)
    assert show(made) == 200


def test_a_rate_remembers_a_bounded_number_of_keys():
    rate = UsageRate()
    assert all(rate.allows(f"k{number}", 0) for number in range(KEYS_MAX))
    assert not rate.allows("one more", 999_999)
    assert rate.allows("one more", 1_000_000)


@pytest.mark.parametrize(
    ("key", "status", "slug"), [("", 401, "key-missing"), ("nobody", 401, "key-unknown"), ("lost", 403, "plan-unknown")]
)
def test_who_is_not_known_sees_nothing(key, status, slug):
    made = scene()
    made.keys.register("lost", Identity("k9", "s", "c", "gone"))
    assert (show(made, key=key), made.problem) == (status, slug)
    assert made.upstream.calls == []


def test_counters_that_do_not_answer_are_503_once():
    # Fails if each of several questions answers by itself.
    made = scene(OF_KEY, replace(OF_CUSTOMER, routes=frozenset({"b"})), routes=[Route("a", "/a"), Route("b", "/b")])
    made.peeks.fails = StoreError("away")
    assert (show(made), made.problem) == (503, "usage-unavailable")


def test_a_client_that_leaves_before_the_answer_ends_the_exchange():
    # Fails if an answer is written to a client that is gone, or the exchange stays open.
    made = scene()
    made.peeks.holding = True
    made.ask(target=PATH.encode())
    made.exchange.on_client_gone()
    made.peeks.let_go()
    assert (made.client.status, made.at_rest()) == (0, True)


def test_a_key_of_any_route_is_read():
    made = scene(routes=[Route("a", "/a"), Route("b", "/b", sources=(Source("query", "k"),))])
    made.ask(key="", target=PATH.encode() + b"?k=ann")
    assert made.client.status == 200


@pytest.mark.parametrize(("options", "method"), [(GatewayOptions("here"), "GET"), (OPTIONS, "POST")])
def test_elsewhere_the_path_is_the_upstream_s(options, method):
    # Fails if other methods, or a node without the path, answer by themselves.
    made = scene(options=options)
    made.ask(method=method, target=PATH.encode())
    made.call.connect().respond(200, b"theirs")
    assert made.client.content == b"theirs"
