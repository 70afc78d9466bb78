import asyncio
import json
import socket

import pytest

from sidecar.app import shipping
from sidecar.app.children import Link
from sidecar.config.settings import load_settings
from sidecar.core.errors import SinkError
from sidecar.core.record.frame import RECORD, encode_frame, segment_name


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "sidecar.yaml").write_text("journal: { dir: j }\nsink: { file: out.jsonl }\n")
    return load_settings(tmp_path / "sidecar.yaml", {})


def journal(settings, numbers, worker="0"):
    folder = settings.journal.dir / worker
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / segment_name(1, 1)).open("ab") as segment:
        for number in numbers:
            body = json.dumps({"sequence": number}).encode()
            segment.write(encode_frame(RECORD, "records", number, b"%026d" % number, b"cust", body))


def shipped(settings):
    return [json.loads(line)["sequence"] for line in settings.sink.file.read_text().splitlines()]


async def test_a_journal_is_carried_and_carried_on_from_there(settings):
    # Fails if the position is not kept with the records: the first three would come twice.
    journal(settings, [1, 2, 3])
    assert (await shipping.ship(settings, 10))[0] is True
    journal(settings, [4, 5])
    empty, did = await shipping.ship(settings, 10)
    assert (empty, did.stats()["counts"]["shipped"]) == (True, 2)
    assert shipped(settings) == [1, 2, 3, 4, 5]


async def test_two_cannot_ship_one_journal(settings):
    journal(settings, [1])
    other = shipping._owned(settings.journal.dir)  # what another process holds
    with other, pytest.raises(SinkError, match="another process is shipping"):
        await shipping.ship(settings, 10)


async def test_gaps_and_damage_are_counted(settings):
    journal(settings, [1, 4])
    _, did = await shipping.ship(settings, 10)
    assert did.stats()["counts"]["missing"] == 2


@pytest.fixture
async def link():
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    link = Link(*await asyncio.open_connection(sock=theirs))
    link.drain_seconds = 10
    yield link, reader
    writer.close()
    await link.close()


async def test_a_shipper_tells_that_the_sink_takes_records_and_ships_the_last_ones_in_the_drain(settings, link):
    ends, reader = link
    journal(settings, [1])
    running = asyncio.get_running_loop().create_task(shipping.run_shipper(settings, ends))
    assert json.loads(await asyncio.wait_for(reader.readline(), 5)) == {"ready": ""}
    assert json.loads(await asyncio.wait_for(reader.readline(), 5)) == {"back": "sink"}
    journal(settings, [2])
    ends.draining.set()
    await asyncio.wait_for(running, 5)
    assert shipped(settings) == [1, 2]


async def test_a_sink_that_fails_is_away_and_the_drain_still_ends(settings, link):
    ends, reader = link
    ends.drain_seconds = 1
    settings.sink.file.mkdir()
    journal(settings, [1])
    running = asyncio.get_running_loop().create_task(shipping.run_shipper(settings, ends))
    assert json.loads(await asyncio.wait_for(reader.readline(), 5)) == {"ready": ""}
    told = json.loads(await asyncio.wait_for(reader.readline(), 5))
    assert told["away"] == "sink"
    assert "out.jsonl" in told["why"]
    ends.draining.set()
    await asyncio.wait_for(running, 5)


async def test_a_second_signal_ends_the_drain(settings, link):
    ends, _ = link
    ends.drain_seconds = 3600
    settings.sink.file.mkdir()
    journal(settings, [1])
    running = asyncio.get_running_loop().create_task(shipping.run_shipper(settings, ends))
    ends.draining.set()
    ends.hurried.set()
    await asyncio.wait_for(running, 5)
