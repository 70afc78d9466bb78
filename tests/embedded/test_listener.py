"""Mirrors sidecar/embedded/listener.py."""

import asyncio
import socket
import stat

import pytest

from sidecar.core.errors import StoreError
from sidecar.core.price.wallet import Grant, Wallet
from sidecar.embedded.listener import SOCKET, StateListener, _short, ask_worker, is_answering

GRANT = Grant("g1", 0, 0, 0, 100, 100)


async def test_only_the_worker_s_own_user_may_ask(worker):
    assert stat.S_IMODE((worker.folder / SOCKET).stat().st_mode) == 0o600


async def test_a_socket_that_a_killed_worker_left_is_taken_over(worker):
    again = StateListener(worker.state, worker.folder, lambda: True)
    await again.start()
    assert (await worker.wallet.expire_grants()).done == "swept"
    await again.aclose()


async def test_who_does_not_run_does_not_answer(worker):
    assert await is_answering(worker.folder)
    await worker.listener.aclose()
    assert not await is_answering(worker.folder)
    with pytest.raises(StoreError, match="the worker does not answer"):
        await worker.wallet.expire_grants()


# Fails if a change is made although it cannot be written down.
async def test_a_journal_that_is_full_refuses_a_grant_and_shows_wallets(worker):
    worker.accepts = False
    with pytest.raises(StoreError, match="does not take it") as caught:
        await worker.wallet.grant(GRANT)
    assert not caught.value.maybe_applied
    assert (await worker.wallet.read()).wallet == Wallet()


async def test_a_grant_that_was_not_written_may_have_been_made(worker):
    worker.writes = False
    with pytest.raises(StoreError, match="does not take it") as caught:
        await worker.wallet.grant(GRANT)
    assert caught.value.maybe_applied


WHO = {"key_id": "k", "subject": "s", "customer": "acme", "plan": "free", "zone": "UTC", "anchor_us": 0, "route": "api"}
ADJUST = {"do": "adjust", "id": "01M8N97TG90000000000000001", **WHO, "at_us": 1_795_239_000_000_000, "units": {}}
SET = {"do": "set", "exact": True}
COUNTER = "sc:{acme}:q=monthly:cacme:2026-11"
WRONG = [
    SET | {"sets": [[COUNTER, 2.5, 1_830_000_000_000_000]]},
    SET | {"sets": [[COUNTER, -5, 1_830_000_000_000_000]]},
    SET | {"sets": [[COUNTER, 1 << 60, 1_830_000_000_000_000]]},
    SET | {"sets": [[COUNTER, 5, "soon"]]},
    SET | {"sets": [[COUNTER, 5, None]]},
    SET | {"sets": [["sc:{acme}:wallet:acme:usd", 5, 1_830_000_000_000_000]]},
    SET | {"sets": [], "more": 1},
    ADJUST | {"at_us": -1},
    ADJUST | {"at_us": 1 << 63},
    ADJUST | {"id": 1.5},
    ADJUST | {"customer": None},
    ADJUST | {"units": {"monthly": "3"}},
    {"do": "grant", "customer": "acme", "unit": "usd", "grant": ["h1", "5", 1, 0, 0, 0, 0, 0, 0]},
    {"do": "values", "keys": ["sc:{acme}:ids:0000000"]},
    {"do": "peek", "checks": [1, 2]},
]


# Fails if a value of a wrong type is stored: it would be in the journal, and each start would fail on it.
@pytest.mark.parametrize("request_", WRONG)
async def test_a_wrong_value_changes_nothing_and_is_answered(worker, request_, caplog):
    before = dict(worker.state.counters.state), len(worker.notes)
    answer = await ask_worker(worker.folder, request_)
    assert "failed" in answer
    assert (dict(worker.state.counters.state), len(worker.notes)) == before
    assert (await ask_worker(worker.folder, {"do": "values", "keys": [COUNTER]})) == {"values": [0]}


async def test_a_line_that_is_too_long_is_refused(worker, monkeypatch):
    answer = await ask_worker(worker.folder, {"do": "values", "keys": ["x" * (4 << 20)]})
    assert "is longer than" in answer["failed"]


# Fails if the end of a worker waits for a client that sends nothing.
async def test_a_client_that_sends_nothing_does_not_hold_up_the_end(worker):
    with socket.socket(socket.AF_UNIX) as idle:
        with _short(worker.folder) as path:
            idle.connect(path)
        assert (await ask_worker(worker.folder, {"do": "values", "keys": []})) == {"values": []}
        async with asyncio.timeout(1):
            await worker.listener.aclose()


async def test_what_is_not_understood_is_told(worker):
    whose = {"customer": "acme", "unit": "usd"}
    for request in (whose | {"do": "steal"}, whose | {"do": "grant"}, whose | {"do": "grant", "grant": 5}, {}):
        answer = await ask_worker(worker.folder, request)
        assert "the request is invalid" in answer["failed"]
