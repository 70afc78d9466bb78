"""Every ending of an exchange, over the shipped doubles: what is answered, recorded, settled, and when."""

from dataclasses import replace

import orjson
import pytest

from sidecar.core.errors import UpstreamError, UpstreamReason
from sidecar.core.http.problem import Problem
from sidecar.core.policy import Limit
from sidecar.core.price import Price
from sidecar.core.record import crashed_record
from sidecar.core.usage import Exclusion
from tests.gateway.scene import SLOTS, Scene
from tests.stage import ANN, quota

PRICE = Price("per_unit", 10)
EGRESS = Limit("egress", "quota", 1_000_000, meter="egress_bytes", calendar="month", reserve=500)


@pytest.mark.parametrize("key", ["ann", ""])
def test_a_record_is_of_the_period_in_which_it_was_reserved_and_dated_when_it_ended(key):
    # Fails if the period is the time of the end, which may be in the next month.
    scene = Scene(quota(10), unattributed="allow")
    scene.clock.step(1_764_547_199_000_000 - scene.clock.now_us())  # the last second of a month
    scene.ask(key=key)
    scene.clock.turn(5_000_000)
    scene.call.connect().respond(200, b"12345")
    [entry] = scene.journal.of("records")
    record = orjson.loads(entry.body)
    assert record["data"]["period_time"] == "2025-11-30T23:59:59.000000Z"
    assert record["time"] == "2025-12-01T00:00:04.000000Z"
    assert "usage_lines" not in record["data"]


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
        scene.call.fail(UpstreamError(UpstreamReason.REFUSED, "x"))
    elif ending == "cut":
        scene.call.connect().begin(200, (b"Content-Length", b"9"))
        scene.call.send_body(b"123")
        scene.call.fail(UpstreamError(UpstreamReason.TRUNCATED, "x"))
        used = (1, 3)
    elif ending == "gone before":
        scene.exchange.on_client_gone()
    elif ending == "gone after":
        scene.call.connect().begin(200, (b"Content-Length", b"9"))
        scene.call.send_body(b"123")
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
def test_the_last_bytes_wait_for_the_record(ending, scene):
    scene.ask()
    call = scene.call.connect()
    scene.journal.holding = True
    if ending == "whole":
        call.respond(200, b"last")
    elif ending == "refused":
        call.fail(UpstreamError(UpstreamReason.TIMEOUT, "x"))
    else:
        call.begin(200, (b"Transfer-Encoding", b"chunked"))
        call.send_body(b"first")
        call.send_body(b"last", done=True)
    assert scene.client.content == (b"first" if ending == "chunked" else b"")
    assert scene.client.ended == ""
    scene.journal.let_go()
    assert scene.client.ended == "complete"
    assert (scene.client.status, scene.at_rest()) == (504 if ending == "refused" else 200, True)


# Fails if an exchange is answered as soon as its own settle is queued: a kill would find it billed and not settled.
def test_the_settles_of_a_batch_leave_in_one_write_before_the_last_bytes_of_any_of_them():
    scene = Scene(quota(10), EGRESS)
    scene.journal.holding = True
    story, clients = [], []
    scene.flushed = lambda: story.append((len(scene.counters.settled), [client.ended for client in clients]))
    for key in ("ann", "bob"):
        scene.ask(key=key)
        clients.append(scene.client)
    scene.journal.let_go()
    for call in scene.upstream.calls:
        call.connect().respond(200, b"12345")
    assert scene.counters.settled == []
    scene.journal.let_go()
    assert story == [(2, ["", ""])]
    assert [client.ended for client in clients] == ["complete", "complete"]
    assert scene.at_rest()


def test_where_nothing_is_settled_nothing_is_written_to_the_store():
    scene = Scene(quota(10))
    scene.flushed = pytest.fail
    scene.ask()
    scene.call.connect().respond(200, b"12345")
    assert scene.client.ended == "complete"


def test_an_answer_that_cannot_be_sent_leaves_the_others_of_its_batch_alone():
    scene = Scene(EGRESS)
    scene.journal.holding = True
    clients = []
    for key in ("ann", "bob"):
        scene.ask(key=key)
        clients.append(scene.client)
    scene.journal.let_go()
    clients[0].end = lambda *_: 1 / 0
    for call in scene.upstream.calls:
        call.connect().respond(200, b"12345")
    scene.journal.let_go()
    assert clients[1].ended == "complete"


def test_a_record_that_cannot_be_written_cuts_the_client(scene):
    scene.ask()
    call = scene.call.connect()
    scene.journal.broken = True
    call.respond(200, b"last")
    assert (scene.client.ended, scene.client.content) == ("cut", b"")
    assert scene.at_rest()


# Fails if the truth is settled before it is known whether there is a record: the wallet would pay for what nobody got.
def test_an_answer_that_is_withheld_is_paid_by_nobody():
    credit = Limit("credit", "balance", 0, meter="", scope="customer", unit="usd", period_us=600_000_000)
    priced = Limit("usd.bytes", "priced", 0, meter="egress_bytes", calendar="day", unit="usd", reserve=9, price=PRICE)
    scene = Scene(quota(10), SLOTS, EGRESS, priced, credit)
    scene.counters.fund("cust-ann", "usd", 10**9)
    scene.ask()
    call = scene.call.connect()
    scene.journal.broken = True
    call.respond(200, b"last")
    assert [scene.counters.used(limit) for limit in ("monthly", "slots", "egress", "usd.bytes")] == [0, 0, 0, 0]
    assert scene.counters.balance("cust-ann", "usd") == 10**9
    assert (scene.exchange.outcome, scene.exchange.billable, scene.client.ended) == ("withheld", False, "cut")


# The record may have been read: it stands, and so does what it says was used.
def test_a_record_that_stands_although_its_answer_was_cut_is_settled():
    scene = Scene(EGRESS)
    scene.ask()
    call = scene.call.connect()
    scene.journal.broken = True
    scene.journal.withheld = lambda: False
    call.respond(200, b"last")
    assert (scene.counters.used("egress"), scene.client.ended) == (4, "cut")


# sub2api #4408. Fails if a second ending is recorded.
@pytest.mark.parametrize("second", ["on_client_gone", "on_body_broken", "on_upstream_failed"])
def test_one_exchange_ends_once(second, scene):
    scene.ask()
    scene.journal.holding = True
    scene.call.connect().respond(200, b"x")
    problem = [Problem(400, "x", "x")] if second == "on_body_broken" else []
    problem = [UpstreamError(UpstreamReason.CLOSED, "x")] if second == "on_upstream_failed" else problem
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


def test_a_client_that_leaves_before_a_connection_is_there_is_forgotten_upstream(scene):
    exchange = scene.ask()
    exchange.on_client_gone()
    assert scene.upstream.forgotten == [exchange]
    assert (scene.record["outcome"], scene.record["attempts"]) == ("client_gone", 0)


# Fails if nothing is measured of what the upstream never saw: a consumer looks for the meter (policies.md: 0 included).
def test_an_exchange_that_the_upstream_never_saw_used_0_of_every_meter():
    scene = Scene(quota(10))
    scene.ask()
    scene.call.fail(UpstreamError(UpstreamReason.REFUSED, "x"))
    assert scene.record["usage"] == {"requests": 0, "egress_bytes": 0, "ingress_bytes": 0}
    assert scene.counters.used("monthly") == 0


# Fails if an OPEN entry names the meters that have a limit alone.
def test_a_crashed_record_has_every_meter():
    scene = Scene(quota(10))
    scene.ask()
    opened = scene.journal.of("open")[0]
    crashed = orjson.loads(crashed_record(opened.body, opened.id, 1, "//x/1", 1))
    assert crashed["data"]["usage"] == {"requests": 1, "egress_bytes": 0, "ingress_bytes": 0}


def test_a_client_that_leaves_later_has_its_connection_cancelled(scene):
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
    call.send_body(b"123")
    if how == "cut":
        call.fail(UpstreamError(UpstreamReason.TRUNCATED, "x"))
    elif how == "gone":
        scene.exchange.on_client_gone()
    else:
        call.send_body(b"45", done=True)
    used = scene.record["usage"]["egress_bytes"]
    assert (scene.record["billable"], scene.counters.used("egress")) == (billed, used)
    assert scene.counters.used("credit.egress") == used * billed
