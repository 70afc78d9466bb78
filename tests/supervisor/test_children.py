import asyncio
import logging
import os
import socket

import pytest

from sidecar.supervisor.children import Child, ChildStatus, cpu_and_memory, describe


async def test_a_child_that_has_hung_up_is_not_waited_for():
    # Fails if only the end of the pipe breaks a question off: one that comes later would hold up a node's stop.
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    child = Child("worker-0", None, reader, writer)
    asked = asyncio.get_running_loop().create_task(child.ask("prepare", 60))
    await asyncio.sleep(0)
    theirs.close()
    assert await asyncio.wait_for(asked, 5) is None
    assert await asyncio.wait_for(child.ask("prepare", 60), 5) is None
    writer.close()


def test_a_child_that_says_why_it_is_not_ready_is_believed():
    status = ChildStatus()
    assert status.reasons() == ["starting"]
    status.on_message({"ready": "127.0.0.1:1"})
    assert status.reasons() == []
    status.on_message({"not_ready": "journal is full"})
    assert status.reasons() == ["journal is full"]
    assert status.listening == "127.0.0.1:1"


def test_what_a_child_needs_holds_it_back_until_it_answered_once():
    status = ChildStatus(needs={"redis"})
    status.on_message({"ready": ""})
    assert status.reasons() == ["redis has not answered yet"]
    status.on_message({"away": "redis", "why": "refused"})
    assert status.reasons() == ["redis has not answered yet: refused"]
    status.on_message({"back": "redis"})
    status.on_message({"away": "redis", "why": "gone"})
    assert status.reasons() == []
    assert status.away == {"redis": "gone"}


def test_the_kernel_knows_what_a_process_uses():
    cpu_us, rss_bytes = cpu_and_memory(os.getpid())
    assert cpu_us > 0
    assert rss_bytes > 1 << 20
    assert cpu_and_memory(2**22 + 1) == (0, 0)


# Fails if a message is logged as it was sent.
@pytest.mark.parametrize(
    ("message", "level", "text"),
    [
        ({"pass_on": {"journal": "0"}}, "DEBUG", "journal folder 0"),
        ({"away": "redis", "why": "refused"}, "WARNING", "redis: refused"),
        ({"away": "counters", "why": "lost"}, "WARNING", "counters: lost"),
        ({"back": "redis"}, "INFO", "redis answers"),
        ({"ready": "127.0.0.1:1"}, "INFO", "ready, listening on 127.0.0.1:1"),
        ({"not_ready": "full"}, "WARNING", "not ready: full"),
        ({"away": "kafka", "why": "refused"}, "DEBUG", "records wait in the journal: refused"),
    ],
)
def test_what_a_child_says_is_logged_in_words(message, level, text):
    assert describe(message) == (getattr(logging, level), text)
