"""Mirrors sidecar/core/decision/saved.py: what is written as rows comes back as it was."""

import json

from sidecar.core.decision import Hold
from sidecar.core.decision.saved import ROW_POSTINGS, rows_of, writes_of
from sidecar.core.decision.wallet_charges import Part
from sidecar.core.limits import NEVER_US
from sidecar.core.price import Price, Tier
from sidecar.core.price.wallet import Grant, Wallet

GRANT = Grant("g1", 1, 2, 3, 4, 3, 5, 6, 7)
PRICE = Price("graduated", 0, 3, (Tier(10, 7), Tier(None, 5)), 2)


def back(key, value, expire_us=9):
    """The value after its rows have been JSON, and the expiry of each."""
    found, expiries = {}, set()
    for row in rows_of(key, value, expire_us):
        for name, member, stored, until_us in writes_of(json.loads(json.dumps(row))):
            expiries.add(until_us)
            if member is None:
                found[name] = stored
            else:
                found.setdefault(name, {})[member] = stored
    return found.get(key), expiries


def test_counts_and_times_come_back_with_their_expiry():
    assert back("k", 41) == (41, {9})
    assert back("k", (17, 2)) == ((17, 2), {9})


# Fails if a part of a price, or the newest top-up, is left out.
def test_a_wallet_comes_back_with_its_ledger_its_grants_and_its_holds():
    for value in (
        Wallet((GRANT, GRANT._replace(id="g2")), 5, -7, (8, 9, "g2")),
        {4096 * number: ("reserve", f"id{number}", -number, 100 - number) for number in range(2 * ROW_POSTINGS + 1)},
        {b"g1": GRANT},
        {b"0" * 26: Hold(12, 30, (Part("c", 3, 30, PRICE), Part("d", 1, 2, Price("per_unit", 2))))},
    ):
        assert back("k", value, 0) == (value, {NEVER_US})


def test_a_long_ledger_has_several_rows():
    ledger = {number: ("settle", "x", 1, number) for number in range(10_000)}
    assert len(list(rows_of("k", ledger, 0))) == 10_000 // ROW_POSTINGS


# Fails if slots are saved: they would be held by exchanges that ended with their process.
def test_slots_marks_and_empty_maps_are_not_kept():
    for value in ({b"0" * 26: 17}, {b"0" * 26: "s0"}, {}):
        assert back("k", value) == (None, set())
