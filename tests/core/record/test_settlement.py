"""Mirrors sidecar/core/record/settlement.py: what a journal says of the counters is what the exchange did to them."""

from dataclasses import replace

import orjson
import pytest

from sidecar.core.decision import Decision, changes_nothing
from sidecar.core.errors import UpstreamError, UpstreamReason
from sidecar.core.identity import Identity
from sidecar.core.policy import Limit, Route
from sidecar.core.price import Price
from sidecar.core.record import Settlements, crashed_record
from sidecar.core.usage import Exclusion
from sidecar.testing import CounterBook
from tests.gateway.scene import SLOTS, Scene
from tests.stage import ANN, policy, quota

EGRESS = Limit("egress", "quota", 1_000_000, meter="egress_bytes", calendar="month", reserve=500)
SMALL = replace(EGRESS, id="small", reserve=7)  # the same meter, held otherwise
RATE = Limit("rate", "rate", 100, meter="egress_bytes", per=50, period_us=1_000_000, reserve=20)
SLIDING = Limit("sliding", "window", 100_000, meter="egress_bytes", period_us=60_000_000, scope="subject")
CREDIT = (
    Limit("credit.bytes", "priced", 0, meter="egress_bytes", calendar="day", scope="customer", unit="usd", reserve=99,
          price=Price("per_unit", 1000)),
    Limit("credit", "balance", 0, meter="", scope="customer", unit="usd", period_us=600_000_000),
)  # fmt: skip
LIMITS = quota(10), EGRESS, SMALL, RATE, SLIDING, SLOTS, *CREDIT
TOKYO = Identity("k_ann", "app-ann", "cust-ann", "free", zone="Asia/Tokyo", anchor_us=1_755_000_000_000_000)


def scene(*limits, **more):
    scene = Scene(*(limits or LIMITS), **more)
    scene.counters.fund("cust-ann", "usd", 10**9)
    return scene


def read(scene, under=None):
    opened, closed = scene.journal.of("open")[-1], scene.journal.of("records")[-1]
    return Settlements(under or scene.context.policies.policy).read(
        closed.id, opened.body, closed.body, scene.clock.now_us()
    )


def rebuilt(scene, *found):
    """The counters of one who knows the journal alone."""
    book = CounterBook(scene.clock)
    book.fund("cust-ann", "usd", 10**9)
    for each in found:
        book.charge_unconditionally(each.id, each.checks, lambda _: None)
        book.settle(each.id, each.checks, each.actual)
    return counted(book)


def counted(book):
    return {key: value for key, value in book.state.items() if ":ids:" not in key and value not in ({}, None)}


def ended(scene, ending):
    call = scene.call
    if ending == "ok":
        call.connect().respond(200, b"x" * 1234)
    elif ending == "5xx":
        call.connect().respond(503, b"x" * 40)
    elif ending == "refused":
        call.fail(UpstreamError(UpstreamReason.REFUSED, "x"))
    elif ending == "gone":
        call.connect().begin(200, (b"Content-Length", b"900"))
        call.send_body(b"123")
        scene.exchange.on_client_gone()


# Fails if costs go by the meter alone (SMALL), if what is not billable burns money, or if a slot is not given back.
@pytest.mark.parametrize("ending", ["ok", "5xx", "refused", "gone"])
@pytest.mark.parametrize("who", [ANN, TOKYO], ids=["utc", "tokyo"])
def test_the_counters_can_be_rebuilt_from_the_journal(ending, who):
    made = scene(*(replace(limit, zone="customer", anchored=limit.kind == "quota") for limit in LIMITS))
    made.keys.register("ann", who)
    made.ask()
    ended(made, ending)
    found = read(made)
    assert (found.id, found.mode) == (made.exchange.id, "exact")
    assert rebuilt(made, found) == counted(made.counters)


@pytest.mark.parametrize("exclusion", ["internal", "elsewhere"])
def test_what_is_excluded_from_the_bill_charges_what_protects_and_nothing_else(exclusion):
    customers = frozenset({"cust-ann" if exclusion == "internal" else "cust-bob"})
    made = scene(exclusions=[Exclusion("internal", customers=customers)])
    made.ask()
    ended(made, "ok")
    assert rebuilt(made, read(made)) == counted(made.counters)


# Fails if the windows are those of the arrival: the store's clock had chosen the next month's.
def test_the_windows_are_those_that_the_store_chose():
    made = scene(quota(10), EGRESS)
    reserve = made.counters.reserve

    def in_the_next_month(id_, checks, done):
        made.clock.step(40 * 86_400_000_000)
        reserve(id_, checks, done)
        made.clock.step(-40 * 86_400_000_000)

    made.counters.reserve = in_the_next_month
    made.ask()
    ended(made, "ok")
    found = read(made)
    assert not found.checks.covers(made.clock.now_us())
    assert rebuilt(made, found) == counted(made.counters)


def test_an_exchange_that_was_open_at_a_crash_keeps_its_reservation_and_gives_back_slot_and_money():
    made = scene()
    made.ask()
    opened = made.journal.of("open")[-1]
    record = crashed_record(opened.body, opened.id, made.clock.now_us(), "//x/1", 1)
    found = Settlements(made.context.policies.policy).read(opened.id, opened.body, record, 0)
    made.counters.settle(found.id, found.checks, found.actual)
    assert (found.mode, made.counters.used("slots"), made.counters.balance("cust-ann", "usd")) == ("", 0, 10**9)
    usage = orjson.loads(record)["data"]["usage"]
    assert (made.counters.used("monthly"), made.counters.used("egress")) == (usage["requests"], usage["egress_bytes"])


# Fails if a leased exchange's costs are taken for reserved: they are the lease's.
def test_a_leased_exchange_is_settled_by_the_difference():
    made = scene(quota(10), EGRESS)
    made.counters.try_local = lambda _id, checks: Decision(checks, made.clock.now_us(), [9, 9], [0, 0], 0, "leased")
    made.ask()
    ended(made, "ok")
    found = read(made)
    assert (found.mode, found.checks.costs, found.actual) == ("leased", (0, 0), (0, 734))


def test_a_withheld_record_gives_all_back():
    made = scene()
    made.ask()
    ended(made, "ok")
    closed = orjson.loads(made.journal.of("records")[-1].body)
    closed["data"] |= {"outcome": "withheld", "billable": False, "billable_reason": "withheld"}
    opened = made.journal.of("open")[-1]
    found = Settlements(made.context.policies.policy).read(opened.id, opened.body, orjson.dumps(closed), 0)
    assert found.actual == (0,) * len(LIMITS)


def test_what_the_policy_no_longer_names_is_left_out_and_what_it_names_since_is_not_asked():
    made = scene(quota(10), EGRESS)
    made.ask()
    ended(made, "ok")
    found = read(made, policy(EGRESS, RATE))
    assert ([limit.id for limit in found.checks.limits], found.actual) == (["egress"], (1234,))
    assert read(made, policy(RATE)) is None
    assert read(made, policy(EGRESS, routes=[Route("other")])) is None


def test_where_nothing_differs_nothing_need_be_told():
    made = scene(quota(10))
    made.ask()
    ended(made, "ok")
    found = read(made)
    assert changes_nothing(found.checks, found.actual)


def test_the_same_caller_asks_the_same_question():
    made = scene(quota(10))
    reader = Settlements(made.context.policies.policy)
    found = []
    for _ in range(2):
        made.ask()
        ended(made, "ok")
        opened, closed = made.journal.of("open")[-1], made.journal.of("records")[-1]
        found.append(reader.read(closed.id, opened.body, closed.body, 0))
    assert found[0].checks is found[1].checks
