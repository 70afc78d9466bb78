"""Mirrors sidecar/core/record/decisions.py; test_events.py reads the decisions of whole records."""

import orjson
import pytest

from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.limits import Limit, checks_for
from sidecar.core.record.decisions import decision_text, reserved_text

WHO = Identity("k", "s", "c", "free")
NOW_US = 1_795_223_006_000_456
ODD = 'a%b"%d\\%%s":null'
LIMITS = (
    Limit(ODD, "quota", 100, calendar="month"),
    Limit("inflight", "concurrency", 3, period_us=60_000_000),
    Limit("credit.tokens", "priced", 0, meter="tokens", calendar="month", unit="usd"),
    Limit("credit", "balance", 0, unit="usd", period_us=600_000_000),
)


def test_each_limit_states_what_is_used_and_a_balance_what_is_left():
    # Fails if a priced limit is listed, or a number goes into the slot of another.
    checks = checks_for(LIMITS, (7, 1, 5, 0), WHO, NOW_US)
    text = decision_text(Decision(checks, NOW_US, (40, 1, -5, -123), (0,) * 4))
    assert orjson.loads(text) == {
        "mode": "exact",
        "limits": [
            {"id": ODD, "period": "2026-11", "used": 60, "limit": 100},
            {"id": "inflight", "period": "", "used": 2, "limit": 3},
            {"id": "credit", "unit": "usd", "balance": -123},
        ],
    }


def test_a_balance_states_its_scale_and_others_keep_their_figures():
    # Fails if the figures of limits behind a priced one are shifted by it.
    coarse = Limit("credits", "balance", 0, unit="credits", period_us=600_000_000, digits=2)
    checks = checks_for((*LIMITS, coarse), (7, 1, 5, 0, 0), WHO, NOW_US)
    text = decision_text(Decision(checks, NOW_US, (40, 1, -5, -123, 999_999_999), (0,) * 5))
    assert orjson.loads(text)["limits"][2:] == [
        {"id": "credit", "unit": "usd", "balance": -123},
        {"id": "credits", "unit": "credits", "digits": 2, "balance": 999_999_999},
    ]


def test_a_decision_without_limits_is_told_from_none():
    checks = checks_for((), (), WHO, NOW_US)
    assert orjson.loads(decision_text(Decision(checks, NOW_US, (), ()))) == {"mode": "exact", "limits": []}


@pytest.mark.parametrize("meters", [(), ("requests", "tokens")])
def test_what_is_reserved_is_by_meter_and_what_a_limit_holds_less_by_limit(meters):
    limits = (Limit("a", "quota", 9, calendar="day"), Limit("b", "quota", 9, calendar="day"), LIMITS[1])
    text = reserved_text(checks_for(limits, (4, 2, 1), WHO, NOW_US), meters, NOW_US)
    expected = {"reserved": dict.fromkeys(meters, 0) | {"requests": 4}, "costs": {"b": 2}}
    assert orjson.loads(b"{" + text + b"}") == expected
