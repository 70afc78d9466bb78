"""Every ending of an exchange, over the shipped doubles: what is answered, recorded, settled, and when."""

from dataclasses import replace

import pytest

from sidecar.core.errors import UpstreamError
from sidecar.core.http.problem import Problem
from sidecar.core.policy import Limit
from sidecar.core.price import Price
from sidecar.core.usage import Exclusion
from tests.gateway.scene import SLOTS, Scene
from tests.stage import ANN, quota

PRICE = Price("per_unit", 10)
EGRESS = Limit("egress", "quota", 1_000_000, meter="egress_bytes", calendar="month", reserve=500)


# litellm #27639, eliza #9904: a reservation or a slot that stayed. Fails if one ending forgets to settle.
@pytest.mark.parametrize(
    "ending",
    ["respond", "refused", "cut", "gone before", "gone after", "journal full", "journal broken", "broken body", "5xx"],
)
def test_every_ending_gives_back_what_was_not_used(ending):
    scene = Scene(quota(10), SLOTS, EGRESS)
    if ending == "journal full":
        scene.journal.full = True
    scene.journal.broken = ending == "journal broken"
    scene.ask("Content-Length: 3", method="POST")
    used = (0, 0)
    if ending == "respond":
        scene.exchange.on_body(b"abc")
        scene.exchange.on_body_end([])
        scene.call.connect().respond(200, b"12345")
        used = (1, 5)
    elif ending == "5xx":
        scene.call.connect().respond(500, b"12345")
        used = (0, 5)
    elif ending == "refused":
        scene.call.fail(UpstreamError(502, "upstream-unreachable", "x"))
    elif ending == "cut":
        scene.call.connect().begin(200, (b"Content-Length", b"9"))
        scene.call.go_on(b"123")
        scene.call.fail(UpstreamError(502, "upstream-truncated", "x"))
        used = (1, 3)
    elif ending == "gone before":
        scene.exchange.on_client_gone()
    elif ending == "gone after":
        scene.call.connect().begin(200, (b"Content-Length", b"9"))
        scene.call.go_on(b"123")
        scene.exchange.on_client_gone()
        used = (1, 3)
    elif ending == "broken body":
        scene.call.connect()
        scene.exchange.on_body_broken(Problem(400, "x", "x"))
        used = (1, 0)
    assert scene.counters.used("slots") == 0
    assert (scene.counters.used("monthly"), scene.counters.used("egress")) == used
    assert scene.at_rest()


# Fails if the last bytes are written with the record under way. Held in every ending that answers.
@pytest.mark.parametrize("ending", ["whole", "refused", "chunked"])
def test_the_last_bytes_wait_for_the_record(ending):
    scene = Scene()
    scene.ask()
    call = scene.call.connect()
    scene.journal.holding = True
    if ending == "whole":
        call.respond(200, b"last")
    elif ending == "refused":
        call.fail(UpstreamError(504, "upstream-timeout", "x"))
    else:
        call.begin(200, (b"Transfer-Encoding", b"chunked"))
        call.go_on(b"first")
        call.go_on(b"last", done=True)
    assert b"last" not in scene.client.sent
    assert b"0\r\n\r\n" not in scene.client.sent
    assert scene.client.ended == ""
    scene.journal.let_go()
    assert scene.client.ended in {"kept", "closed"}
    assert (scene.client.status, scene.at_rest()) == (504 if ending == "refused" else 200, True)


def test_a_record_that_cannot_be_written_cuts_the_client():
    scene = Scene()
    scene.ask()
    call = scene.call.connect()
    scene.journal.broken = True
    call.respond(200, b"last")
    assert (scene.client.ended, b"last" in scene.client.sent) == ("cut", False)
    assert scene.at_rest()


# sub2api #4408. Fails if a second ending is recorded.
@pytest.mark.parametrize("second", ["on_client_gone", "on_body_broken", "on_upstream_failed"])
def test_one_exchange_ends_once(second):
    scene = Scene()
    scene.ask()
    scene.journal.holding = True
    scene.call.connect().respond(200, b"x")
    problem = [Problem(400, "x", "x")] if second == "on_body_broken" else []
    problem = [UpstreamError(502, "x", "x")] if second == "on_upstream_failed" else problem
    getattr(scene.exchange, second)(*problem)
    scene.journal.let_go()
    assert scene.record["outcome"] == "ok"
    assert scene.at_rest()


@pytest.mark.parametrize("waits_for", ["keys", "counters", "journal"])
def test_a_client_that_leaves_while_a_port_is_asked_never_reaches_the_upstream(waits_for):
    scene = Scene(quota(10), SLOTS)
    port = getattr(scene, waits_for)
    port.holding = True
    scene.ask()
    scene.exchange.on_client_gone()
    port.holding = False
    port.let_go()
    assert scene.upstream.calls == []
    assert (scene.counters.used("monthly"), scene.at_rest()) == (0, True)
    assert len(scene.journal.of("records")) == len(scene.journal.of("open")) == (waits_for == "journal")


def test_a_client_that_leaves_before_a_connection_is_there_is_forgotten_upstream():
    scene = Scene()
    exchange = scene.ask()
    exchange.on_client_gone()
    assert scene.upstream.forgotten == [exchange]
    assert (scene.record["outcome"], scene.record["attempts"]) == ("client_gone", 0)


def test_a_client_that_leaves_later_has_its_connection_cancelled():
    scene = Scene()
    scene.ask()
    call = scene.call.connect()
    scene.exchange.on_client_gone()
    assert (call.cancelled, scene.record["attempts"]) == (True, 1)


# What the policy excludes.


# Fails if what is excluded is billed, or keeps what it reserved of a quota.
@pytest.mark.parametrize(("key", "billed"), [("ann", (False, "internal", 0)), ("bob", (True, "plan:free", 1))])
def test_what_is_excluded_is_recorded_and_neither_billed_nor_charged(key, billed):
    scene = Scene(quota(10), exclusions=[Exclusion("internal", customers=frozenset({"cust-ann"}))])
    scene.ask(key=key)
    assert scene.counters.used("monthly") == 1
    scene.call.connect().respond()
    record = scene.record
    assert (record["billable"], record["billable_reason"], scene.counters.used("monthly")) == billed
    assert record["usage"]["requests"] == 1


# Fails if a wallet is burnt by what the record says is not billed.
@pytest.mark.parametrize(("how", "billed"), [("whole", True), ("test key", False), ("cut", False), ("gone", True)])
def test_what_is_not_billed_burns_no_balance(how, billed):
    priced = Limit("credit.egress", "priced", 0, meter="egress_bytes", calendar="month", unit="usd", price=PRICE)
    scene = Scene(EGRESS, priced)
    scene.keys.register("try", replace(ANN, test=True))
    scene.ask(key="try" if how == "test key" else "ann")
    call = scene.call.connect()
    call.begin(200, (b"Content-Length", b"5"))
    call.go_on(b"123")
    if how == "cut":
        call.fail(UpstreamError(502, "upstream-truncated", "x"))
    elif how == "gone":
        scene.exchange.on_client_gone()
    else:
        call.go_on(b"45", done=True)
    used = scene.record["usage"]["egress_bytes"]
    assert (scene.record["billable"], scene.counters.used("egress")) == (billed, used)
    assert scene.counters.used("credit.egress") == used * billed
