"""Mirrors sidecar/core/usage/meters.py."""

from types import MappingProxyType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.usage import (
    MAX_UNITS,
    QUANTITIES,
    REQUESTS,
    Count,
    Lookup,
    Measured,
    MeterRule,
    When,
    billing,
    meter_for,
)


class Facts(SimpleNamespace):
    """An exchange with `sent` and `answered` header fields."""

    status = 200
    method = "GET"
    request_bytes = 11
    response_bytes = 22
    duration_us = 1_000_001
    sent = MappingProxyType({})
    answered = MappingProxyType({})

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
        (b"9" * 5_000, 0),
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


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"plan": "pro", "status": 200}, (True, "plan:pro")),
        ({"plan": "pro", "status": 404}, (True, "plan:pro")),
        ({"plan": "pro", "status": 500}, (False, "upstream_5xx")),
        ({"plan": "pro", "status": 200, "test": True}, (False, "test_key")),
        ({"plan": "", "status": 200}, (False, "unattributed")),
        ({"plan": "pro", "status": 200, "outcome": "client_gone"}, (True, "plan:pro")),  # what was consumed is consumed
        ({"plan": "pro", "status": 200, "outcome": "upstream_truncated"}, (False, "upstream_truncated")),
        ({"plan": "pro", "status": 504, "outcome": "upstream_timeout"}, (False, "upstream_timeout")),
        ({"plan": "pro", "status": 502, "outcome": "bad_upstream_answer"}, (False, "bad_upstream_answer")),
        ({"plan": "pro", "status": 101, "outcome": "tunnel"}, (True, "plan:pro")),
        ({"plan": "pro", "status": 0, "outcome": "aborted"}, (False, "aborted")),
        ({"plan": "pro", "status": 500, "test": True, "outcome": "aborted"}, (False, "test_key")),
    ],
)
def test_each_exchange_is_billable_or_not_for_one_stated_reason(facts, said):
    assert billing(**facts) == said
