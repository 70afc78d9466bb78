"""tests/cli/test_wallet.py and tests/cli/test_counters.py have the commands."""

import asyncio
import os

import pytest

from sidecar.core.price.wallet import Grant, balance
from sidecar.edge.clock import SystemClock
from sidecar.edge.files import OwnedError
from sidecar.edge.journal.folder import Folder
from sidecar.embedded.access import open_state, stopped
from sidecar.embedded.folders import WORKER, newest
from sidecar.embedded.lifecycle import Embedded
from sidecar.embedded.listener import is_answering
from sidecar.embedded.wallets import EmbeddedWallet
from sidecar.testing import HandClock
from tests.embedded.survivor import Node, dies, lives, stop

GRANT = Grant("g1", 0, 0, 0, 10**6, 10**6)


async def test_a_wallet_is_changed_with_the_worker_or_in_its_files(tmp_path):
    node = await lives(tmp_path)
    policy = node.context.policies.policy
    async with open_state(tmp_path, lambda: policy) as ask:
        assert (await EmbeddedWallet(ask, "cust-ann", "usd").grant(GRANT)).done == "made"
    await dies(node)
    assert not await is_answering(tmp_path / WORKER)
    async with open_state(tmp_path, lambda: policy) as ask:
        wallet = EmbeddedWallet(ask, "cust-ann", "usd")
        assert (await wallet.grant(GRANT)).done == "there"
        assert (await wallet.void("g1")).moved == 10**6
    later = await lives(tmp_path)
    assert later.state.read({"customer": "cust-ann", "unit": "usd", "postings": 9}).postings[-1].kind == "void"
    await dies(later)


# Fails if what is open in the files is given back, or forgotten, by a change while the node is stopped.
async def test_what_a_kill_left_open_is_still_open_after_a_change_of_its_files(tmp_path):
    node = await lives(tmp_path)
    await node.grant("g1", 10**6)
    await node.begin()
    await node.rest()
    await node.embedded._listener.aclose()
    stop(node)
    async with stopped(tmp_path, node.context.policies.policy) as ask:
        wallet = EmbeddedWallet(ask, "cust-ann", "usd")
        assert len((await wallet.read()).held) == 1
        assert (await wallet.grant(GRANT._replace(id="g2"))).done == "made"
    later = await lives(tmp_path)
    book = later.state.read({"customer": "cust-ann", "unit": "usd", "postings": 99})
    assert (balance(book.wallet), book.held) == (2 * 10**6, {})
    assert [posted.kind for posted in book.postings] == ["grant", "reserve", "grant", "settle"]
    assert later.left_of("monthly") == 1_000
    await dies(later)


async def test_files_that_a_worker_owns_are_not_touched(tmp_path):
    folder = Folder(tmp_path / WORKER)
    folder.own()
    with pytest.raises(OwnedError):
        async with stopped(tmp_path, Node(tmp_path / "other").context.policies.policy):
            pass
    folder.release()


# Fails if a start does not wait for the command: it takes the spare folder, and begins with the state before the grant.
async def test_a_grant_while_a_worker_comes_back_is_not_lost(tmp_path):
    node = await lives(tmp_path)
    await node.embedded.aclose(is_orphan=True)
    stop(node)
    async with stopped(tmp_path, node.context.policies.policy) as ask:
        start = asyncio.get_running_loop().create_task(lives(tmp_path))
        await asyncio.sleep(0)  # so far that it waits, or has read what is there
        assert (await EmbeddedWallet(ask, "cust-ann", "usd").grant(GRANT)).done == "made"
    later = await start
    assert later.journal.path.name == "0"
    assert balance(later.state.read({"customer": "cust-ann", "unit": "usd", "postings": 0}).wallet) == 10**6
    await dies(later)


# Fails if a start lets go of the files before its first save: here its state is to be in folder 0, and the newest that
# is there, without an owner, in 0.1.
async def test_files_that_a_start_has_read_are_not_touched(tmp_path):
    first = await lives(tmp_path)
    second = await lives(tmp_path)
    for node in (second, first):
        await node.embedded.aclose(is_orphan=True)
        stop(node)
    node = Node(tmp_path, HandClock(SystemClock().now_us()))
    node.embedded = Embedded(node.state, node.journal, node.clock, 10)
    await node.embedded.begin()
    node.journal.start()
    assert (node.journal.path.name, newest(tmp_path).name) == ("0", "0.1")
    with pytest.raises(OwnedError, match=f"pid {os.getpid()} changes the state of the stopped node, or is its worker"):
        async with stopped(tmp_path, node.context.policies.policy):
            pass
    save = node.embedded._saver.save

    async def first_save(**how):
        with pytest.raises(OwnedError, match="changes the state of the stopped node"):
            async with stopped(tmp_path, node.context.policies.policy):
                pass
        return await save(**how)

    node.embedded._saver.save = first_save
    await node.embedded.start(node.context.policies.policy)
    del node.embedded._saver.save
    with pytest.raises(OwnedError, match="writes this journal"):
        async with stopped(tmp_path, node.context.policies.policy):
            pass
    await dies(node)


# Fails if a stopped node's command answers without what another worker has written since.
async def test_a_command_counts_what_a_worker_that_still_finishes_has_written(tmp_path):
    first = await lives(tmp_path)
    await first.grant("g1", 10**6)
    await first.begin()
    await first.rest()
    second = await lives(tmp_path)
    await second.embedded.aclose(is_orphan=True)
    stop(second)
    first.open.pop()[1].connect().respond(200, b"x" * 70)
    await first.rest()
    async with stopped(tmp_path, first.context.policies.policy) as ask:
        wallet = EmbeddedWallet(ask, "cust-ann", "usd")
        book = await wallet.read()
        assert (balance(book.wallet), book.held) == (10**6 - 10_010, {})
        assert (await wallet.grant(GRANT._replace(id="g2"))).done == "made"
    later = await lives(tmp_path)
    assert later.left_of("monthly") == 999
    book = later.state.read({"customer": "cust-ann", "unit": "usd", "postings": 0})
    assert balance(book.wallet) == 2 * 10**6 - 10_010
    await first.embedded.aclose(is_orphan=True)
    stop(first)
    later.embedded.tick()
    await dies(later)
