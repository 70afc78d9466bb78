import asyncio
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from sidecar.core.limits import wallet_keys
from sidecar.edge.clock import SystemClock
from sidecar.edge.redis import unread_wallets as module
from sidecar.edge.redis.unread_wallets import TURN, UNREAD, WALKED, UnreadWallets, remove_command, token
from tests.edge.redis.at_once import Blocking

pytestmark = pytest.mark.redis
KEY = wallet_keys("c", "usd")[0]


@pytest.fixture
async def client(redis_clean):
    made = Redis(host="127.0.0.1", port=redis_clean.port)
    yield made
    await made.aclose()


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(module, "A_SECOND", 1_000_000)


def unread(client, touched, *, away=False):
    return UnreadWallets(client, touched.append, SystemClock(), lambda: away)


async def run(walks, condition):
    tasks = [asyncio.get_running_loop().create_task(each.run()) for each in walks]
    try:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)
    finally:
        for each in tasks:
            each.cancel()
            with suppress(asyncio.CancelledError):
                await each


async def test_all_wallets_are_found_once_and_nothing_else(client):
    # Fails if ledgers are taken for wallets, if the walk ends with the first page, or if each search walks.
    wallets = [wallet_keys(f"cust-{number}", "usd", f"acc-{number % 7}")[0] for number in range(2_500)]
    pipe = client.pipeline(transaction=False)
    for key in wallets:
        pipe.hset(key, "debt", 0)
        pipe.xadd(key.replace(":wallet:", ":ledger:"), {"kind": "grant"})
    await pipe.execute()
    touched = []
    for _ in range(3):
        await unread(client, touched).search()
    assert sorted(touched) == sorted(wallets)


async def test_notes_of_killed_workers_and_of_commands_are_found_and_those_in_use_are_not(client):
    # Fails if a note's age is ignored: each ledger in use would be read by all workers.
    await client.set(WALKED, "1")
    now_us = SystemClock().now_us()
    notes = {"old": now_us - 11_000_000, "fresh": now_us, "command": 0}
    await client.hset(UNREAD, mapping={name: token(made_us, "x") for name, made_us in notes.items()})
    touched = []
    await unread(client, touched).search()
    assert sorted(touched) == ["command", "old"]


async def test_a_note_is_removed_by_its_own_token_alone(client, redis_clean):
    # Fails if a reader removes the note of another one, whose postings it has not read.
    commands = Blocking(redis_clean.port)
    await client.hset(UNREAD, KEY, token(1, "b"))
    commands.send(UNREAD, remove_command(KEY, token(1, "a")), lambda _reply: None)
    assert await client.hexists(UNREAD, KEY)
    commands.send(UNREAD, remove_command(KEY, token(1, "b")), lambda _reply: None)
    assert not await client.exists(UNREAD)
    commands.close()


async def test_one_worker_of_all_searches_at_a_time(client):
    await client.hset(UNREAD, KEY, token(0, "x"))
    one, two = [], []
    await run([unread(client, one), unread(client, two)], lambda: one or two)
    assert len(one + two) == 1
    assert 0 < await client.pttl(TURN) <= module.INTERVAL_MS


async def test_what_fails_is_tried_again_and_logged_once(client, caplog, monkeypatch):
    await client.hset(UNREAD, KEY, token(0, "x"))
    monkeypatch.setattr(module, "INTERVAL_MS", 10)
    touched, left = [], [2]
    looking = unread(client, touched)

    class Failing:
        exists, hscan_iter, scan_iter = client.exists, client.hscan_iter, client.scan_iter

        async def set(self, *arguments, **options):
            if left[0]:
                left[0] -= 1
                raise ConnectionError("away")
            return await client.set(*arguments, **options)

    looking._client = Failing()
    await run([looking], lambda: touched)
    assert len([line for line in caplog.messages if "postings of commands and killed workers wait" in line]) == 1
