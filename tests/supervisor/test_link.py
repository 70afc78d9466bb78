import asyncio
import signal
import socket

import orjson
import pytest

from sidecar.supervisor.link import Link

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


@pytest.fixture
async def listening(pipe):
    link, reader, writer = pipe
    link._listener = asyncio.get_running_loop().create_task(link._listen())
    return link, reader, writer


async def said(reader):
    return orjson.loads(await asyncio.wait_for(reader.readline(), 5))


async def test_what_was_said_is_not_said_again_until_it_changes(pipe):
    # Fails if _send_if_new says always: a look per second would fill the log.
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
    writer.write(b'{"do":"start"}\n{"n":1,"do":"prepare"}\n{"n":2,"do":"stats"}\n{"do":"drain","seconds":5}\n')
    ours_to_tell = [signal.getsignal(name) for name in SIGNALS]
    link = await Link.open(theirs.detach())
    for name, handler in zip(SIGNALS, ours_to_tell, strict=True):
        signal.signal(name, handler)
    read = asyncio.Event()

    class Slow:
        async def prepare(self, _staged):
            await read.wait()
            return "v2"

    link.reloads = Slow()
    assert (await said(reader))["n"] == 2
    await asyncio.wait_for(link.draining.wait(), 5)
    read.set()
    assert await said(reader) == {"n": 1, "prepare": {"faults": [], "version": "v2"}}
    await link.close()
    writer.close()


async def test_a_commit_that_comes_before_the_child_can_take_it_is_remembered(listening):
    # Fails if the child goes on with what it read before the commit.
    link, reader, writer = listening
    writer.write(b'{"n":1,"do":"prepare"}\n')
    assert await said(reader) == {"n": 1, "prepare": {"faults": [], "version": ""}}
    assert not link.missed_commit
    writer.write(b'{"n":2,"do":"commit"}\n')
    assert (await said(reader))["n"] == 2
    assert link.missed_commit


async def test_a_message_that_cannot_be_obeyed_does_not_leave_a_child_that_no_drain_reaches(listening):
    # Fails if an exception ends the reading of messages.
    link, _, writer = listening
    link.on_stats = lambda: 1 // 0
    writer.write(b'{"n":1,"do":"stats"}\nnonsense\n{"do":"drain","seconds":5}\n')
    await asyncio.wait_for(link.draining.wait(), 5)


@pytest.mark.parametrize(("drain_seconds", "work_seconds", "finished"), [(5, 0, True), (0, 3600, False)])
async def test_work_is_waited_for_within_the_drain_and_cut_after_it(pipe, drain_seconds, work_seconds, finished):
    link, _, _ = pipe
    link.drain_seconds = drain_seconds
    assert await link.within_drain(asyncio.sleep(work_seconds)) is finished


async def test_work_is_cut_when_hurried(pipe):
    link, _, _ = pipe
    link.drain_seconds = 3600
    link.aborting.set()
    assert await asyncio.wait_for(link.within_drain(asyncio.sleep(3600)), 5) is False
