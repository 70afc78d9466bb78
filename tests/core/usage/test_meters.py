"""Mirrors sidecar/core/usage/meters.py."""

import json
from itertools import pairwise
from types import MappingProxyType, SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.policy import Arriving
from sidecar.core.usage import (
    MAX_UNITS,
    QUANTITIES,
    REQUESTS,
    Aggregate,
    Bodies,
    Count,
    Json,
    JsonTest,
    Lookup,
    Measured,
    MeterRule,
    Scaled,
    Sum,
    Usage,
    When,
    meter_for,
    meters_for,
)


class Facts(SimpleNamespace):
    """An exchange with `sent` and `answered` header fields."""

    status = 200
    method = "GET"
    bytes_in = 11
    bytes_out = 22
    duration_us = 1_000_001
    sent = MappingProxyType({})
    answered = MappingProxyType({})
    tap = None

    def request_header(self, name):
        return self.sent.get(name)

    def response_header(self, name):
        return self.answered.get(name)

    @property
    def fields(self):
        return self.sent


def measured(rule, route="r", **facts):
    return meter_for(rule, route).measure(Facts(**facts))


@pytest.mark.parametrize(("status", "units"), [(200, 1), (302, 1), (404, 1), (499, 1), (500, 0), (503, 0), (101, 0)])
def test_a_request_is_an_answer_that_is_not_the_api_s_own_failure(status, units):
    assert measured(REQUESTS, status=status) == units


@pytest.mark.parametrize(
    ("source", "units"),
    [("request.bytes", 11), ("response.bytes", 22), ("duration_ms", 1_001), ("duration_s", 2)],
)
def test_quantities_are_read_from_the_facts_and_started_units_count(source, units):
    assert measured(MeterRule("m", Measured(source))) == units
    assert not meter_for(MeterRule("m", Measured(source)), "r").known


def test_every_quantity_is_tested():
    assert set(QUANTITIES) == {"request.bytes", "response.bytes", "duration_ms", "duration_s"}


@given(st.integers(0, 10**15))
def test_a_duration_is_an_integer_that_is_never_less_than_the_time(duration_us):
    # Kong #14995: the units are in the names. Fails if the division rounds down or is by 10^3 for seconds.
    ms = measured(MeterRule("m", Measured("duration_ms")), duration_us=duration_us)
    s = measured(MeterRule("m", Measured("duration_s")), duration_us=duration_us)
    assert ms * 1_000 - 1_000 < duration_us <= ms * 1_000
    assert s * 1_000_000 - 1_000_000 < duration_us <= s * 1_000_000
    assert isinstance(ms, int)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        (b"17", 17),
        (b"0", 0),
        (None, 0),
        (b"", 0),
        (b"-3", 0),
        (b"1.5", 0),
        (b"1e9", 0),
        (b"\xb2", 0),
        (b"9" * 19, MAX_UNITS),
        (b"9" * 5_000, MAX_UNITS),  # Fails if a number is taken for none where it is long: an API reads it
        (b"0" * 5_000 + b"7", 7),
    ],
)
def test_a_header_holds_a_whole_number_or_nothing(text, units):
    rule = MeterRule("m", Measured("response.header.x-units"))
    assert measured(rule, answered={} if text is None else {b"x-units": text}) == units


def test_a_number_in_a_request_header_is_known_on_arrival():
    meter = meter_for(MeterRule("m", Measured("request.header.x-units")), "r")
    facts = Facts(sent={b"x-units": b"7"})
    assert (meter.known, meter.ask(facts), meter.measure(facts)) == (True, 7, 7)


@pytest.mark.parametrize(("method", "units"), [("GET", 1), ("POST", 5), ("PUT", 2)])
def test_units_are_looked_up_by_method(method, units):
    rule = MeterRule("m", Lookup("method", {"GET": 1, "POST": 5}, 2))
    assert measured(rule, method=method) == meter_for(rule, "r").ask(Facts(method=method)) == units


@pytest.mark.parametrize(("route", "units"), [("chat", 10), ("other", 1)])
def test_units_are_looked_up_by_route_once_and_for_all(route, units):
    rule = MeterRule("m", Lookup("route", {"chat": 10}, 1))
    meter = meter_for(rule, route)
    assert (meter.measure(Facts()), meter.ask(None), meter.asks, meter.needs) == (units, units, set(), set())


@pytest.mark.parametrize(("sent", "units"), [({b"x-tier": b"gold"}, 9), ({b"x-tier": b"tin"}, 1), ({}, 1)])
def test_units_are_looked_up_by_request_header(sent, units):
    rule = MeterRule("m", Lookup("header.x-tier", {"gold": 9}, 1))
    assert measured(rule, sent=sent) == units


def test_a_meter_of_other_routes_is_none_here():
    assert meter_for(MeterRule("m", when=When(routes=frozenset({"chat"}))), "other") is None


def test_all_conditions_must_hold():
    when = When(
        statuses=frozenset({200}),
        methods=frozenset({"POST"}),
        headers=((b"x-a", frozenset({b"1", b"2"})), (b"x-b", frozenset())),
    )
    rule = MeterRule("m", Count(3), when)
    right = {"status": 200, "method": "POST", "sent": {b"x-a": b"2", b"x-b": b""}}
    assert measured(rule, **right) == 3
    for wrong in ({"status": 201}, {"method": "GET"}, {"sent": {b"x-a": b"3", b"x-b": b""}}, {"sent": {b"x-a": b"1"}}):
        assert measured(rule, **(right | wrong)) == 0


def test_what_is_asked_on_arrival_leaves_the_status_open():
    meter = meter_for(MeterRule("m", Count(3), When(statuses=frozenset({200}), methods=frozenset({"POST"}))), "r")
    assert (meter.ask(Facts(method="POST")), meter.ask(Facts(method="GET"))) == (3, 0)


@pytest.mark.parametrize(
    ("rule", "asks", "needs"),
    [
        (MeterRule("m"), set(), set()),
        (REQUESTS, set(), {"status"}),
        (MeterRule("m", when=When(methods=frozenset({"GET"}))), {"method"}, {"method"}),
        (MeterRule("m", Lookup("method", {}, 1)), {"method"}, {"method"}),
        (MeterRule("m", when=When(headers=((b"x", frozenset()),))), {"header"}, {"header", "exchange"}),
        (MeterRule("m", Measured("response.bytes")), set(), {"exchange"}),
        (MeterRule("m", Measured("response.header.x")), set(), {"exchange"}),
    ],
)
def test_a_meter_says_what_it_looks_at(rule, asks, needs):
    # What is not said here is taken as constant by the terms. Fails if a look-up by header leaves "exchange" out.
    meter = meter_for(rule, "r")
    assert (meter.asks, meter.needs) == (asks, needs)


# --- Bodies ----------------------------------------------------------------------------------------------------------


class Tap(Bodies):
    """Bodies, the model that was asked for, and tokens by kind of one adapter."""

    model = ""
    adapter = "openai"
    read = MappingProxyType({})

    def tokens(self, kind, adapter):
        return self.read.get(kind) if adapter in {"", self.adapter} else None

    @property
    def lacks_model(self):
        return not self.known("request", "/model")

    @property
    def lacks_usage(self):
        return not self.known("request")


def tap(request=b"", response=b"", model="", **read):
    found = Tap()
    found.model = model
    found.read = read
    for side, body in (("request", request), ("response", response)):
        found.take(side, body if body is None or isinstance(body, bytes) else json.dumps(body).encode())
    return found


def meter(value, when=None, usage=""):
    return meter_for(MeterRule("m", value, when or When()), "r", usage)


def asked(meter, tap, method="POST", **sent):
    request = SimpleNamespace(method=method, fields={name.encode(): value for name, value in sent.items()})
    return meter.ask(Arriving(request, tap))


def computed(meter, tap, **facts):
    """What is measured, and whether the default stands for it."""
    here = Facts(tap=tap, **facts)
    return meter.measure(here), meter.missing is not None and meter.missing(here)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"meta": {"rows": 17}}, (17, False)),
        ({"meta": {"rows": 0}}, (0, False)),  # litellm #37992: an explicit 0 is not replaced
        ({"meta": {}}, (5, True)),
        ({"meta": {"rows": "17"}}, (5, True)),
        (b"<html>", (5, True)),
        (b"", (5, True)),
        (None, (5, True)),
    ],
)
def test_a_number_in_the_answer_counts_or_its_default_and_that_is_said(body, found):
    rows = meter(Json("response", "/meta/rows", default=5))
    assert computed(rows, tap(response=body)) == found
    assert (rows.known, rows.reads, rows.asks) == (False, {"response"}, set())
    assert rows.ask(None) is None  # what is held for it is the limit's to say


def test_the_items_of_an_array_are_counted():
    assert computed(meter(Json("response", "/data", length=True)), tap(response={"data": [1, 2, 3]})) == (3, False)


@pytest.mark.parametrize(("body", "units"), [({"n": 4}, 4), ({"n": -4}, 2), (None, 2)])
def test_a_number_in_the_request_is_known_on_arrival(body, units):
    images = meter(Json("request", "/n", default=2))
    assert (images.known, images.asks, images.reads) == (True, {"body"}, {"request"})
    assert asked(images, tap(body)) == computed(images, tap(body))[0] == units


def test_without_a_tap_the_default_stands():
    assert computed(meter(Json("request", "/n", default=2)), None) == (2, True)
    assert asked(meter(Json("request", "/n", default=2)), None) == 2
    assert computed(meter(Count(3), When(json_rpc=("a",))), None) == (0, True)


def test_a_pointer_that_is_none_is_refused_on_load():
    with pytest.raises(ValueError, match="pointer"):
        meter(Json("request", "n"))


GOLD = When(json=(JsonTest("request", "/tier", frozenset({"gold"})),))


@pytest.mark.parametrize(
    ("body", "found"),
    [({"tier": "gold"}, (3, False)), ({"tier": "tin"}, (0, False)), ({}, (0, False)), (None, (0, True))],
)
def test_a_field_of_the_body_decides_whether_a_meter_counts(body, found):
    premium = meter(Count(3), GOLD)
    assert computed(premium, tap(body)) == found
    assert asked(premium, tap(body)) == found[0]


def test_what_the_answer_decides_is_held_on_arrival():
    cached = meter(Count(3), When(json=(JsonTest("response", "/cached", frozenset({"false"})),)))
    assert (cached.ask(None), cached.asks) == (3, set())
    assert [computed(cached, tap(response={"cached": hit}))[0] for hit in (True, False)] == [0, 3]


def test_a_head_that_does_not_count_leaves_the_body_alone():
    here = meter(Count(3), When(statuses=frozenset({200}), methods=frozenset({"POST"}), json=GOLD.json))
    assert computed(here, None, status=500, method="POST") == (0, False)
    assert computed(here, None, method="GET") == (0, False)
    assert computed(here, tap({"tier": "gold"}), method="POST") == (3, False)
    assert asked(here, tap({"tier": "gold"}), method="GET") == 0
    assert (here.asks, here.needs) == ({"method", "body"}, {"method", "body", "status", "exchange"})


def call(method):
    return {"jsonrpc": "2.0", "id": 1, "method": method}


COMPUTE = {"eth_getLogs": 75, "eth_call": 26, "trace_*": 100, "trace_b*": 90}


@pytest.mark.parametrize(
    ("body", "units"),
    [
        (call("eth_getLogs"), 75),
        (call("trace_call"), 100),
        (call("trace_block"), 90),  # the glob with more letters
        (call("eth_other"), 10),
        ([call("eth_getLogs"), call("eth_call"), call("eth_other")], 111),
        ([call("eth_call"), 17], 36),
        ({"no": "call"}, 10),
        (b"", 10),
    ],
)
def test_the_calls_of_a_batch_are_looked_up_one_by_one_and_added(body, units):
    weighted = meter(Lookup("json_rpc_method", COMPUTE, 10))
    assert computed(weighted, tap(body)) == (units, False)
    assert asked(weighted, tap(body)) == units


def test_what_is_no_call_matches_no_method_whatever_the_glob():
    every = meter(Count(), When(json_rpc=("*",)))
    assert [computed(every, tap(body))[0] for body in ([call("a"), 1, {}], {"no": "call"}, [])] == [1, 0, 0]


@pytest.mark.parametrize("body", [None, b"{", [call("eth_call")] * 1_001])
def test_calls_that_cannot_be_read_count_as_the_default_says(body):
    assert computed(meter(Lookup("json_rpc_method", COMPUTE, 10)), tap(body)) == (10, True)
    assert computed(meter(Count(), When(json_rpc=("*",))), tap(body)) == (0, True)


@pytest.mark.parametrize(
    ("value", "units"),
    [
        (Count(), 2),  # an archive call each
        (Count(4), 8),
        (Lookup("json_rpc_method", {"trace_call": 7}, 1), 8),
        (Lookup("method", {"GET": 5}), 10),
        (Measured("response.bytes"), 22),  # a quantity of the whole exchange, once
        (Json("response", "/n"), 9),
    ],
)
def test_what_counts_under_a_method_counts_for_each_call_that_matches(value, units):
    archive = meter(value, When(json_rpc=("eth_getLogs", "trace_*")))
    batch = [call("trace_call"), call("eth_call"), call("eth_getLogs"), 1]
    assert computed(archive, tap(batch, {"n": 9})) == (units, False)
    assert computed(archive, tap([call("eth_call")], {"n": 9})) == (0, False)
    assert asked(archive, tap(batch), method="GET") == (units if archive.known else None)
    assert asked(archive, tap([call("eth_call")])) == 0


@pytest.mark.parametrize(
    ("model", "found"), [("gpt-4o", (10, False)), ("gpt-4o-mini", (2, False)), ("o1", (1, False)), ("", (1, True))]
)
def test_units_are_looked_up_by_model(model, found):
    weights = meter(Lookup("model", {"gpt-4*": 10, "gpt-4o-mini": 2}, 1))
    assert computed(weights, tap(model=model)) == found
    assert asked(weights, tap(model=model)) == found[0]


@pytest.mark.parametrize(
    ("rule", "route", "units"),
    [
        (Usage("output", "openai"), "openai", 95),
        (Usage("output"), "openai", 95),
        (Usage("output"), "auto", 95),
        (Usage("output", "anthropic"), "auto", 0),  # another's answer
        (Usage("cache_read"), "openai", 0),  # the answer did not speak of it
    ],
)
def test_tokens_are_those_that_the_answer_told(rule, route, units):
    assert computed(meter(rule, usage=route), tap(output=95)) == (units, False)


def test_tokens_are_read_only_where_such_answers_come():
    # A meter costs nothing on a route that does not use it.
    assert meter(Usage("output")) is None
    assert meter(Usage("output", "openai"), usage="gemini") is None


def test_tokens_are_held_as_estimated_and_as_the_limit_says_where_they_are_not():
    output = meter(Usage("output"), usage="openai")
    assert asked(output, tap(output=512)) == 512
    assert asked(output, tap()) is None
    assert asked(output, tap(output=0)) is None  # Fails if 0 is asked: it passes where nothing is left.
    assert asked(output, None) is None
    assert (output.reads, output.known, output.asks) == ({"request", "response"}, False, {"body"})


def test_tokens_by_model_are_a_meter_under_a_condition():
    large = meter(Usage("output"), When(models=("gpt-4*",)), usage="openai")
    assert [computed(large, tap(model=model, output=9))[0] for model in ("gpt-4o", "o1")] == [9, 0]
    assert [asked(large, tap(model=model, output=9)) for model in ("gpt-4o", "o1")] == [9, 0]


def test_an_exchange_of_which_nothing_was_read_says_so():
    assert computed(meter(Usage("output"), usage="openai"), None) == (0, True)


VALUES = st.sampled_from([
    Count(3), Count(2**60), Measured("response.bytes"), Measured("request.header.x-n"), Usage("output"),
    Json("request", "/n", default=4), Json("response", "/n"), Json("response", "/n", length=True),
    Lookup("json_rpc_method", {"a": 2**60, "b*": 3}, 1), Lookup("model", {"*": 7}, 1), Lookup("method", {"POST": -2}),
])  # fmt: skip
WHENS = st.sampled_from([
    When(), When(json_rpc=("a", "b*")), When(models=("m*",)), When(json=(JsonTest("response", "/n"),)), GOLD,
    When(statuses=frozenset({200}), json_rpc=("*",)),
])  # fmt: skip
BODIES = st.none() | st.binary(max_size=20) | st.sampled_from([
    {"n": 5}, {"n": 2**70}, {"n": [1, 2]}, {"tier": "gold", "method": "a"}, [call("a"), call("bb"), 5],
])  # fmt: skip


@example(Usage("output"), When(), None, None, "", -1)
@example(Usage("output"), When(), None, None, "", 2**60)
@given(VALUES, WHENS, BODIES, BODIES, st.sampled_from(["", "m1"]), st.integers(-5, 2**60))
def test_what_is_measured_is_never_below_zero_nor_above_what_is_counted_exactly(value, when, up, down, model, output):
    here, read = meter(value, when, "auto"), tap(up, down, model, output=output)
    units, _ = computed(here, read, method="POST", sent={b"x-n": b"9" * 19})
    held = asked(here, read, **{"x-n": b"9" * 19})
    assert 0 <= units <= MAX_UNITS
    assert held is None or 0 <= held <= MAX_UNITS


METHODS = st.sampled_from(["a", "b1", "b2", "c", ""])


@given(st.lists(METHODS, min_size=1, max_size=8), st.data(), WHENS)
def test_a_batch_counts_what_its_parts_count_however_it_is_split(methods, data, when):
    # Fails if a batch counts once, or if what is no call counts in a batch only.
    value = data.draw(st.sampled_from([Count(3), Lookup("json_rpc_method", {"a": 5, "b*": 3}, 1)]))
    if not when.json_rpc and isinstance(value, Count):
        return
    here = meter(value, When(json_rpc=when.json_rpc))
    calls = [{"method": method} if method else {"id": 1} for method in methods]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(calls)), max_size=3)) | {0, len(calls)})
    parts = [calls[start:end] for start, end in pairwise(cuts)]
    parts = [part[0] if len(part) == 1 and data.draw(st.booleans()) else part for part in parts]
    whole = computed(here, tap(calls))[0]
    assert whole == sum(computed(here, tap(part))[0] for part in parts)


# Fails if one of the places where a meter reads a header of the request is left out.
@pytest.mark.parametrize(
    ("rule", "headers"),
    [
        (MeterRule("m", Lookup("header.x-tier", {"gold": 2})), {b"x-tier"}),
        (MeterRule("m", Measured("request.header.x-rows")), {b"x-rows"}),
        (MeterRule("m", Measured("response.header.x-rows")), set()),
        (MeterRule("m", Measured("request.bytes")), set()),
        (MeterRule("m", when=When(headers=((b"x-a", frozenset()),))), {b"x-a"}),
        (
            MeterRule("m", Measured("request.header.x-rows"), When(headers=((b"x-a", frozenset()),))),
            {b"x-rows", b"x-a"},
        ),
        (MeterRule("m", Json("request", "/n"), When(headers=((b"x-a", frozenset()),))), {b"x-a"}),
    ],
)
def test_a_meter_tells_the_headers_of_the_request_that_it_reads(rule, headers):
    assert meter_for(rule, "r").headers == headers


RPC = When(json_rpc=("a",))
TWICE = b'{"n":1,"N":2,"method":"a","METHOD":"b","model":"x","model":"y"}'


# review 1.3, hostile F2: what is not read would be free. Fails if a meter that needs a body does not say so, or if one
# that does not apply, or has a default, does.
@pytest.mark.parametrize(
    ("rule", "unread"),
    [
        (MeterRule("m", Count(1), RPC), [None, b"{", TWICE, [{"method": "a"}] * 1001]),
        (MeterRule("m", Lookup("json_rpc_method", {"a": 2}, default=1)), [None, b"{", TWICE]),
        (MeterRule("m", Json("request", "/n")), [None, b"{", TWICE, {"n": "5"}, {"N": 5}]),
        (MeterRule("m", Json("request", "/n", length=True)), [None, {"n": "5"}, {"n": {}}]),
        (MeterRule("m", Count(1), When(json=(JsonTest("request", "/n", frozenset("1")),))), [None, b"{", TWICE]),
        (MeterRule("m", Count(1), When(models=("x",))), [None, b"{", TWICE]),
        (MeterRule("m", Measured("response.bytes"), RPC), [None, TWICE]),
    ],
)
def test_a_meter_without_a_default_says_that_it_cannot_read_what_it_needs(rule, unread):
    here = meter_for(rule, "r")
    request = SimpleNamespace(method="POST", fields={})
    assert [here.unread(Arriving(request, tap(body))) for body in unread] == [True] * len(unread)
    for body in (b"", {}, {"n": None}, {"x": 1}, [{"x": 1}]):
        assert not here.unread(Arriving(request, tap(body)))


def test_a_default_stands_for_what_cannot_be_read():
    assert meter_for(MeterRule("m", Json("request", "/n", default=0)), "r").unread is None
    assert meter_for(MeterRule("m", Lookup("model", {"x": 2}, default=9)), "r").unread is None
    assert meter_for(MeterRule("m", Json("response", "/n")), "r").unread is None
    assert meter_for(REQUESTS, "r").unread is None


def test_what_does_not_apply_needs_no_body():
    posted = MeterRule("m", Count(1), When(methods=frozenset({"POST"}), json_rpc=("a",)))
    for method, needs in (("POST", True), ("GET", False)):
        assert meter_for(posted, "r").unread(Arriving(SimpleNamespace(method=method, fields={}), tap(None))) is needs
    tier = JsonTest("request", "/tier", frozenset({"gold"}))
    gold = meter_for(MeterRule("m", Json("request", "/n"), When(json=(tier,))), "r")
    found = [
        gold.unread(Arriving(SimpleNamespace(method="POST"), tap({"tier": tier, "n": "5"}))) for tier in ("tin", "gold")
    ]
    assert found == [False, True]


def test_tokens_need_what_is_asked_of_the_model_and_not_which_model_it_is():
    tokens = meter_for(MeterRule("m", Usage("output"), When(models=("x",))), "r", "openai")
    for body, unread in ((b"{", True), (b"{}", False)):
        assert tokens.unread(Arriving(SimpleNamespace(method="POST", fields={}), tap(body))) is unread


# Fails if a price is found by the letters alone: APIs take a model in any case.
def test_a_model_is_found_in_any_case():
    prices = meter(Lookup("model", {"GPT-4o": 5, "o1*": 7}, default=1))
    assert [asked(prices, tap(model=model)) for model in ("gpt-4o", " GPT-4O ", "O1-mini", "x")] == [5, 5, 7, 1]
    only = meter(Count(1), When(models=("!gpt-4*",)))
    assert [asked(only, tap(model=model)) for model in ("GPT-4o", "mini")] == [0, 1]


# --- Factors, sums and aggregates ------------------------------------------------------------------------------------

BY_TIER = Lookup("header.x-tier", {"gold": 3}, 2)


@pytest.mark.parametrize(
    ("value", "facts", "units"),
    [
        (Measured("response.bytes"), {"sent": {b"x-tier": b"gold"}}, 66),
        (Measured("response.bytes"), {}, 44),
        (Count(5), {"sent": {b"x-tier": b"gold"}}, 15),
        (Measured("request.header.x-n"), {"sent": {b"x-n": b"7", b"x-tier": b"gold"}}, 21),
        (Measured("request.header.x-n"), {"sent": {b"x-n": b"9007199254740991"}}, MAX_UNITS),
    ],
)
def test_a_quantity_is_multiplied_by_its_factor(value, facts, units):
    # Fails if the factor is added, or if a product is larger than what counters hold.
    assert measured(MeterRule("m", Scaled(value, BY_TIER)), **facts) == units


def test_a_product_is_known_on_arrival_where_its_quantity_is_and_reads_what_both_read():
    early = meter_for(MeterRule("m", Scaled(Measured("request.header.x-n"), BY_TIER)), "r")
    late = meter_for(MeterRule("m", Scaled(Measured("response.bytes"), BY_TIER)), "r")
    assert (early.known, late.known) == (True, False)
    assert early.headers == {b"x-n", b"x-tier"}
    assert late.headers == {b"x-tier"}
    assert early.ask(Facts(sent={b"x-n": b"5"})) == 10
    assert late.ask(Facts()) is None
    assert "exchange" in late.needs


def test_a_factor_by_model_reads_the_request_and_has_its_default_without_one():
    meter = meter_for(MeterRule("m", Scaled(Measured("duration_s"), Lookup("model", {"big*": 10}, 1))), "r")
    assert meter.reads == {"request"}
    assert meter.measure(Facts(tap=SimpleNamespace(model="big-1"))) == 20
    assert meter.missing(Facts(tap=SimpleNamespace(model="")))
    assert meter.measure(Facts(tap=SimpleNamespace(model=""))) == 0


@pytest.mark.parametrize("dim", ["header.x-tier", "method", "model", "route"])
@pytest.mark.parametrize(("calls", "units"), [(("a", "b", "a"), 15), (("b",), 3), ((), 3)])
def test_a_table_by_call_is_multiplied_once_by_the_factor_of_the_exchange(dim, calls, units):
    # Fails if the factor is looked up for a call: a call's method has no header, and the exchange ended with an error.
    value = Lookup("json_rpc_method", {"a": 2}, 1)
    table = {"gold": 3, "GET": 3, "m": 3, "r": 3}
    meter = meter_for(MeterRule("m", Scaled(value, Lookup(dim, table, 1))), "r")
    tap = SimpleNamespace(calls=calls, model="m")
    facts = Facts(tap=tap, sent={b"x-tier": b"gold"})
    assert (meter.measure(facts), meter.ask(Arriving(facts, tap)), meter.known) == (units, units, True)
    unknown = SimpleNamespace(calls=None, model="m")
    assert meter.measure(Facts(tap=unknown)) == 1  # the default of both tables
    assert meter.missing(Facts(tap=unknown))


def test_tokens_are_multiplied_too_and_their_estimate_is_before_the_answer():
    tap = SimpleNamespace(tokens=lambda kind, adapter: 40, lacks_usage=True)
    meter = meter_for(MeterRule("m", Scaled(Usage("output"), BY_TIER)), "r", "openai")
    assert meter.measure(Facts(tap=tap)) == 80
    assert meter.ask(Arriving(Facts(tap=tap), tap)) == 80
    assert meter.holds == set()  # an answer of an AI API is read as it passes
    assert meter.unread(Arriving(Facts(), tap))
    assert meter_for(MeterRule("m", Scaled(Usage("output", "gemini"), BY_TIER)), "r", "openai") is None


RULES = [
    MeterRule("total", Sum((("calls", 100), ("bytes", 1), ("elsewhere", 7)))),
    MeterRule("calls", when=When(methods=frozenset({"GET"}))),
    MeterRule("bytes", Measured("response.bytes")),
    MeterRule("elsewhere", when=When(routes=frozenset({"other"}))),
]


def test_a_sum_is_its_meters_times_their_factors_each_under_its_own_conditions():
    # Fails if a meter that does not apply on the route takes the sum with it.
    total = meters_for(RULES, "r")[0]
    assert [meter.id for meter in meters_for(RULES, "r")] == ["total", "calls", "bytes"]
    assert (total.measure(Facts()), total.measure(Facts(method="POST"))) == (122, 22)
    assert (total.known, total.ask(Facts())) == (False, None)
    assert total.needs >= {"method", "exchange"}
    assert meters_for([MeterRule("s", Sum((("elsewhere", 1),))), RULES[3]], "r") == []


def test_a_sum_of_what_is_known_on_arrival_is_known_on_arrival():
    rules = [MeterRule("s", Sum((("calls", 2), ("n", 3)))), RULES[1], MeterRule("n", Measured("request.header.n"))]
    meter = meters_for(rules, "r")[0]
    assert meter.known
    assert meter.ask(Facts(sent={b"n": b"5"})) == 17
    assert meter.asks == {"method", "header"}
    assert meter.headers == {b"n"}


def test_a_sum_is_unread_or_missing_where_one_of_its_meters_is():
    rows = MeterRule("rows", Json("request", "/n"))
    meter = meters_for([MeterRule("s", Sum((("rows", 2), ("calls", 1)))), rows, RULES[1]], "r")[0]
    request = Facts()
    lacking, whole, empty = Bodies(), Bodies(), Bodies()
    lacking.take("request", b"{")
    whole.take("request", b'{"n": 4}')
    empty.take("request", b"{}")
    assert meter.unread(Arriving(request, lacking))
    assert not meter.unread(Arriving(request, whole))
    assert meter.ask(Arriving(request, whole)) == 9
    assert meter.measure(Facts(tap=whole)) == 9
    assert not meter.missing(Facts(tap=whole))
    assert meter.missing(Facts(tap=empty))
    assert meter.reads == {"request"}


def test_a_count_is_one_for_each_exchange_with_units():
    meter = meter_for(MeterRule("m", Measured("request.header.n"), aggregate=Aggregate("count")), "r")
    for sent, units in ((b"9", 1), (b"1", 1), (b"0", 0)):
        facts = Facts(sent={b"n": sent})
        assert (meter.measure(facts), meter.ask(facts)) == (units, units)
    assert meter_for(MeterRule("m", Measured("response.bytes"), aggregate=Aggregate("count")), "r").ask(Facts()) is None


@pytest.mark.parametrize("kind", ["max", "latest", "unique", "time_weighted"])
def test_the_record_of_an_exchange_has_the_units_whatever_a_period_makes_of_them(kind):
    rule = MeterRule("m", Measured("response.bytes"), aggregate=Aggregate(kind))
    assert measured(rule) == 22
    assert not rule.aggregate.is_additive


def test_a_sum_that_is_counted_says_1_for_each_exchange_with_units():
    # Fails if only a meter of its own is counted: records would say 14, and the sum of the period too.
    counted = MeterRule("s", Sum((("a", 2), ("b", 3))), aggregate=Aggregate("count"))
    parts = [MeterRule(name, Measured(f"request.header.{name}")) for name in ("a", "b")]
    meter = meters_for([counted, *parts], "r")[0]
    sent = Facts(sent={b"a": b"1", b"b": b"4"})
    assert (meter.measure(sent), meter.ask(sent), meter.measure(Facts())) == (1, 1, 0)
