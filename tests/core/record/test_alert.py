import json
from dataclasses import replace

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for, id_us, left_at
from sidecar.core.policy import Limit
from sidecar.core.record import alert_record, record_schema
from sidecar.core.record.alert import TopUp, balance_alert, balance_counter, window_alert

NOW_US = 1_763_692_406_000_000  # 2025-11-21T02:33:26Z
ANN = Identity("k_ann", "app-ann", "cust-ann", "free")
MONTHLY = Limit("monthly", "quota", 10_000, calendar="month", scope="customer", alerts=(50, 80, 100))
LINKED = replace(MONTHLY, link="https://example.com/upgrade")


def alert(limit=LINKED, who=ANN, percent=80, used=8_123, now_us=NOW_US):
    checks = checks_for((limit,), (1,), who, now_us)
    return window_alert(Decision(checks, now_us, (limit.amount - used,), (0,)), 0, percent)


def record(*args, **more):
    body = alert_record(alert(*args, **more), "free@3", NOW_US, "//sidecar/eu/n/1/4", 17)
    return json.loads(body)


def test_a_record_says_what_passed_which_threshold():
    said = record()
    assert {name: value for name, value in said.items() if name not in {"id", "data"}} == {
        "specversion": "1.0",
        "type": "sidecar.alert.v1",
        "source": "//sidecar/eu/n/1/4",
        "dataschema": "urn:sidecar:schema/alert.v1.json",
        "subject": "cust-ann",
        "partitionkey": "cust-ann",
        "time": "2025-11-21T02:33:26.000000Z",
        "sequence": "000000000000000017",
    }
    assert said["data"] == {
        "customer": "cust-ann",
        "account": "cust-ann",
        "plan": "free@3",
        "limit": "monthly",
        "scope": "customer",
        "meter": "requests",
        "period": "2025-11",
        "percent": 80,
        "used": 8_123,
        "amount": 10_000,
        "link": "https://example.com/upgrade",
    }


@pytest.mark.parametrize("scope", ["key", "subject", "customer"])
@pytest.mark.parametrize("limit", [MONTHLY, LINKED, Limit("w", "window", 5, period_us=60_000_000, alerts=(1,))])
def test_every_alert_meets_the_schema(scope, limit):
    said = record(replace(limit, scope=scope), percent=limit.alerts[0], used=limit.amount)
    assert list(jsonschema.Draft202012Validator(record_schema()).iter_errors(said)) == []
    assert ("key_id" in said["data"]) == (scope == "key")
    assert said["subject"] == ("cust-ann" if scope == "customer" else "app-ann")


def test_the_id_is_made_of_what_the_alert_is_about_and_of_nothing_else():
    # Mutation: the id is minted, or made of `used`: then a copy cannot be known for one.
    assert alert().id == alert(used=9_999, now_us=NOW_US + 86_400_000_000).id == alert(replace(LINKED, amount=9_000)).id
    others = [
        alert(percent=50),
        alert(who=replace(ANN, customer="cust-bob")),
        alert(replace(LINKED, id="other")),
        alert(replace(LINKED, scope="key")),
        alert(now_us=NOW_US + 31 * 86_400_000_000),
    ]
    assert len({each.id for each in [alert(), *others]}) == 6


def test_the_id_sorts_among_the_others_at_its_period_s_start():
    found = alert().id
    assert len(found) == 26
    assert id_us(found) == 1_761_955_200_000_000  # 2025-11-01T00:00:00Z


@given(st.text(max_size=40), st.text(min_size=1, max_size=40), st.integers(1, 100))
def test_no_counter_of_any_limit_has_the_name_of_a_claim(customer, limit, percent):
    # Nor could a limit "alert" have: its counters' keys have fewer parts.
    who = replace(ANN, customer=customer, subject=limit)
    found = alert(replace(MONTHLY, id=limit, scope="subject"), who, percent)
    assert found.key.startswith(found.counter.partition("}")[0] + "}:alert:")
    assert found.key.count(":") >= 6
    for kind in ({"kind": "quota"}, {"kind": "window", "period_us": 60_000_000}):
        named = checks_for((replace(MONTHLY, id="alert", **kind),), (1,), who, NOW_US)
        assert all(key.count(":") <= 5 for keys in named.keys for key in keys)


@given(st.integers(1, 2**51), st.integers(1, 100), st.integers(0, 2**52))
def test_a_threshold_stands_passed_exactly_where_so_many_percent_are_used(amount, percent, used):
    # Mutation: rounded up.
    assert (amount - used <= left_at(amount, percent)) == (used * 100 >= percent * amount)


CREDIT = Limit("credit", "balance", 0, unit="credits", period_us=600_000_000, alerts=(50,), digits=2)


def balance(limit):
    checks = checks_for((limit,), (0,), ANN, NOW_US)
    topped = TopUp("purchase-1", NOW_US, 1_000, balance_counter(checks, 0, "purchase-1"))
    return balance_alert(Decision(checks, NOW_US, (400,), (0,)), 0, 50, topped)


def test_an_alert_of_a_balance_says_the_scale_of_its_figures():
    said = json.loads(alert_record(balance(CREDIT), "pro@3", NOW_US, "//sidecar/eu/n/1/4", 17))
    assert list(jsonschema.Draft202012Validator(record_schema()).iter_errors(said)) == []
    data = said["data"]
    assert (data["unit"], data["digits"], data["used"], data["amount"]) == ("credits", 2, 600, 1_000)
    plain = json.loads(alert_record(balance(replace(CREDIT, digits=9)), "pro@3", NOW_US, "//sidecar/eu/n/1/4", 17))
    assert "digits" not in plain["data"]


def test_the_same_purchase_in_a_wallet_of_another_scale_has_an_alert_of_its_own():
    # Fails if the scale is not in the claim's key: what was told of the wallet before would silence the new one.
    assert balance(CREDIT).key == "sc:{cust-ann}:alert:b=credit:ccust-ann:gpurchase-1:2:50"
    assert balance(replace(CREDIT, digits=9)).key == "sc:{cust-ann}:alert:b=credit:ccust-ann:gpurchase-1:50"
    assert len({balance(replace(CREDIT, digits=digits)).id for digits in range(10)}) == 10
