"""What the journal's tests share: a journal in a folder, an exchange through it, and what a reader finds there."""

import asyncio

import orjson

from sidecar.core.record import Denied, Ids
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal import Journal, JournalOptions
from sidecar.edge.journal.reader import JournalReader

IDS = Ids(7)
SOURCE = "//sidecar/eu-1/gw-3/0"
NOW_US = 1_795_223_006_123_456
DENIED = Denied("c", "free@1", "monthly", "quota-exceeded", 429)
OPENED = orjson.dumps(
    {
        "time_us": NOW_US, "subject": "s", "customer": "c", "key_id": "k", "plan": "pro@1", "route": "r",
        "method": "GET", "path": "/", "reserved": {"requests": 1},
    }
)  # fmt: skip


def mint():
    return IDS.mint(NOW_US // 1000)


def journal(folder, disk=None, **other):
    options = JournalOptions(**{"directory": folder, "worker": "0", "source": SOURCE, **other})
    return Journal(options, SystemClock(), disk)


def write(source, sequence):
    return orjson.dumps({"source": source, "sequence": sequence})


def billed(source, sequence):
    """The same, of an exchange that was answered and is billed."""
    data = {"billable": True, "billable_reason": "plan:pro", "outcome": "ok"}
    return orjson.dumps({"source": source, "sequence": sequence, "data": data})


async def told(call, *arguments):
    """What `then` was called with, by `open` or `close`."""
    answer = asyncio.get_running_loop().create_future()
    call(*arguments, answer.set_result)
    return await asyncio.wait_for(answer, 10)


async def exchange(log):
    id_ = mint()
    assert await told(log.open, id_, OPENED)
    assert await told(log.close, "records", id_, "c", write)
    return id_


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def read_all(reader):
    found = []
    while batch := reader.read(1 << 20):
        found += batch
    return found


def entries(folder, worker="0", position=None):
    reader = JournalReader(folder, worker, position)
    found = read_all(reader)
    reader.close()
    assert reader.figures.missing == 0
    return found


def sequences(folder):
    return [entry.sequence for entry in entries(folder)]


def bodies(folder):
    return [orjson.loads(entry.body) for entry in entries(folder)]
