"""What is prepared once for many requests, and how long it lasts."""

import gc

from sidecar.core import headers
from sidecar.core.limits import Checks, checks_for
from sidecar.core.policy import Limit, Route
from sidecar.core.usage import REQUESTS, Measured, MeterRule
from sidecar.gateway.policies import VARIED_CACHED
from sidecar.testing import ScriptedUpstream
from tests.gateway.scene import Scene
from tests.stage import policy, quota


def test_what_a_request_asks_of_the_counters_is_one_object_for_a_window():
    scene = Scene(quota(10))
    for _ in range(2):
        scene.ask()
        scene.upstream.calls[-1].connect().respond()
    [first] = scene.context.policies._checks.values()
    scene.clock.turn(40 * 86_400_000_000)
    scene.ask()
    [second] = scene.context.policies._checks.values()
    assert (first.keys, first.until_us) != (second.keys, second.until_us)


def questions():
    gc.collect()
    return sum(type(each) is Checks for each in gc.get_objects())


def test_questions_whose_costs_vary_are_few_share_what_they_have_in_common_and_are_let_go():
    # Fails if what is prepared for a question is kept anywhere but with it: each chat left 5 KiB behind, up to 50 MiB.
    # The costs are what a client writes into a header: they are no questions of plain routes, of which 50,000 are kept.
    rows = MeterRule("rows", Measured("request.header.x-rows"))
    scene = Scene(Limit("rows", "quota", 10**12, meter="rows", calendar="month"), rules=(REQUESTS, rows))

    def ask(number):
        exchange = scene.ask(f"X-Rows: {number}")
        scene.upstream.calls.pop().connect().respond()
        return exchange.decision.checks

    before = questions()
    for number in range(3 * VARIED_CACHED):
        ask(number)
    assert questions() - before <= VARIED_CACHED + 1
    one, other = ask(7), ask(8)
    assert ask(7) is one
    assert (one.costs, other.costs) == ((7,), (8,))
    assert headers._FIELDS.of(one) is headers._FIELDS.of(other)
    plain = checks_for(one.limits, (7,), one.identity, scene.clock.now_us())
    names = ("keys", "until_us", "from_us", "marks", "must_settle", "has_wallet", "alerting")
    assert [getattr(one, name) for name in names] == [getattr(plain, name) for name in names]


# Fails if a cache outlives the policy that it was made from, or if the policy resets a counter (APISIX limit-count).
def test_a_new_policy_is_in_force_at_once_and_resets_no_counter():
    scene = Scene(quota(10))
    scene.ask()
    scene.upstream.calls[-1].connect().respond()
    other = ScriptedUpstream()
    scene.context.policies._upstream_of = lambda _route: other
    scene.context.policies.apply(policy(quota(20), version="v2"))
    scene.ask()
    assert (len(scene.upstream.calls), len(other.calls)) == (1, 1)
    assert {each.entries[0].limit.amount for each in scene.context.policies._checks.values()} == {20}
    other.calls[0].connect().respond()
    assert b'"monthly";r=18;' in dict(scene.client.fields)[b"RateLimit"]


# Fails if an exchange under way is asked about by the new policy's routes.
def test_an_exchange_under_way_keeps_the_terms_it_began_with():
    scene = Scene(quota(10), routes=[Route("old")])
    scene.keys.holding = True
    exchange = scene.ask()
    scene.context.policies.apply(policy(quota(20), version="v2", routes=[Route("new")]))
    scene.keys.holding = False
    scene.keys.let_go()
    scene.upstream.calls[0].connect().respond()
    assert (exchange.route, scene.client.status) == ("old", 200)
    assert b'"monthly";r=9;' in dict(scene.client.fields)[b"RateLimit"]
