"""Mirrors sidecar/edge/keys/key_cache.py. The store behind it is a table here; test_redis_keys.py has the real one."""

import dataclasses

import pytest

from sidecar import ports
from sidecar.core.errors import StoreError
from sidecar.core.identity import Identity
from sidecar.edge.keys.key_cache import CacheBounds, KeyCache
from sidecar.testing import HandClock

SECOND = 1_000_000
BOUNDS = CacheBounds(known=3, unknown=2)
AWAY = StoreError("away")


class Store(ports.Keys):
    """Answers from a table, a new Identity each time; `held` keeps the answers back until `release`."""

    def __init__(self) -> None:
        self.keys: dict[bytes, Identity] = {}
        self.asked: list[bytes] = []
        self.away = self.held = False
        self.kept = []

    def find(self, digest, done):
        self.asked.append(digest)
        found = self.keys.get(digest)
        answer = AWAY if self.away else found and dataclasses.replace(found)
        if self.held:
            self.kept.append((done, answer))
        else:
            done(answer)

    def release(self):
        for done, answer in self.kept:
            done(answer)


class Probe(ports.Probe):
    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def answered(self, route, status, total_us, upstream_us): ...
    def denied(self, limit, *, shadow): ...


class World:
    def __init__(self) -> None:
        self.clock, self.store, self.probe = HandClock(), Store(), Probe()
        self.cache = KeyCache(self.store, self.clock, self.probe, BOUNDS)

    def register(self, digest: bytes, **more) -> None:
        self.store.keys[digest] = Identity(digest.decode(), "s", "c", "p", **more)

    def find(self, digest: bytes):
        answers = []
        self.cache.find(digest, answers.append)
        assert len(answers) == 1
        return answers[0]


@pytest.fixture
def world():
    return World()


def test_a_known_key_is_asked_for_once_and_yields_one_identity(world):
    world.register(b"a")
    assert world.find(b"a") is world.find(b"a")
    assert world.store.asked == [b"a"]


def test_an_unknown_key_is_asked_for_once(world):
    assert [world.find(b"x"), world.find(b"x")] == [None, None]
    assert world.store.asked == [b"x"]


# Fails with `<=` in place of `<`.
@pytest.mark.parametrize(("known", "ttl_us"), [(True, BOUNDS.ttl_us), (False, BOUNDS.unknown_ttl_us)])
def test_an_entry_is_asked_for_again_when_its_time_is_over(world, known, ttl_us):
    if known:
        world.register(b"a")
    world.find(b"a")
    world.clock.turn(ttl_us - 1)
    world.find(b"a")
    assert len(world.store.asked) == 1
    world.clock.turn(1)
    world.find(b"a")
    assert len(world.store.asked) == 2


# Fails without same_as: every time to live, the counters cached on the identity would be lost.
def test_a_refresh_that_changes_nothing_yields_the_same_identity(world):
    world.register(b"a")
    before = world.find(b"a")
    world.clock.turn(BOUNDS.ttl_us)
    assert world.find(b"a") is before
    world.register(b"a", zone="Asia/Tokyo")
    world.clock.turn(BOUNDS.ttl_us)
    assert world.find(b"a").zone == "Asia/Tokyo"


def test_a_forgotten_key_is_asked_for_at_once(world):
    world.register(b"a")
    world.find(b"a")
    del world.store.keys[b"a"]
    world.cache.forget(b"a")
    assert world.find(b"a") is None
    world.register(b"a")
    world.cache.forget(b"a")
    assert world.find(b"a").key_id == "a"


def test_after_clear_everything_is_asked_for_again(world):
    world.register(b"a")
    before = world.find(b"a")
    world.find(b"x")
    world.cache.clear()
    assert world.find(b"a") is before
    assert world.find(b"x") is None
    assert world.store.asked == [b"a", b"x", b"a", b"x"]


# Fails without `_changes`: the answer from before the revocation would stay for a whole time to live.
@pytest.mark.parametrize("change", ["forget", "clear"])
def test_an_answer_that_was_on_its_way_when_the_key_changed_is_not_kept(world, change):
    world.register(b"a")
    world.store.held = True
    answers = []
    world.cache.find(b"a", answers.append)
    del world.store.keys[b"a"]
    world.cache.forget(b"a") if change == "forget" else world.cache.clear()
    world.store.release()
    world.store.held = False
    assert answers[0].key_id == "a"
    assert world.find(b"a") is None


# litellm #12685: bounded caches. Fails if both kinds share one table.
def test_a_flood_of_unknown_keys_cannot_push_out_a_known_one(world):
    world.register(b"a")
    world.find(b"a")
    for number in range(1_000):
        world.find(b"flood %d" % number)
    world.find(b"a")
    assert world.store.asked.count(b"a") == 1
    assert len(world.cache._unknown) == BOUNDS.unknown  # the bound itself is what is tested


# litellm #12685. Fails without move_to_end on a hit.
def test_the_longest_unused_goes_first_when_the_cache_is_full(world):
    for digest in (b"a", b"b", b"c"):
        world.register(digest)
        world.find(digest)
    world.find(b"a")
    world.register(b"d")
    world.find(b"d")
    for digest in (b"a", b"c", b"d"):
        world.find(digest)
    assert world.store.asked == [b"a", b"b", b"c", b"d"]
    world.find(b"b")
    assert world.store.asked[-1] == b"b"
    assert len(world.cache._known) == BOUNDS.known  # the bound itself is what is tested


# Fails if the entry's time to live is not cut at the key's own end.
def test_a_key_is_not_served_past_its_own_end(world):
    world.register(b"a", expires_us=world.clock.now_us() + SECOND)
    world.find(b"a")
    world.clock.turn(SECOND)
    world.store.away = True
    assert world.find(b"a") is AWAY


def test_while_the_store_is_away_a_known_key_is_served_up_to_the_stale_bound_and_counted(world):
    world.register(b"a")
    before = world.find(b"a")
    world.store.away = True
    world.clock.turn(BOUNDS.ttl_us + BOUNDS.stale_us - 1)
    assert world.find(b"a") is before
    assert world.probe.counts == {"keys_stale": 1}
    world.clock.turn(1)
    assert world.find(b"a") is AWAY


def test_a_store_that_is_away_is_asked_for_one_key_once_a_second(world):
    world.register(b"a")
    world.find(b"a")
    world.store.away = True
    world.clock.turn(BOUNDS.ttl_us)
    for _ in range(10):
        assert world.find(b"a").key_id == "a"
        world.clock.turn(SECOND // 5)
    assert len(world.store.asked) == 1 + 2


def test_an_unknown_key_is_not_taken_for_known_nor_refused_while_the_store_is_away(world):
    world.find(b"x")
    world.store.away = True
    world.clock.turn(BOUNDS.unknown_ttl_us)
    assert world.find(b"x") is AWAY


# Fails if forget only marks the entry: a revoked key would come back with an outage.
def test_a_revoked_key_does_not_come_back_when_the_store_goes_away(world):
    world.register(b"a")
    world.find(b"a")
    world.cache.forget(b"a")
    world.store.away = True
    assert world.find(b"a") is AWAY


def test_what_was_cleared_is_still_served_while_the_store_is_away(world):
    world.register(b"a")
    before = world.find(b"a")
    world.cache.clear()
    world.store.away = True
    assert world.find(b"a") is before


def test_a_key_revoked_in_the_store_is_not_served_stale_afterwards(world):
    world.register(b"a")
    world.find(b"a")
    del world.store.keys[b"a"]
    world.clock.turn(BOUNDS.ttl_us)
    assert world.find(b"a") is None
    world.store.away = True
    world.clock.turn(BOUNDS.unknown_ttl_us)
    assert world.find(b"a") is AWAY


def test_a_key_was_known_while_it_is_in_the_cache_or_its_store_has_it_at_hand(world, monkeypatch):
    world.register(b"a")
    assert not world.cache.was_known(b"a")
    world.find(b"a")
    world.clock.turn(BOUNDS.ttl_us)
    assert (world.cache.known(b"a"), world.cache.was_known(b"a")) == (None, True)
    world.cache.forget(b"a")
    assert not world.cache.was_known(b"a")
    monkeypatch.setattr(world.store, "was_known", world.store.keys.__contains__)
    assert (world.cache.was_known(b"a"), world.cache.was_known(b"b")) == (True, False)
