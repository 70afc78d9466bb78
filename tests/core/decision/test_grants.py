"""Mirrors sidecar/core/decision/grants.py. tests/edge/memory/test_wallet.py holds it to the script on a real Redis."""

import pytest

from sidecar.core.decision.grants import FORGOTTEN, GRANTS_MAX, REMEMBERED, expire_grants, grant, void
from sidecar.core.limits import wallet_keys
from sidecar.core.price.wallet import Grant, balance

KEYS = wallet_keys("acme", "usd")
NOW_US = 1_800_000_000_000_000


class World:
    def __init__(self):
        self.state, self.now_us = {}, NOW_US

    def keep(self, changed):
        for key, member, value, _ in changed.writes:
            if member is None:
                self.state[key] = value
            elif value is None:
                self.state[key].pop(member)
            else:
                self.state.setdefault(key, {})[member] = value
        return changed

    def grant(self, name="g1", amount=100, **more):
        return self.keep(grant(self.state, KEYS, Grant(name, 0, 0, 0, amount, amount)._replace(**more), self.now_us))

    def void(self, name):
        return self.keep(void(self.state, KEYS, name, self.now_us))

    @property
    def kinds(self):
        return [kind for kind, *_ in self.state.get(KEYS[1], {}).values()]


@pytest.fixture
def world():
    return World()


def test_the_keys_are_those_of_redis():
    assert wallet_keys("a}:b", "usd") == tuple(
        f"sc:{{a%7D%3Ab}}:{name}:a%7D%3Ab:usd" for name in ("wallet", "ledger", "holds", "held", "granted")
    )


def test_a_grant_is_made_once_and_refused_with_other_figures(world):
    assert (world.grant().done, world.grant().done, world.grant(amount=1).done) == ("made", "there", "other")
    assert balance(world.state[KEYS[0]]) == 100
    assert world.kinds == ["grant"]


def test_a_grant_that_is_gone_is_not_made_again(world):
    world.grant()
    assert (world.void("g1").done, world.void("g1").done, world.void("g2").done) == ("void", "gone", "unknown")
    assert world.grant().done == "there"
    assert world.kinds == ["grant", "void"]


def test_what_has_expired_is_not_granted_and_goes_with_the_next_change(world):
    assert world.grant(expires_us=NOW_US).done == "past"
    world.grant(expires_us=NOW_US + 5)
    world.now_us += 5
    changed = world.keep(expire_grants(world.state, KEYS, world.now_us))
    assert (changed.done, changed.wallet.grants) == ("swept", ())
    assert world.kinds == ["grant", "expire"]


def test_the_newest_grant_that_has_started_is_what_percents_are_of(world):
    world.grant("g1", 100)
    world.grant("g2", 50)
    world.now_us += 1
    world.grant("later", 7, starts_us=NOW_US + 10)
    assert world.state[KEYS[0]].topped == (NOW_US, 150, "g2")


# Fails if used-up grants make no room, or if room is made for a grant that is refused.
def test_a_wallet_holds_64_grants_and_what_is_used_up_makes_room(world):
    for number in range(GRANTS_MAX):
        assert world.grant(f"g{number}", priority=number).done == "made"
    assert world.grant("more").done == "many"
    wallet = world.state[KEYS[0]]
    used = tuple(each._replace(remaining=0) if each.id in {"g0", "g1"} else each for each in wallet.grants)
    world.state[KEYS[0]] = wallet._replace(grants=used)
    assert world.grant("more").done == "made"
    assert {"g1", "more"} <= {each.id for each in world.state[KEYS[0]].grants}
    assert world.kinds[-2:] == ["expire", "grant"]


def test_all_grants_together_stay_where_doubles_are_exact(world):
    assert [world.grant(f"g{n}", amount).done for n, amount in enumerate((2**51 - 1, 1, 1))] == ["made", "made", "full"]


def test_the_register_of_ids_does_not_grow_without_bound(world):
    world.grant("here")
    old = {f"old{n}".encode(): Grant(f"old{n}", 0, 0, 0, 1, 1, made_us=n) for n in range(1, REMEMBERED)}
    world.state[KEYS[4]] |= old
    world.grant("new")
    assert len(world.state[KEYS[4]]) == REMEMBERED + 1 - FORGOTTEN
    assert {b"here", b"new"} <= world.state[KEYS[4]].keys()
    assert b"old100" not in world.state[KEYS[4]]
