"""How many unknown keys a client may present, and who that is."""

from ipaddress import ip_address, ip_network

import pytest

from sidecar.core.errors import StoreError
from sidecar.core.http.request import HeadLimits, read_request
from sidecar.core.identity import Identity, make_key
from sidecar.edge.keys.key_cache import KeyCache
from sidecar.gateway import GatewayOptions
from sidecar.gateway import failed_authentications as module
from sidecar.gateway.failed_authentications import FailedAuthentications
from sidecar.testing import HandClock, KeyBook, Tally
from tests.gateway.scene import Scene

SECOND_US = 1_000_000
PROXIES = ip_network("10.0.0.0/8")


def request(*forwarded):
    pairs = [(b"Host", b"h"), *((b"X-Forwarded-For", value.encode()) for value in forwarded)]
    return read_request(("GET", b"/a", 1), pairs, HeadLimits())


def trusts(address):
    return ip_address(address) in PROXIES


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def failures(clock):
    return FailedAuthentications(clock, 3, trusts)


def fail(failures, times, peer="192.0.2.1", *forwarded):
    for _ in range(times):
        failures.add(request(*forwarded), peer)


# Fails if the share of a failure is not given back with time, or all of a second's at once (mutation: `_share_us` left
# out of `wait_s`).
def test_a_client_that_failed_too_often_in_a_second_waits_for_its_next_share(failures, clock):
    fail(failures, 2)
    assert failures.wait_s(request(), "192.0.2.1") == 0
    fail(failures, 1)
    assert failures.wait_s(request(), "192.0.2.1") == 1
    clock.turn(SECOND_US // 3 + 1)
    assert failures.wait_s(request(), "192.0.2.1") == 0
    fail(failures, 1)
    assert failures.wait_s(request(), "192.0.2.1") == 1


def test_another_client_does_not_wait(failures):
    fail(failures, 9)
    assert failures.wait_s(request(), "192.0.2.2") == 0


# Fails if failures that were looked up at the same time cost no more than one second's share.
def test_failures_at_the_same_time_are_paid_for_later_and_at_most_for_a_minute(failures, clock):
    fail(failures, 30)
    assert failures.wait_s(request(), "192.0.2.1") == 10
    fail(failures, 3_000)
    assert failures.wait_s(request(), "192.0.2.1") == 60
    clock.turn(60 * SECOND_US)
    assert failures.wait_s(request(), "192.0.2.1") == 0


def test_0_a_second_means_any_number(clock):
    failures = FailedAuthentications(clock, 0, trusts)
    fail(failures, 1_000)
    assert failures.wait_s(request(), "192.0.2.1") == 0


@pytest.mark.parametrize(
    ("failed", "other", "is_same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "", True),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
# Fails if each address of an IPv6 subscriber has a bound of its own, or all mapped IPv4 addresses share one.
def test_a_client_is_an_ipv4_address_or_the_64_of_an_ipv6_address(failed, other, is_same, clock):
    failures = FailedAuthentications(clock, 3, lambda _address: False)
    fail(failures, 3, failed)
    assert bool(failures.wait_s(request(), other)) == is_same


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["198.51.100.7, 192.0.2.1"], "192.0.2.1"),
        ("10.0.0.1", ["198.51.100.7", "192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ("10.0.0.1", ["192.0.2.1:5678"], "192.0.2.1"),
        ("10.0.0.1", ["[2001:db8::1]:5678"], "2001:db8::1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["192.0.2.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("192.0.2.9", ["192.0.2.1"], "192.0.2.9"),
    ],
)
# Fails if what a client wrote into X-Forwarded-For itself gives it a new bound for each request.
def test_behind_trusted_proxies_a_client_is_the_last_address_that_is_not_trusted(
    peer, forwarded, client, failures, monkeypatch
):
    monkeypatch.setattr(failures, "_trusts", trusts)
    fail(failures, 3, peer, *forwarded)
    monkeypatch.setattr(failures, "_trusts", lambda _address: False)
    assert failures.wait_s(request(), client) == 1


# Fails if the table grows with the addresses that fail, or the one that failed last makes room.
def test_the_table_is_bounded_and_the_oldest_failure_makes_room(failures, monkeypatch):
    monkeypatch.setattr(module, "CLIENTS", 2)
    for peer in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        fail(failures, 3, peer)
    waits = [failures.wait_s(request(), f"192.0.2.{last}") > 0 for last in (1, 2, 3)]
    assert waits == [True, False, True]


# In the life of a request.


@pytest.fixture
def scene():
    return Scene(options=GatewayOptions("here", failures_per_second=2))


def answered(scene, key):
    scene.ask(key=key)
    return scene.client.status


# Fails if the store of keys is asked for each of a flood of made-up keys.
def test_beyond_the_bound_an_unknown_key_is_429_and_the_store_is_not_asked(scene):
    assert [answered(scene, f"made-up-{number}") for number in range(4)] == [401, 401, 429, 429]
    assert len(scene.keys.requested) == 2
    assert scene.problem == "too-many-failed-authentications"
    assert (b"Retry-After", b"1") in scene.client.fields
    assert (scene.upstream.calls, scene.journal.entries) == ([], [])
    assert scene.tally.counts["refused|too-many-failed-authentications"] == 2
    assert scene.at_rest()
    scene.clock.turn(SECOND_US)
    assert answered(scene, "made-up-4") == 401


def test_mistyped_keys_count_as_failed_and_are_429_as_well(scene):
    key = make_key(bytes(20))
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    assert [answered(scene, wrong) for _ in range(3)] == [401, 401, 429]


def test_a_request_without_a_key_has_not_failed(scene):
    assert [answered(scene, "") for _ in range(3)] == [401] * 3


# Fails if somebody who guesses keys locks out who shares its address: a key that this worker has served passes, also
# where its time in the cache is over (mutation: `was_known` is False).
def test_a_key_that_was_served_before_passes_beyond_the_bound(scene, monkeypatch):
    book = KeyBook()
    book.register("ann", Identity("k_ann", "app-ann", "cust-ann", "free"))
    book.register("new", Identity("k_new", "app-new", "cust-new", "free"))
    monkeypatch.setattr(scene.context, "keys", KeyCache(book, scene.clock, Tally()))
    assert [answered(scene, key) for key in ("ann", "x", "y", "z")] == [0, 401, 401, 429]
    assert answered(scene, "ann") == 0  # goes up, and is not answered yet
    assert answered(scene, "new") == 429
    scene.clock.turn(40 * SECOND_US)
    assert [answered(scene, key) for key in ("x2", "y2", "ann", "new")] == [401, 401, 0, 429]
    assert len(scene.upstream.calls) == 3


# Fails if a client that hangs up before the store has answered may guess on.
def test_a_client_that_does_not_wait_for_its_answer_has_failed_as_well(scene):
    scene.keys.holding = True
    for number in range(2):
        scene.ask(key=f"made-up-{number}").on_client_gone()
    scene.keys.let_go()
    assert answered(scene, "made-up-2") == 429


def test_a_store_that_does_not_answer_is_not_a_failure_of_the_client(scene):
    scene.keys.fails = StoreError("away")
    assert [answered(scene, "made-up") for _ in range(3)] == [503] * 3
