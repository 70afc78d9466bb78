"""The raw connection, against real servers: replies to their callers, no one waiting, nothing left behind."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import uvloop

from sidecar.core.errors import StoreError, StoreReason
from sidecar.edge.redis.wire import WireOptions, server_error
from tests.servers.faulty import FaultyProxy
from tests.servers.redis import RedisServer
from tests.servers.talk import FAST, ask, connected, make, pack, until

pytestmark = pytest.mark.redis


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Runs a coroutine on the loop named, with every leaked callback an error."""

    def go(main: Any) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main)

    return go


@pytest.fixture
def own(make_redis) -> RedisServer:
    return make_redis()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _conversation(url: str) -> None:
    async with connected(url) as store:
        replies = await asyncio.gather(
            ask(store, "SET", "a", "1"), ask(store, "GET", "a"), ask(store, "GET", "none"), ask(store, "NOPE"),
            ask(store, "EVAL", "return {1, 'two', {err='ERR three'}}", 0),
        )  # fmt: skip
        assert replies[:3] == [b"OK", b"1", None]
        assert isinstance(replies[3], StoreError)
        assert replies[3].detail.startswith("ERR unknown command")
        assert not replies[3].maybe_applied
        assert replies[4][:2] == [1, b"two"]
        many = await asyncio.gather(*(ask(store, "ECHO", i) for i in range(500)))
        assert many == [str(i).encode() for i in range(500)]


def test_the_take_over_speaks_plain_tcp_on_both_loops(run, redis_clean):
    run(_conversation(redis_clean.url))


def test_the_take_over_speaks_tls_with_an_acl_user_and_a_database_on_both_loops(run, redis_tls):
    run(_conversation(redis_tls.url))
    assert redis_tls.cli.info("keyspace")["db3"]["keys"] == 1


async def test_all_commands_of_a_tick_leave_in_one_write(own):
    async with FaultyProxy(own.port) as proxy, connected(f"redis://127.0.0.1:{proxy.port}") as store:
        before = proxy.writes
        await asyncio.gather(*(ask(store, "GET", i) for i in range(200)))
        assert proxy.writes == before + 1  # Fails if `send` writes by itself.


# A reply belongs to its position (CVE-2023-28858).


async def test_a_late_reply_is_never_handed_to_the_next_caller(own):
    async with FaultyProxy(own.port) as proxy, connected(f"redis://127.0.0.1:{proxy.port}", FAST) as store:
        proxy.delay_us = 120_000
        late = await ask(store, "ECHO", "late")
        assert isinstance(late, StoreError)
        assert late.maybe_applied
        proxy.delay_us = 0
        # Fails if `_expire` does not count the replies that are still to come: "two" would be answered with "late".
        assert not store.ready
        await until(lambda: store.ready, "the late reply")
        assert await asyncio.gather(*(ask(store, "ECHO", word) for word in ("two", "three"))) == [b"two", b"three"]
        assert store.stats.timeouts == 1
        assert proxy.accepted == 1


async def test_on_time_and_late_commands_of_one_connection_are_told_apart(own):
    async with FaultyProxy(own.port) as proxy, connected(f"redis://127.0.0.1:{proxy.port}", FAST) as store:
        proxy.delay_us = 70_000
        first = ask(store, "ECHO", "one")
        await asyncio.sleep(0.04)
        second = ask(store, "ECHO", "two")
        await until(first.done, "the timeout of the first")
        proxy.delay_us = 0
        assert isinstance(await first, StoreError)
        outcome = await second
        assert outcome == b"two" or isinstance(outcome, StoreError)
        await until(lambda: store.ready, "the late replies")
        assert await ask(store, "ECHO", "three") == b"three"


async def test_a_cancelled_caller_leaves_no_reply_for_the_next(own):
    async with FaultyProxy(own.port) as proxy, connected(f"redis://127.0.0.1:{proxy.port}") as store:
        proxy.delay_us = 20_000
        for i in range(20):
            gone = ask(store, "ECHO", f"gone{i}")
            await asyncio.sleep(0.001)
            gone.cancel()
            assert await ask(store, "ECHO", f"here{i}") == f"here{i}".encode()


async def test_a_callback_that_raises_does_not_shift_the_replies_of_others(own):
    async with connected(own.url) as store:
        seen: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: seen.append(context["message"]))
        first = ask(store, "ECHO", "one")
        store.send("", pack("ECHO", "bad"), lambda _: 1 / 0)
        assert await asyncio.gather(first, ask(store, "ECHO", "three")) == [b"one", b"three"]
        assert seen == ["redis: a reply's callback failed"]


# Nobody waits (Traefik #12043, envoyproxy/ratelimit #462).


async def test_without_a_connection_the_answer_comes_before_send_returns():
    store, made = make("redis://127.0.0.1:1")
    store.start()
    try:
        answers: list[Any] = []
        store.send("", pack("PING"), answers.append)
        assert len(answers) == 1  # Fails if `send` queues until there is a connection.
        assert not answers[0].maybe_applied
        await until(lambda: "cannot connect" in made[0].away, "the refusal")
        store.send("", pack("PING"), answers.append)
        assert "cannot connect" in answers[1].detail
        assert made[0].stats.refused == 2
    finally:
        await store.aclose()


async def test_a_connect_that_hangs_delays_nobody_and_is_given_up(own):
    async with FaultyProxy(own.port) as proxy:
        proxy.stalled = True  # accepts, never answers the handshake
        store, made = make(f"redis://127.0.0.1:{proxy.port}")
        store.start()
        try:
            await until(lambda: proxy.accepted, "the attempt")
            answers: list[Any] = []
            store.send("", pack("PING"), answers.append)
            assert len(answers) == 1
            await until(lambda: "Timeout" in made[0].away, "the end of the attempt")
            proxy.stalled = False
            await until(lambda: store.ready, "the connection")
            assert await ask(store, "PING") == b"PONG"
        finally:
            await store.aclose()


async def test_closing_in_the_middle_of_a_connect_leaves_nothing(own):
    async with FaultyProxy(own.port) as proxy:
        proxy.stalled = True
        store, _ = make(f"redis://127.0.0.1:{proxy.port}")
        store.start()
        await until(lambda: proxy.open, "the attempt")
        await store.aclose()
        proxy.stalled = False
        await until(lambda: not proxy.open, "the end of the attempt")
        assert not store.ready


async def test_closing_at_any_instant_of_a_connect_ends_and_leaves_nothing(own):
    # Fails if `aclose` cancels once: a cancel that comes as the connection is made is swallowed (Python 3.11).
    for turns in range(12):
        store, _ = make(f"redis://127.0.0.1:{own.port}")
        store.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.wait_for(store.aclose(), 3)
        assert store.stats.connected == 0


async def test_a_stalled_server_costs_each_caller_the_timeout_and_no_more(own):
    async with connected(own.url, FAST) as store:
        own.pause()
        for _ in range(3):
            start = time.monotonic()
            outcome = await ask(store, "PING")
            assert isinstance(outcome, StoreError)
            assert 0.045 < time.monotonic() - start < 0.2  # Fails if the timer is armed anew by each command.
        own.resume()


async def test_a_connection_whose_reply_is_a_second_late_is_remade(own):
    async with FaultyProxy(own.port) as proxy:
        options = WireOptions(late_us=200_000, backoff_us=5_000, backoff_cap_us=50_000)
        async with connected(f"redis://127.0.0.1:{proxy.port}", options) as store:
            proxy.stalled = True
            await ask(store, "PING")
            await until(lambda: store.stats.losses == 1, "the cut")  # Fails if late batches are never looked at again.
            assert "no reply for" in store.away
            proxy.stalled = False
            await until(lambda: store.ready, "the reconnect")
            assert await ask(store, "ECHO", "fresh") == b"fresh"


async def test_what_awaits_replies_is_bounded(own):
    async with connected(own.url, WireOptions(backlog=10)) as store:
        own.pause()
        answers: list[Any] = []
        for _ in range(30):
            store.send("", pack("PING"), answers.append)
        assert len(answers) == 20
        assert not any(answer.maybe_applied for answer in answers)
        await until(lambda: len(answers) == 30, "the timeouts")
        store.send("", pack("PING"), answers.append)
        assert len(answers) == 31  # Fails if only the live ones count: a stalled server would be fed for ever.
        own.resume()


async def test_only_what_was_never_written_is_surely_not_applied(own):
    async with connected(own.url) as store:
        own.pause()
        written = ask(store, "INCR", "n")
        await asyncio.sleep(0.01)
        unwritten = ask(store, "INCR", "n")
        own.kill()
        store._line.end("cut")  # the private: no network can cut between two lines of this test
        assert (await written).maybe_applied
        assert not (await unwritten).maybe_applied


async def test_a_lost_reply_is_never_asked_for_again(own):
    """litellm #30460, #28283: a timeout is not "not applied"; redis-py would have sent these up to eleven times."""
    async with FaultyProxy(own.port) as proxy, connected(f"redis://127.0.0.1:{proxy.port}") as store:
        for times in (1, 3):
            own.cli.delete("n")
            for _ in range(times):
                await until(lambda: store.ready, "the connection")
                proxy.lose_replies = 1
                outcome = await ask(store, "INCR", "n")
                assert isinstance(outcome, StoreError)
                assert outcome.maybe_applied
            assert own.cli.get("n") == str(times).encode()


async def test_closing_waits_for_the_replies_on_their_way(own):
    async with FaultyProxy(own.port) as proxy:
        async with connected(f"redis://127.0.0.1:{proxy.port}") as store:
            proxy.delay_us = 20_000
            last = ask(store, "INCR", "n")
        assert last.done()
        assert last.result() == 1  # Fails if `aclose` cuts at once.
        assert (store.stats.losses, store.stats.connected) == (0, 0)
        assert proxy.open == 0 or await until(lambda: not proxy.open, "the close")


# Errors that the server answers, each made on a real one.


async def _oom(server: RedisServer) -> None:
    server.cli.config_set("maxmemory", "1")


async def _readonly(server: RedisServer) -> None:
    server.cli.replicaof("127.0.0.1", 1)


async def _master_down(server: RedisServer) -> None:
    server.cli.config_set("replica-serve-stale-data", "no")
    server.cli.replicaof("127.0.0.1", 1)


async def _misconf(server: RedisServer) -> None:
    server.cli.config_set("save", "3600 1")
    shutil.rmtree(server.folder)  # the snapshot cannot be written
    server.cli.set("a", 1)
    server.cli.bgsave()
    await until(lambda: server.cli.info("persistence")["rdb_last_bgsave_status"] == "err", "the failed snapshot")


async def _nothing(server: RedisServer) -> None:
    pass


ERRORS = {
    "NOSCRIPT": (_nothing, ("EVALSHA", "0" * 40, 0)),
    "OOM": (_oom, ("SET", "a", "1")),
    "READONLY": (_readonly, ("SET", "a", "1")),
    "MASTERDOWN": (_master_down, ("GET", "a")),
    "MISCONF": (_misconf, ("SET", "a", "1")),
    "NOPERM": (_nothing, ("TIME",)),
    "WRONGTYPE": (_nothing, ("HGET", "string", "x")),
}


@pytest.mark.parametrize("code", ERRORS)
async def test_what_the_server_answers_as_an_error_is_a_store_error_with_its_code(own, code):
    prepare, command = ERRORS[code]
    own.cli.set("string", "x")
    async with connected(own.url) as store:
        if code == "NOPERM":
            own.cli.acl_setuser("default", enabled=True, nopass=True, keys="*", commands=["+@all", "-time"])
        await prepare(own)
        outcome = await ask(store, *command)
        assert isinstance(outcome, StoreError)
        assert outcome.detail.startswith(code)
        assert not outcome.maybe_applied
        assert store.stats.errors == 1


@pytest.mark.parametrize("script", [False, True])
async def test_a_server_that_is_not_the_master_any_more_is_left_and_looked_for_anew(own, script):
    command = ("EVAL", "return redis.call('SET', KEYS[1], '1')", 1, "a") if script else ("SET", "a", "1")
    async with connected(own.url) as store:
        own.cli.replicaof("127.0.0.1", 1)
        outcome = await ask(store, *command)
        assert "READONLY" in outcome.detail
        assert store.stats.losses == 1  # Fails if the connection is kept: it would go to the old master for ever.
        own.cli.replicaof("no", "one")
        await until(lambda: store.ready, "the reconnect")
        assert await ask(store, "SET", "a", "1") == b"OK"


# Fails if `flush` waits for the end of the tick. Fails if what it wrote is written again.
async def test_a_flush_writes_at_once_what_the_tick_has_sent(own):
    async with FaultyProxy(own.port) as proxy, connected(f"redis://127.0.0.1:{proxy.port}") as store:
        before, replies = proxy.writes, []
        for value in range(3):
            store.send("", pack("ECHO", value), replies.append)
        store.flush()
        store.flush()
        assert store._line._out == []
        store.send("", pack("ECHO", 3), replies.append)
        await until(lambda: len(replies) == 4, "four replies")
        assert replies == [b"0", b"1", b"2", b"3"]
        assert proxy.writes <= before + 2


async def test_a_script_flushed_away_is_told_as_noscript(own):
    sha = own.cli.script_load("return 7")
    async with connected(own.url) as store:
        assert await ask(store, "EVALSHA", sha, 0) == 7
        own.cli.script_flush()
        assert (await ask(store, "EVALSHA", sha, 0)).detail.startswith("NOSCRIPT")


async def test_a_busy_server_answers_busy_and_is_whole_again_after_it(own):
    async with connected(own.url) as store:
        own.cli.config_set("lua-time-limit", "1")
        spin = ask(store, "EVAL", "while true do end", 0)
        await until(spin.done, "the timeout")
        with redis.Redis(port=own.port) as other:
            await until(lambda: _is_busy(other), "the busy server")
            store2, _ = make(own.url)
            assert isinstance(await ask(store, "GET", "a"), StoreError)
            other.script_kill()
        await until(lambda: store.ready, "the late replies")
        assert await ask(store, "ECHO", "b") == b"b"
        await store2.aclose()


def _is_busy(client: redis.Redis) -> bool:
    try:
        client.get("a")
    except redis.ResponseError as error:
        return str(error).startswith("BUSY") or "Redis is busy" in str(error)
    return False


async def test_a_loading_server_answers_loading_until_it_has_loaded(make_redis):
    server = make_redis()
    if int(server.cli.info("server")["redis_version"].split(".")[0]) < 7:
        pytest.skip("Redis 6 cannot be told to answer while it loads as little as this")
    server.cli.mset({f"k{i}": "x" * 100 for i in range(3000)})
    server.cli.save()
    server.kill()
    server._lines += ["key-load-delay 500", "loading-process-events-interval-bytes 1024"]
    server.start(ready=False)
    async with connected(server.url) as store:
        outcome = await ask(store, "GET", "k1")
        assert isinstance(outcome, StoreError)
        assert outcome.detail.startswith("LOADING")
        server.cli.config_set("key-load-delay", "0")
        for _ in range(1000):
            if not isinstance(outcome := await ask(store, "GET", "k1"), StoreError):
                break
            await asyncio.sleep(0.01)
        assert outcome == b"x" * 100


async def test_a_wrong_password_is_told_in_every_answer_and_is_no_hot_loop(make_redis):
    server = make_redis("user gateway on >right ~* &* +@all")
    store, made = make(server.url.replace("redis://", "redis://gateway:wrong@"))
    store.start()
    try:
        await until(lambda: "cannot connect" in made[0].away, "the refusal")
        assert "username-password" in made[0].away
        await asyncio.sleep(0.3)
        assert server.cli.info("stats")["total_connections_received"] < 25
    finally:
        await store.aclose()


# Faults, and back to the baseline by itself.


async def _killed(server: RedisServer, proxy: FaultyProxy) -> None:
    server.kill()
    await asyncio.sleep(0.1)
    server.start()


async def _frozen(server: RedisServer, proxy: FaultyProxy) -> None:
    server.pause()
    await asyncio.sleep(0.5)
    server.resume()


async def _stalled(server: RedisServer, proxy: FaultyProxy) -> None:
    proxy.stalled = True
    await asyncio.sleep(0.5)
    proxy.stalled = False


async def _slow(server: RedisServer, proxy: FaultyProxy) -> None:
    proxy.delay_us = 300_000
    await asyncio.sleep(0.8)
    proxy.delay_us = 0


async def _replies_lost(server: RedisServer, proxy: FaultyProxy) -> None:
    proxy.lose_replies = -1
    await asyncio.sleep(0.3)
    proxy.lose_replies = 0


async def _cut(server: RedisServer, proxy: FaultyProxy) -> None:
    for _ in range(10):
        proxy.cut()
        await asyncio.sleep(0.02)


async def _refused(server: RedisServer, proxy: FaultyProxy) -> None:
    proxy.refuse = True
    proxy.cut()
    await asyncio.sleep(0.3)
    proxy.refuse = False


async def _killed_clients(server: RedisServer, proxy: FaultyProxy) -> None:
    server.cli.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


FAULTS = (_killed, _frozen, _stalled, _slow, _replies_lost, _cut, _refused, _killed_clients)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__[1:])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_after_a_fault_all_is_as_before_without_a_hand(own, fault, loop):
    options = WireOptions(late_us=250_000, backoff_us=5_000, backoff_cap_us=50_000)

    async def main() -> None:
        async with FaultyProxy(own.port) as proxy, connected(f"redis://127.0.0.1:{proxy.port}", options) as store:
            await until(lambda: own.clients("sidecar") == 1, "the first connection")
            tasks, files = len(asyncio.all_tasks()), descriptors()
            slowest, wrong, failing = 0.0, [], True
            breaking = asyncio.get_running_loop().create_task(fault(own, proxy))
            i = 0
            while failing or not breaking.done():
                i += 1
                start = time.monotonic()
                outcome = await ask(store, "ECHO", i)
                slowest = max(slowest, time.monotonic() - start)
                failing = isinstance(outcome, StoreError)
                wrong += [] if failing or outcome == str(i).encode() else [(i, outcome)]
                await asyncio.sleep(0.002)
            await breaking
            assert not wrong
            assert slowest < 0.4  # the timeout of 50 ms, and what two shared cores add to it
            await until(lambda: own.clients("sidecar") == 1, "one connection again")
            await until(lambda: len(asyncio.all_tasks()) == tasks, "the tasks' baseline")
            await until(lambda: descriptors() == files, "the descriptors' baseline")
            assert store.stats.connected == 1
        await until(lambda: own.clients("sidecar") == 0, "no connection after the close")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop) as runner:
        runner.run(main())


# Fails if a code is looked for in the whole text, or only at its beginning where a script wraps it.
@pytest.mark.parametrize(
    ("detail", "reason"),
    [
        ("NOSCRIPT No matching script. Please use EVAL.", StoreReason.NO_SCRIPT),
        ("MOVED 3999 127.0.0.1:6381", StoreReason.MOVED),
        ("ASK 3999 127.0.0.1:6381", StoreReason.ASK),
        ("CLUSTERDOWN Hash slot not served", StoreReason.UNSERVED),
        ("READONLY You can't write against a read only replica.", StoreReason.FAILED_OVER),
        ("ERR Error running script (call to f_0): @user_script:1: -READONLY You can't write", StoreReason.FAILED_OVER),
        ("MASTERDOWN Link with MASTER is down", StoreReason.FAILED_OVER),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", StoreReason.REFUSED),
        ("ERR unknown command 'MOVED'", StoreReason.REFUSED),
    ],
)
def test_an_error_of_the_server_has_the_reason_of_its_code(detail, reason):
    error = server_error(detail)
    assert (error.reason, error.detail, error.maybe_applied) == (reason, detail, False)
