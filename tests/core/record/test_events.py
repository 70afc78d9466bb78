import timeit
from dataclasses import replace

import jsonschema
import orjson
import pytest

from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.record import (
    Checkpoint,
    Denied,
    Facts,
    RecordTemplates,
    Totals,
    checkpoint_record,
    crashed_record,
    denial_record,
    open_entry,
    record_schema,
    usage_record,
)
from sidecar.core.record.events import DenialSummary, denial_summary_record

ID = b"01JD3QWERT0000000000000001"
NOW_US = 1_795_223_006_123_456  # 2026-11-21T01:03:26.123456Z
SOURCE = "//sidecar/eu-1/gw-3/7/12"
WHO = Identity("k_7f", "app-42", "cust-9", "pro")
LIMITS = (
    Limit("monthly", "quota", 1_000_000, calendar="month", scope="customer"),
    Limit("burst", "rate", 10, per=5, period_us=1_000_000),
)
VALIDATOR = jsonschema.Draft202012Validator(record_schema())


class Exchange(Facts):
    def __init__(self, **other):
        self.id, self.identity = ID, WHO
        self.plan, self.route, self.method, self.path, self.status = (
            "pro@3",
            "chat",
            "POST",
            "/v1/chat/completions",
            200,
        )
        self.decision, self.traceparent, self.arrived_us = None, "", NOW_US - 5_000
        self.bytes_in, self.bytes_out, self.duration_us, self.upstream_us, self.attempts = 310, 5120, 1234, 1100, 1
        self.outcome, self.quality, self.billable, self.billable_reason = "ok", "exact", True, "plan:pro"
        self.client_disconnected, self.dims, self.usage_lines, self.usage = (
            False,
            {},
            [],
            {"requests": 1, "input_tokens": 812},
        )
        for name, value in other.items():
            setattr(self, name, value)
        self.templates = RecordTemplates()


def decided(**other):
    checks = checks_for(LIMITS, (1, 1), WHO, NOW_US)
    return Decision(**{"checks": checks, "now_us": NOW_US, "remaining": (995_289, 9), "reset_us": (0, 0), **other})


def read(record):
    event = orjson.loads(record)
    VALIDATOR.validate(event)
    return event


def test_a_usage_record_says_who_used_what_by_which_decision():
    facts = Exchange(
        decision=decided(now_us=NOW_US - 3_456), dims={"model": "gpt-4.1"}, traceparent=f"00-{'a' * 32}-{'b' * 16}-01"
    )
    assert read(usage_record(facts, NOW_US, SOURCE, 1234)) == {
        "specversion": "1.0",
        "type": "sidecar.usage.v1",
        "source": SOURCE,
        "dataschema": "urn:sidecar:schema/usage.v1.json",
        "id": ID.decode(),
        "subject": "app-42",
        "partitionkey": "cust-9",
        "time": "2026-11-21T01:03:26.123456Z",
        "sequence": "000000000000001234",
        "traceparent": facts.traceparent,
        "data": {
            "customer": "cust-9",
            "account": "cust-9",
            "key_id": "k_7f",
            "plan": "pro@3",
            "route": "chat",
            "method": "POST",
            "origin": "proxied",
            "period_time": "2026-11-21T01:03:26.120000Z",
            "path": "/v1/chat/completions",
            "status": 200,
            "usage": {"requests": 1, "input_tokens": 812},
            "quality": "exact",
            "billable": True,
            "billable_reason": "plan:pro",
            "outcome": "ok",
            "dims": {"model": "gpt-4.1"},
            "duration_us": 1234,
            "upstream_us": 1100,
            "bytes_in": 310,
            "bytes_out": 5120,
            "attempts": 1,
            "client_disconnected": False,
            "decision": {
                "mode": "exact",
                "limits": [
                    {"id": "monthly", "period": "2026-11", "used": 4711, "limit": 1_000_000},
                    {"id": "burst", "period": "", "used": 1, "limit": 10},
                ],
            },
        },
    }


def test_who_is_nobody_makes_a_record_of_its_own_kind():
    # Kong metering plugin: a call with no subject was not recorded
    event = read(usage_record(Exchange(identity=None, plan="", billable=False), NOW_US, SOURCE, 1))
    assert event["type"] == "sidecar.unattributed.v1"
    assert "customer" not in event["data"]


def test_a_denial_names_the_limit_and_no_usage():
    event = read(denial_record(Exchange(status=429, decision=decided(verdict=2)), NOW_US, f"{SOURCE}/denials", 7))
    assert event["type"] == "sidecar.denial.v1"
    assert event["data"]["decision"]["violated"] == "burst"
    assert "usage" not in event["data"]


@pytest.mark.parametrize("customer", ["cust-9", ""])
def test_a_summary_says_how_many_denials_of_a_kind_have_no_record_and_when(customer):
    denied = Denied(customer, "free@1", "monthly", "quota-exceeded", 429)
    summary = DenialSummary(denied, 88_482, NOW_US, NOW_US + 8_000_000)
    event = read(denial_summary_record(summary, ID, NOW_US + 9_000_000, f"{SOURCE}/denials", 7))
    assert event["type"] == "sidecar.denial-summary.v1"
    assert (event.get("subject", ""), event["partitionkey"]) == (customer, customer or f"{SOURCE}/denials")
    assert event["data"] == {
        **denied._asdict(),
        "count": 88_482,
        "first": "2026-11-21T01:03:26.123456Z",
        "last": "2026-11-21T01:03:34.123456Z",
    }


@pytest.mark.parametrize(("mode", "said"), [("exact", "shadow"), ("degraded", "degraded"), ("leased", "leased")])
def test_what_only_would_have_been_denied_is_named(mode, said):
    event = read(usage_record(Exchange(decision=decided(verdict=128, mode=mode)), NOW_US, SOURCE, 1))
    assert event["data"]["decision"]["mode"] == said
    assert event["data"]["decision"]["shadowed"] == ["burst"]


def test_a_denial_whose_usage_is_unknown_names_the_limit_and_no_figures():
    denied = decided(verdict=1, mode="degraded")
    denied.unknown = "lost"
    event = read(denial_record(Exchange(decision=denied, status=429), NOW_US, SOURCE, 1))
    assert event["data"]["decision"] == {"mode": "degraded", "violated": "monthly", "limits": []}


def test_a_balance_says_what_is_left_and_what_it_pays_for_stays_out():
    limits = (
        Limit("credit.input", "priced", 0, meter="input_tokens", calendar="month", unit="usd"),
        LIMITS[0],
        Limit("credit%d", "balance", 0, unit="usd", period_us=600_000_000),
    )
    decision = Decision(checks_for(limits, (812, 1, 0), WHO, NOW_US), NOW_US, (-900, 995_289, 49_500_000_000), (0,) * 3)
    event = read(usage_record(Exchange(decision=decision), NOW_US, SOURCE, 1))
    assert event["data"]["decision"]["limits"] == [
        {"id": "monthly", "period": "2026-11", "used": 4711, "limit": 1_000_000},
        {"id": "credit%d", "unit": "usd", "balance": 49_500_000_000},
    ]
    opened = orjson.loads(open_entry(Exchange(decision=decision), NOW_US))
    assert opened["reserved"] == {"input_tokens": 812, "requests": 1}


@pytest.mark.parametrize("digits", [0, 2, 9])
def test_a_balance_says_in_which_scale_it_is_unless_that_is_nine_digits(digits):
    limit = Limit("credit", "balance", 0, unit="credits", period_us=600_000_000, digits=digits)
    decision = Decision(checks_for((limit,), (0,), WHO, NOW_US), NOW_US, (10**9,), (0,))
    event = read(usage_record(Exchange(decision=decision), NOW_US, SOURCE, 1))
    [item] = event["data"]["decision"]["limits"]
    assert (item["balance"], item.get("digits", 9)) == (10**9, digits)
    assert ("digits" in item) == (digits != 9)


def test_a_plan_that_was_changed_says_since_when():
    facts = Exchange(identity=replace(WHO, plan_since="2026-11-20T08:00:00Z"), decision=decided(verdict=1))
    crashed = crashed_record(open_entry(facts, NOW_US), ID, NOW_US, SOURCE, 1)
    for record in (usage_record(facts, NOW_US, SOURCE, 1), denial_record(facts, NOW_US, SOURCE, 1), crashed):
        assert read(record)["data"]["plan_since"] == "2026-11-20T08:00:00Z"


def test_a_checkpoint_says_how_far_and_how_much():
    said = Checkpoint({"records": 12, "denials": 3}, {"requests": 9}, 2, 4096, 0, 0, "ab12")
    event = read(checkpoint_record(said, ID, NOW_US, SOURCE, 13))
    assert event["data"]["highest"] == {"records": 12, "denials": 3}
    assert event["partitionkey"] == SOURCE
    del event["data"]["denials"]  # as those of 0.1 are
    VALIDATOR.validate(event)


@pytest.mark.parametrize("identity", [WHO, None])
@pytest.mark.parametrize("decision", [decided(), None])
def test_what_was_open_at_a_crash_is_billed_no_more_and_explained(identity, decision):
    opened = open_entry(Exchange(identity=identity, decision=decision), NOW_US)
    event = read(crashed_record(opened, ID, NOW_US + 5_000_000, SOURCE, 1))
    assert event["data"]["outcome"] == "crashed"
    assert event["data"]["quality"] == "partial"
    assert event["data"]["billable"] is False
    assert event["data"]["duration_us"] == 5_000_000
    assert event["data"]["usage"] == ({"requests": 1} if decision else {})


def test_a_clock_that_stepped_back_makes_no_negative_duration():
    opened = open_entry(Exchange(), NOW_US)
    assert read(crashed_record(opened, ID, NOW_US - 1, SOURCE, 1))["data"]["duration_us"] == 0


HOSTILE = 'a"b\\c\n\x00%d{}\u2028é\U0001f600'


def test_no_value_can_spell_another_field():
    # Fails if a fragment is put in without being escaped.
    who = Identity(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    limit = Limit(HOSTILE, "quota", 5, calendar="day", zone="UTC")
    decision = Decision(checks_for((limit,), (1,), who, NOW_US), NOW_US, (4,), (0,))
    facts = Exchange(
        identity=who, plan=HOSTILE, route=HOSTILE, path=HOSTILE, usage={HOSTILE: 1}, billable_reason=HOSTILE,
        dims={HOSTILE: HOSTILE}, decision=decision,
    )  # fmt: skip
    event = read(usage_record(facts, NOW_US, SOURCE, 1))
    data = event["data"]
    assert {event["subject"], event["partitionkey"], data["customer"], data["plan"], data["path"]} == {HOSTILE}
    assert data["usage"] == {HOSTILE: 1}
    assert data["decision"]["limits"] == [{"id": HOSTILE, "period": "2026-11-21", "used": 1, "limit": 5}]
    crashed = read(crashed_record(open_entry(facts, NOW_US), ID, NOW_US, SOURCE, 1))
    assert crashed["data"]["path"] == HOSTILE
    assert read(denial_record(Exchange(decision=decided(verdict=1), path=HOSTILE), NOW_US, SOURCE, 1))


def test_a_lone_surrogate_costs_no_record():
    assert read(usage_record(Exchange(path="/\udc80"), NOW_US, SOURCE, 1))["data"]["path"] == "/\\udc80"


def test_every_second_has_its_own_time():
    times = [read(usage_record(Exchange(), NOW_US + step, SOURCE, 1))["time"] for step in (0, 876_543, 876_544)]
    assert times == ["2026-11-21T01:03:26.123456Z", "2026-11-21T01:03:26.999999Z", "2026-11-21T01:03:27.000000Z"]


def test_totals_add_up_by_meter():
    totals = Totals()
    totals.add({"requests": 1, "tokens": 5})
    totals.add({"requests": 1, "bytes": 0})
    assert totals.units == {"requests": 2, "tokens": 5, "bytes": 0}


def test_a_record_costs_a_few_microseconds():
    facts = Exchange(decision=decided())
    rounds = 2_000
    best = min(timeit.repeat(lambda: usage_record(facts, NOW_US, SOURCE, 9), number=rounds, repeat=7)) / rounds
    print(f"usage record: {best * 1e6:.2f} µs")
    assert best < 30e-6  # ten times what it takes, for slow machines
