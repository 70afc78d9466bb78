import json

import pytest
from jsonschema import Draft202012Validator

from sidecar.core.limits import wallet_keys
from sidecar.core.price.book import Posted
from sidecar.core.price.wallet import Grant
from sidecar.core.record import record_schema
from sidecar.core.record.postings import posting_record, wallet_posting

validator = Draft202012Validator(record_schema())
KEY = wallet_keys("cust:9", "credits.2", "acme {1}")[0]
EXCHANGE = "01JD3QWERT0000000000000001"
GRANT = Grant("purchase-1", 3, 1_795_000_000_000_000, 1_800_000_000_000_000, 500, 500, made_us=1_795_223_006_123_456)
MADE_US = GRANT.made_us


def posted(kind, id_, delta, balance=70, charges=""):
    return Posted("1795223006123-0", kind, id_, delta, balance, charges)


def record(row, given=None):
    made = wallet_posting(KEY, row, given, MADE_US)
    if made is None:
        return None
    body = json.loads(posting_record(made, MADE_US, "//sidecar/local/n/0/1", 7))
    assert validator.is_valid(body), list(validator.iter_errors(body))
    return body


def test_a_settle_is_all_that_its_exchange_cost_and_names_it():
    # Fails if the delta is that of the settle alone: what was held before would never be on the stream.
    body = record(posted("settle", EXCHANGE, 10, 80, "tokens 5 20 calls 1 3"))
    assert body["data"] == {
        "customer": "cust:9", "account": "acme {1}", "unit": "credits", "digits": 2, "change": "settle",
        "delta": -23, "balance": 80,
        "charges": [{"meter": "tokens", "units": 5, "amount": 20}, {"meter": "calls", "units": 1, "amount": 3}],
    }  # fmt: skip
    assert body["causationid"] == EXCHANGE
    assert body["subject"] == body["partitionkey"] == "cust:9"
    assert body["id"][:10] == EXCHANGE[:10]


def test_what_a_correction_gives_back_is_a_settle_with_units_below_zero():
    # Fails if the schema refuses it: every record of a node with corrections would be wrong.
    body = record(posted("settle", EXCHANGE, 20, 90, "tokens -2 -20"))
    assert (body["data"]["delta"], body["data"]["charges"][0]["units"]) == (20, -2)


def test_a_grant_has_its_figures_and_no_exchange():
    body = record(posted("grant", "purchase-1", 500, 500), GRANT)
    assert body["data"]["change"] == "grant"
    assert (body["data"]["grant"], body["data"]["priority"]) == ("purchase-1", 3)
    assert body["data"]["starts"].startswith("2026-11-18T")
    assert body["data"]["expires"].startswith("2027-01-15T")
    assert "causationid" not in body


def test_a_grant_that_never_expires_says_no_end():
    body = record(posted("grant", "g", 5, 5), GRANT._replace(starts_us=0, expires_us=0))
    assert not {"starts", "expires"} & body["data"].keys()


@pytest.mark.parametrize(
    ("kind", "id_", "change"),
    [("void", "g1", "void"), ("expire", "g1", "expiry"), ("rollover", "g1", "rollover"), ("lost", EXCHANGE, "expiry")],
)
def test_what_a_wallet_loses_is_on_the_stream_with_its_delta(kind, id_, change):
    body = record(posted(kind, id_, -40))
    assert (body["data"]["change"], body["data"]["delta"]) == (change, -40)
    assert body["data"].get("grant") == (None if kind == "lost" else id_)
    assert body.get("causationid") == (EXCHANGE if kind == "lost" else None)


@pytest.mark.parametrize(
    "row",
    [
        posted("reserve", EXCHANGE, -30),  # its settle says what it cost
        posted("release", EXCHANGE, 30),  # all came back
        posted("expire", "g1", 0),  # a used-up grant made room
        posted("settle", EXCHANGE, 30),  # nothing was used; all came back. Also all settles of version 0.1
    ],
)
def test_what_changes_no_balance_in_the_end_is_not_on_the_stream(row):
    assert record(row) is None


def test_a_release_that_keeps_something_says_how_much():
    body = record(posted("release", EXCHANGE, 250, 250, "* 0 50"))
    assert (body["data"]["change"], body["data"]["delta"]) == ("release", -50)
    assert "charges" not in body["data"]


def test_the_same_posting_has_the_same_id_and_any_other_has_another():
    # Fails if the wallet, its scale, the kind or the id is left out of it.
    rows = [posted("void", "g1", -1), posted("expire", "g1", -1), posted("void", "g2", -1)]
    rows += [posted("settle", EXCHANGE, -1, charges="t 1 1"), posted("lost", EXCHANGE, -1)]
    keys = [KEY, wallet_keys("cust:9", "credits", "acme {1}")[0], wallet_keys("cust:8", "credits.2", "acme {1}")[0]]
    ids = [wallet_posting(key, row, None, MADE_US).id for key in keys for row in rows]
    assert len(set(ids)) == len(ids)
    assert ids == [wallet_posting(key, row._replace(balance=1), None, MADE_US).id for key in keys for row in rows]
