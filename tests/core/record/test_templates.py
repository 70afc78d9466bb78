"""Mirrors sidecar/core/record/templates.py."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.limits import Limit, checks_for
from sidecar.core.record import Facts, RecordTemplates, open_entry, templates_for, usage_record
from sidecar.core.record.decisions import reserved_text
from sidecar.core.record.fields import fields_of, read_data

WHO = Identity("k%d", "app", "cust%b", "pro", zone="Europe/Berlin", anchor_us=7, plan_since="2026-11-20T08:00:00Z")
LIMITS = (Limit("m%d", "quota", 1_000_000, calendar="month"), Limit("burst", "rate", 10, per=5, period_us=1_000_000))
NOW_US = 1_795_223_006_000_456
CHECKS = [checks_for(LIMITS, costs, WHO, NOW_US) for costs in ((1, 1), (2, 2))]
LINES = [{"model": "m", "kinds": {"output": 7}}]
# Of each member the values that it has in a test; the first is the usual one.
MEMBERS = {
    "path": ["/a%62", "/b", "/\udc80"],
    "status": [200, 404],
    "usage": [{"requests": 1}, {"requests": 1, "bytes": 7}],
    "quality": ["exact", "partial"],
    "billable": [True, False],
    "billable_reason": ["plan:pro", "odd%s"],
    "outcome": ["ok", "client_gone"],
    "attempts": [1, 2],
    "traceparent": ["", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
    "dims": [{}, {"model": "m"}],
    "usage_lines": [[], LINES],
    "parent": ["", "01JD3QWERT0000000000000007"],
    "upstream_request_id": ["", 'req_"1', "req_2"],
    "client_request_id": ["", "edge-4711"],
    "client_disconnected": [False, True],
    "checks": [*CHECKS, None],
    "mode": ["exact", "leased"],
    "verdict": [0, 2, 64, 66],  # allowed, violated, shadowed
    "decided_us": [NOW_US, NOW_US + 1_000_000, NOW_US - 10_000_000],
    "source": ["//here/1", "//here/%d\xff"],
}


class Exchange(Facts):
    """An exchange; of each member that `picked` names the n-th value, and of the others the first."""

    def __init__(self, templates, picked, number, identity=WHO):
        values = {name: each[picked.get(name, 0)] for name, each in MEMBERS.items()}
        checks, mode, verdict, decided_us, self.source = (
            values.pop(name) for name in ("checks", "mode", "verdict", "decided_us", "source")
        )
        self.decision = checks and Decision(checks, decided_us, [number, number + 1], [5, 6], verdict, mode)
        for name, value in values.items():
            setattr(self, name, value)
        self.id = b"%026d" % number
        self.identity, self.plan, self.route, self.method = identity, "pro@3", "all%d", "GET"
        self.bytes_in, self.bytes_out, self.duration_us, self.upstream_us = number, number + 1, number + 2, number + 3
        self.arrived_us = NOW_US + number
        self.templates = templates


def rendered(exchange, number):
    return open_entry(exchange, NOW_US + number), usage_record(exchange, NOW_US + number, exchange.source, number)


ODD = [{}, *({name: n} for name, values in MEMBERS.items() for n in range(1, len(values)))]


@given(st.lists(st.sampled_from(ODD), min_size=2, max_size=12), st.sampled_from([WHO, None]))
def test_a_record_is_what_its_fields_read_whatever_was_rendered_before(odds, identity):
    # Fails if any one slot is not rendered again when its value has changed, or is not filled at first.
    templates = RecordTemplates()
    for number, odd in enumerate(odds):
        exchange = Exchange(templates, odd, number, identity)
        record = orjson.loads(rendered(exchange, number)[1])
        kind = "usage" if identity is not None else "unattributed"
        assert record["type"] == f"sidecar.{kind}.v1"
        path = exchange.path.encode("utf-8", "backslashreplace").decode()
        assert record["data"] == orjson.loads(orjson.dumps(read_data(exchange, fields_of(kind)) | {"path": path}))
        assert (record["id"], record["sequence"]) == (exchange.id.decode(), f"{number:018d}")
        assert record.get("traceparent", "") == exchange.traceparent
        assert record["source"] == exchange.source


@pytest.mark.parametrize("odd", ODD[1:], ids="-".join)
def test_one_that_differs_among_those_that_do_not_is_rendered_as_by_a_new_template(odd):
    templates = RecordTemplates()
    for number, picked in enumerate([{}, {}, {}, odd, {}, {}, odd, odd, odd, {}]):
        exchange, alone = Exchange(templates, picked, number), Exchange(RecordTemplates(), picked, number)
        assert rendered(exchange, number) == rendered(alone, number)


def test_an_open_entry_has_what_a_start_needs_to_close_it():
    # `account` and `origin` are left out: they have the values that a record of a crash gives them without.
    exchange = Exchange(RecordTemplates(("requests", "bytes")), {"parent": 1, "traceparent": 1}, 4)
    assert orjson.loads(rendered(exchange, 4)[0]) == {
        "time_us": NOW_US + 4,
        "traceparent": exchange.traceparent,
        "parent": exchange.parent,
        "subject": "app",
        "zone": "Europe/Berlin",
        "anchor_us": 7,
        "customer": "cust%b",
        "key_id": "k%d",
        "plan_since": "2026-11-20T08:00:00Z",
        "plan": "pro@3",
        "route": "all%d",
        "method": "GET",
        "path": "/a%62",
        "reserved": {"requests": 1, "bytes": 0},
    }


@pytest.mark.parametrize("time_us", [0, 7, 999_999, 1_000_000, 1_000_007, NOW_US])
def test_the_time_of_an_open_entry_is_a_number_of_json(time_us):
    # Fails with zeros in front, and if the second of the entry before is kept.
    templates = RecordTemplates()
    for each_us in (NOW_US, time_us):
        assert orjson.loads(open_entry(Exchange(templates, {}, 1), each_us))["time_us"] == each_us


def test_an_open_entry_that_arrived_in_another_window_names_an_instant_of_its_own():
    # Fails if the text of another exchange with the same checks is taken, whatever the time.
    templates = RecordTemplates()
    before_us = CHECKS[0].from_us - 5
    entries = [orjson.loads(open_entry(Exchange(templates, {}, 1), time_us)) for time_us in (NOW_US, before_us, NOW_US)]
    assert "at_us" not in entries[0]
    assert entries[1]["at_us"] == CHECKS[0].from_us
    assert b"at_us" in reserved_text(CHECKS[0], (), before_us)


def test_a_caller_has_one_set_of_templates_for_all_its_heads():
    arguments = (WHO, "pro@3", "all", "GET", ("requests",))
    assert templates_for(*arguments) is templates_for(*arguments)
    assert templates_for(*arguments) is not templates_for(WHO, "pro@4", "all", "GET", ("requests",))
