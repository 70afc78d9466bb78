"""Mirrors sidecar/embedded/listener.py."""

import stat

import pytest

from sidecar.core.errors import StoreError
from sidecar.core.price.wallet import Grant, Wallet
from sidecar.embedded.listener import SOCKET, StateListener, ask_worker, is_answering

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


async def test_what_is_not_understood_is_told(worker):
    whose = {"customer": "acme", "unit": "usd"}
    for request in (whose | {"do": "steal"}, whose | {"do": "grant"}, whose | {"do": "grant", "grant": 5}, {}):
        answer = await ask_worker(worker.folder, request)
        assert "the request is invalid" in answer["failed"]
