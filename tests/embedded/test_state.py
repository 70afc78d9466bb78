"""Mirrors sidecar/embedded/state.py."""

import json

import pytest

from sidecar.core.decision import Decision
from sidecar.core.limits import checks_for
from sidecar.core.policy import Limit
from sidecar.core.price.wallet import Grant, Wallet
from sidecar.embedded.state import EmbeddedState, wallet_of
from sidecar.testing import HandClock
from tests.edge.alerts_suite import decision, tell
from tests.edge.retries_suite import DAY_US, ONE, TWO, ask
from tests.embedded.survivor import adjustment
from tests.stage import ANN, policy, quota

CREDIT = Limit("credit", "balance", 0, scope="customer", unit="usd", period_us=60_000_000, alerts=(50, 100))


class Noted:
    """A state, and another that is told of what the first one notes or saves."""

    def __init__(self):
        self.clock, self.notes = HandClock(), []
        self.takes = True
        self.state = EmbeddedState(self.clock, self.note)
        self.later = EmbeddedState(self.clock, lambda _body, then: then(True))

    def note(self, body, then):
        self.notes.append(json.loads(body))
        then(self.takes)

    def change(self, **request):
        answers = []
        self.state.change(
            {"customer": "cust-ann", "unit": "usd", **request}, answers.append, lambda: answers.append("failed")
        )
        (answer,) = answers
        return answer

    def replay(self):
        for note in self.notes:
            self.later.replay(note, lambda _marks: True)

    def restore(self):
        for row in [*json.loads(json.dumps(list(self.state.rows_beside())))]:
            self.later.restore(row, self.clock.now_us())


@pytest.fixture
def noted():
    return Noted()


# Fails if a window is kept on the clock that never steps: it begins anew with each process.
@pytest.mark.parametrize("way", ["replay", "restore"])
def test_a_first_attempt_is_known_to_a_later_process_until_its_window_ends(noted, way):
    assert ask(noted.state.retries, ONE)
    noted.clock.turn(DAY_US // 2)
    getattr(noted, way)()
    assert not ask(noted.later.retries, TWO)
    noted.clock.turn(DAY_US // 2)
    assert ask(noted.later.retries, TWO)


def test_a_first_attempt_that_came_to_nothing_is_not_kept(noted):
    ask(noted.state.retries, ONE)
    noted.state.retries.forget(ANN, b"POST /pay 8e03978e", ONE)
    noted.restore()
    assert ask(noted.later.retries, TWO)


@pytest.mark.parametrize("way", ["replay", "restore"])
def test_an_alert_that_was_written_is_not_told_again(noted, way):
    assert tell(noted.state.alerts, decision(noted.clock, 5_000)) == [50]
    getattr(noted, way)()
    assert tell(noted.later.alerts, decision(noted.clock, 8_001)) == [80]


# Fails if a balance's alerts are left to a shared store.
def test_a_balance_tells_what_is_used_of_its_newest_top_up(noted):
    noted.change(do="grant", grant=Grant("g1", 0, 0, 0, 100, 100))
    checks = checks_for((CREDIT,), (0,), ANN, noted.clock.now_us())

    def left(amount):
        return Decision(checks, noted.clock.now_us(), (amount,), (0,))

    assert [tell(noted.state.alerts, left(amount)) for amount in (51, 50, 49, 0)] == [[], [50], [], [100]]
    noted.change(do="grant", grant=Grant("g2", 0, 0, 0, 900, 900))
    assert [tell(noted.state.alerts, left(amount)) for amount in (501, 500)] == [[], [50]]


# Fails if a change is noted without its time, or made again at another.
def test_changes_of_a_wallet_are_noted_and_replayed_at_their_time(noted):
    made = noted.change(do="grant", grant=Grant("g1", 0, 0, 0, 100, 100))
    noted.clock.turn(5)
    assert (made["done"], noted.change(do="void", grant="g2")["done"]) == ("made", "unknown")
    assert noted.change(do="sweep")["done"] == "swept"
    last = noted.state.read({"customer": "cust-ann", "unit": "usd", "postings": 1}).postings[-1].place
    wallet = Wallet(made["wallet"].grants, 7)
    assert noted.change(do="replace", last=last, wallet=wallet) == {"replaced": True}
    noted.clock.turn(7)
    noted.replay()
    asked = {"customer": "cust-ann", "unit": "usd", "postings": 9}
    assert noted.later.read(asked) == noted.state.read(asked)
    assert noted.later.read(asked).wallet.debt == 7


# Fails if a change is answered before it is in the journal: a kill in between would take back what was acknowledged.
def test_a_change_is_answered_when_it_is_in_the_journal(noted):
    held, answers = [], []
    noted.state._note = lambda _body, then: held.append(then)
    noted.state.change(
        {"customer": "cust-ann", "unit": "usd", "do": "grant", "grant": Grant("g1", 0, 0, 0, 100, 100)},
        lambda made: answers.append(made["done"]),
        lambda: answers.append("failed"),
    )
    assert (len(held), answers) == (1, [])
    held[0](True)
    assert answers == ["made"]


def test_a_change_that_the_journal_does_not_take_has_failed(noted):
    noted.takes = False
    assert noted.change(do="grant", grant=Grant("g1", 0, 0, 0, 100, 100)) == "failed"


def test_what_is_no_change_is_refused(noted):
    with pytest.raises(ValueError, match="'steal' is not a change of a wallet"):
        noted.change(do="steal")


def test_a_correction_moves_the_counters_of_limits_that_the_policy_has_once(noted):
    # Fails if a second request with the id counts again, or a limit that has gone ends the request.
    now_us = noted.clock.now_us()
    for state in (noted.state, noted.later):
        state.use(policy(quota(1_000)))
    (key,) = checks_for((quota(1_000),), (0,), ANN, now_us).entries[0].keys
    noted.change(do="set", sets=[(key, 10, now_us + DAY_US)], exact=False)
    request = adjustment(ONE.decode(), now_us, {"monthly": -3, "gone": -1})
    assert [noted.change(**request)["adjusted"] for _ in range(2)] == [["monthly"], []]
    assert len(noted.notes) == 2  # with the one of `set`
    assert noted.state.answer({"do": "values", "keys": [key]}) == {"values": [7]}
    noted.replay()
    assert noted.later.answer({"do": "values", "keys": [key]}) == {"values": [7]}


def test_without_a_policy_or_its_plan_nothing_is_adjusted(noted):
    request = adjustment(ONE.decode(), noted.clock.now_us(), {"monthly": -3})
    assert noted.change(**request) == {"adjusted": []}
    noted.state.use(policy(quota(1_000)))
    assert noted.change(**request | {"plan": "gone"}) == {"adjusted": []}


def test_a_wallet_comes_back_from_json():
    wallet = Wallet((Grant("g1", 0, 0, 0, 100, 100),), 3, 4, (5, 6, "g1"))
    assert wallet_of(json.loads(json.dumps(wallet))) == wallet
