import asyncio
import os
import signal
import socket

import orjson
import pytest

from sidecar.app.children import Child, Link, Standing, cpu_and_memory

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
async def pipe():
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    child_reader, child_writer = await asyncio.open_connection(sock=theirs)
    link = Link(child_reader, child_writer)
    yield link, reader, writer
    writer.close()
    await link.close()


async def said(reader):
    return orjson.loads(await asyncio.wait_for(reader.readline(), 5))


async def test_what_was_said_is_not_said_again_until_it_changes(pipe):
    # Fails if _say_once says always: a look per second would fill the log.
    link, reader, _ = pipe
    link.back("redis")
    link.back("redis")
    link.away("redis", "gone")
    link.away("redis", "gone")
    link.back("redis")
    link.not_ready("journal is full")
    link.ready("127.0.0.1:1")
    assert [await said(reader) for _ in range(5)] == [
        {"back": "redis"},
        {"away": "redis", "why": "gone"},
        {"back": "redis"},
        {"not_ready": "journal is full"},
        {"ready": "127.0.0.1:1"},
    ]


async def test_a_drain_and_questions_are_heard_while_policies_are_read():
    # Fails if the answer to a reload is waited for before the next line is read.
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.write(b'{"do":"start"}\n{"n":1,"do":"reload"}\n{"n":2,"do":"stats"}\n{"do":"drain","seconds":5}\n')
    ours_to_tell = [signal.getsignal(name) for name in SIGNALS]
    link = await Link.open(theirs.detach())
    for name, handler in zip(SIGNALS, ours_to_tell, strict=True):
        signal.signal(name, handler)
    read = asyncio.Event()

    async def reload():
        await read.wait()
        return "v2"

    link.on_reload = reload
    assert (await said(reader))["n"] == 2
    await asyncio.wait_for(link.draining.wait(), 5)
    read.set()
    assert await said(reader) == {"n": 1, "reload": {"ok": True, "faults": [], "version": "v2"}}
    await link.close()
    writer.close()


async def test_work_is_waited_for_within_the_drain(pipe):
    link, _, _ = pipe
    link.drain_seconds = 5
    assert await link.within_drain(asyncio.sleep(0)) is True


async def test_work_that_takes_longer_than_the_drain_is_cut(pipe):
    link, _, _ = pipe
    link.drain_seconds = 0
    assert await link.within_drain(asyncio.sleep(3600)) is False


async def test_work_is_cut_when_hurried(pipe):
    link, _, _ = pipe
    link.drain_seconds = 3600
    link.hurried.set()
    assert await asyncio.wait_for(link.within_drain(asyncio.sleep(3600)), 5) is False


async def test_a_child_that_has_hung_up_is_not_waited_for():
    # Fails if only the end of the pipe breaks a question off: one that comes later would hold up a node's stop.
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    child = Child("worker-0", None, reader, writer)
    asked = asyncio.get_running_loop().create_task(child.ask("reload", 60))
    await asyncio.sleep(0)
    theirs.close()
    assert await asyncio.wait_for(asked, 5) is None
    assert await asyncio.wait_for(child.ask("reload", 60), 5) is None
    writer.close()


def test_a_child_that_says_why_it_is_not_ready_is_believed():
    standing = Standing()
    assert standing.reasons() == ["starting"]
    standing.hear({"ready": "127.0.0.1:1"})
    assert standing.reasons() == []
    standing.hear({"not_ready": "journal is full"})
    assert standing.reasons() == ["journal is full"]
    assert standing.listening == "127.0.0.1:1"


def test_what_a_child_needs_holds_it_back_until_it_answered_once():
    standing = Standing(needs={"redis"})
    standing.hear({"ready": ""})
    assert standing.reasons() == ["redis has not answered yet"]
    standing.hear({"away": "redis", "why": "refused"})
    assert standing.reasons() == ["redis has not answered yet: refused"]
    standing.hear({"back": "redis"})
    standing.hear({"away": "redis", "why": "gone"})
    assert standing.reasons() == []
    assert standing.away == {"redis": "gone"}


def test_the_kernel_knows_what_a_process_uses():
    cpu_us, rss_bytes = cpu_and_memory(os.getpid())
    assert cpu_us > 0
    assert rss_bytes > 1 << 20
    assert cpu_and_memory(2**22 + 1) == (0, 0)
