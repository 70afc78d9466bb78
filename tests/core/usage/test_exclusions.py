"""Mirrors sidecar/core/usage/exclusions.py."""

import json
from types import SimpleNamespace

from sidecar.core.identity import Identity
from sidecar.core.usage import Bodies, Exclusion, JsonTest, When

ANN = Identity("k_1", "app", "cust-9", "pro")
US = Identity("k_2", "app", "cust-us", "pro")
TESTER = Identity("k_3", "app", "cust-9", "pro", test=True)


def facts(body=None, status=200, method="POST", **fields):
    tap = Bodies()
    tap.take("request", None if body is None else json.dumps(body).encode())
    return SimpleNamespace(
        status=status, method=method, tap=tap, request_header={k.encode(): v for k, v in fields.items()}.get
    )


def holds(exclusion, who=ANN, route="r", **more):
    return exclusion.on(route).matches(facts(**more), who)


def test_an_exclusion_of_other_routes_is_none_here():
    health = Exclusion("health", When(routes=frozenset({"health"})))
    assert health.on("chat") is None
    assert holds(health, route="health")


# Fails if the key of a retry is not among them: nominated in Connection, it would be read here and not by the API.
def test_an_exclusion_tells_the_headers_that_it_reads():
    assert Exclusion("retry", retries_us=1).on("r").headers == {b"idempotency-key"}
    named = When(headers=((b"x-probe", frozenset()), (b"x-from", frozenset({b"us"}))))
    assert Exclusion("probe", named).on("r").headers == {b"x-probe", b"x-from"}
    assert Exclusion("us", customers=frozenset({"cust-us"})).on("r").headers == set()


def test_our_own_customers_and_test_keys_are_excluded_and_nobody_is_neither():
    internal = Exclusion("internal", customers=frozenset({"cust-us"}))
    assert [holds(internal, who) for who in (US, ANN, None)] == [True, False, False]
    tests = Exclusion("test_key", test_keys=True)
    assert [holds(tests, who) for who in (TESTER, ANN, None)] == [True, False, False]


def test_all_that_an_exclusion_says_must_hold():
    probe = Exclusion("probe", When(methods=frozenset({"GET"}), statuses=frozenset({404})), frozenset({"cust-us"}))
    assert holds(probe, US, method="GET", status=404)
    assert not holds(probe, ANN, method="GET", status=404)
    assert not holds(probe, US, method="POST", status=404)
    assert not holds(probe, US, method="GET", status=200)


def test_what_a_body_says_excludes_only_where_it_is_known():
    # Fails if what is not known excludes: a body that is too large would be for nothing.
    dry = Exclusion("dry_run", When(json=(JsonTest("request", "/dry_run", frozenset({"true"})),)))
    assert dry.on("r").reads == {"request"}
    assert [holds(dry, body=body) for body in ({"dry_run": True}, {"dry_run": False}, {}, None)] == [True] + [False] * 3
    assert not dry.on("r").matches(SimpleNamespace(status=200, method="POST", tap=None), ANN)


def test_a_batch_is_excluded_where_all_of_its_calls_are():
    # Fails with `any`: one free call would make a batch of a thousand free.
    ping = Exclusion("ping", When(json_rpc=("net_*",)))
    free, sold, none = {"method": "net_version"}, {"method": "eth_call"}, {"result": 1}
    assert [holds(ping, body=body) for body in (free, [free, free], [free, sold], [free, none], [], sold, None)] == [
        *(True, True),
        *(False,) * 5,
    ]


def test_an_exclusion_without_conditions_of_bodies_reads_none():
    assert Exclusion("a", When(statuses=frozenset({404})), retries_us=5).on("r")[:3] == ("a", 5, frozenset())
