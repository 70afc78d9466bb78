"""Who may, and what a refusal says."""

import orjson
import pytest

from sidecar.core.errors import StoreError
from sidecar.core.identity import make_key
from sidecar.core.policy import Plan, Route
from sidecar.gateway import GatewayOptions
from tests.gateway.scene import SLOTS, Scene
from tests.stage import quota

# The way in.


def test_an_exchange_is_opened_answered_recorded_and_counted():
    scene = Scene(quota(10))
    scene.ask()
    assert [entry.stream for entry in scene.journal.entries] == ["open"]
    scene.call.connect().respond(200, b"hi")
    assert (scene.client.status, scene.client.ended) == (200, "complete")
    assert (scene.record["usage"]["requests"], scene.counters.used("monthly")) == (1, 1)
    assert scene.tally.answers[0][:2] == ("api", 200)
    assert scene.at_rest()


@pytest.mark.parametrize(
    ("fields", "key", "status", "slug"),
    [
        ((), "", 401, "key-missing"),
        ((), "nobody", 401, "key-unknown"),
        (("X-Api-Key: bob",), "ann", 400, "ambiguous-credential"),
        (("Via: 1.1 sidecar-here",), "ann", 508, "loop"),
    ],
)
def test_who_cannot_be_known_reaches_nobody_and_leaves_no_record(fields, key, status, slug, scene):
    scene.ask(*fields, key=key)
    assert (scene.client.status, scene.problem) == (status, slug)
    assert (scene.upstream.calls, scene.journal.entries) == ([], [])
    assert scene.at_rest()


# Fails if a mistyped key is looked up: a store would be asked about every typo.
def test_a_mistyped_key_is_refused_without_a_look_up(scene):
    key = make_key(bytes(20))
    scene.ask(key=key[:-1] + ("a" if key[-1] != "a" else "b"))
    assert (scene.client.status, scene.keys.requested) == (401, [])


def test_keys_that_cannot_be_looked_up_are_503(scene):
    scene.keys.fails = StoreError("away")
    scene.ask()
    assert (scene.client.status, scene.problem) == (503, "keys-unavailable")
    assert (b"Retry-After", b"1") in scene.client.fields


def test_a_path_that_no_route_matches_is_404():
    scene = Scene(routes=[Route("x", "/x")])
    scene.ask()
    assert (scene.client.status, scene.problem) == (404, "no-route")


def test_a_plan_that_lacks_the_feature_is_403():
    scene = Scene(feature="chat")
    scene.ask()
    assert (scene.client.status, scene.problem, scene.members["plans"]) == (403, "feature-missing", ["pro"])


# Fails if the customer's own terms are not asked for.
def test_a_customer_with_terms_of_its_own_has_those():
    scene = Scene(quota(1), customers={"cust-ann": Plan("free", "free@1+", (quota(2),))})
    for key in ("ann", "ann", "bob"):
        scene.ask(key=key)
        scene.call.connect().respond()
    statuses = []
    for key in ("ann", "bob"):
        scene.ask(key=key)
        statuses.append(scene.client.status)
    assert statuses == [429, 429]
    labels = [orjson.loads(entry.body)["data"]["plan"] for entry in scene.journal.of("records")]
    assert labels == ["free@1+", "free@1+", "free@1"]


# Kong metering plugin: a call with no subject was not recorded.
def test_traffic_that_policy_lets_through_unattributed_is_recorded():
    scene = Scene(unattributed="allow")
    scene.ask(key="")
    scene.call.connect().respond()
    [entry] = scene.journal.of("records")
    assert orjson.loads(entry.body)["type"] == "sidecar.unattributed.v1"
    assert scene.record["billable"] is False


# Limits.


# Kong docs #6586, unkey #1995. Fails if a denial is charged, or forwarded.
def test_a_denied_request_consumes_nothing_and_is_noted():
    scene = Scene(quota(1), SLOTS)
    for _ in range(3):
        scene.ask()
        if scene.upstream.calls and not scene.client.ended:
            scene.call.connect().respond()
    assert (scene.client.status, len(scene.upstream.calls), scene.counters.used("monthly")) == (429, 1, 1)
    assert scene.tally.denials == [("monthly", False)] * 2
    assert [orjson.loads(entry.body)["data"]["decision"]["violated"] for entry in scene.journal.of("denials")] == [
        "monthly"
    ] * 2
    assert scene.at_rest()


def test_the_answer_to_a_limit_says_which_and_when():
    scene = Scene(SLOTS)
    scene.ask()
    scene.ask()
    assert scene.client.status == 429
    assert {b"RateLimit", b"Retry-After"} <= dict(scene.client.fields).keys()


def test_a_shadow_limit_is_told_to_the_probe_alone():
    scene = Scene(quota(1, stage="shadow"))
    for _ in range(2):
        scene.ask()
        scene.call.connect().respond()
    assert (scene.client.status, scene.tally.denials) == (200, [("monthly", True)])


# Fails if a store that does not answer is let past as an answer.
def test_counters_that_do_not_answer_are_no_permission(scene):
    scene.counters.fails = StoreError("away")
    scene.ask()
    assert (scene.client.status, scene.upstream.calls) == (503, [])
    assert scene.at_rest()


# Fails if soft denies, or if the warning goes by the switch for the RateLimit fields.
def test_a_soft_limit_lets_pass_and_warns():
    scene = Scene(quota(1, stage="soft", link="https://x/up"), options=GatewayOptions("here", limit_headers=False))
    warning = (b"Sidecar-Warning", b'limit "monthly" is used up; see https://x/up')
    seen = []
    for _ in range(2):
        scene.ask()
        scene.call.connect().respond()
        seen.append((scene.client.status, warning in scene.client.fields))
    assert seen == [(200, False), (200, True)]
    assert scene.tally.denials == [("monthly", True)]


def test_a_denial_says_where_to_get_more():
    scene = Scene(quota(1, link="https://x/up"))
    scene.ask()
    scene.ask()
    assert scene.members["link"] == "https://x/up"


def alerts(scene):
    found = [orjson.loads(entry.body) for entry in scene.journal.of("records")]
    return [event["data"]["percent"] for event in found if event["type"] == "sidecar.alert.v1"]


# Fails if alerts are told before their record is written, or looked for on denials no more.
def test_a_threshold_that_is_passed_is_written_down_and_then_told_no_more():
    scene = Scene(quota(4, alerts=(50, 100)))
    for _ in range(5):
        scene.ask()
        if not scene.client.ended:
            scene.call.connect().respond()
    assert alerts(scene) == [50, 100]
    assert len(scene.alerts.written) == 2


def test_an_alert_that_could_not_be_written_is_told_again():
    scene = Scene(quota(2, alerts=(50,)))
    scene.journal.broken = True
    scene.ask()
    assert scene.alerts.written == []
    scene.journal.broken = False
    scene.ask()
    assert (alerts(scene), len(scene.alerts.written)) == ([50], 1)
