"""Mirrors sidecar/core/decision/state.py."""

from sidecar.core.decision.state import PARTS, State
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for, marks_stem_beside
from sidecar.core.policy import Limit

MANY = Limit("many", "quota", 5, calendar="month", scope="subject")
SLIDING = Limit("sliding", "window", 5, period_us=60_000_000, scope="key")
CREDIT = Limit("credit", "balance", 0, scope="customer", unit="usd", period_us=60_000_000)


# Fails if a part is chosen by the key and not by its customer: a slice would hold half of a wallet.
def test_all_that_one_question_asks_of_is_in_one_part():
    state = State()
    for name in ("acme", "a}:b", "", "é"):
        checks = checks_for((MANY, SLIDING, CREDIT), (1, 1, 0), Identity("k", "s", name, "p"), 10**15)
        for key in (*(key for keys in checks.keys for key in keys), checks.bucket(b"0" * 26)):
            assert state.part(key) is state.of(checks), key
            assert marks_stem_beside(key) == checks.marks


def test_it_is_a_mapping_over_all_parts():
    state = State()
    keys = [f"sc:{{c{number}}}:q=monthly:cc:2026-11" for number in range(3_000)]
    for number, key in enumerate(keys):
        state[key] = number
    assert (len(state), sorted(state)) == (3_000, sorted(keys))
    assert state[keys[7]] == 7
    assert state.pop(keys[7]) == 7
    assert keys[7] not in state
    assert sum(bool(part) for part in state.parts) > PARTS // 2
