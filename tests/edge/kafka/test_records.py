"""Reading a topic from its start to its end, as `sidecar records --kafka` does."""

import asyncio
import contextlib

import orjson
import pytest
from confluent_kafka import Producer

from sidecar.core.errors import SinkError
from sidecar.edge.clock import SystemClock
from sidecar.edge.kafka import records as kafka_records
from sidecar.edge.kafka.records import read_last, read_topic
from sidecar.edge.kafka.sink import KafkaSink
from tests.edge.kafka.topics import make_topics, record

pytestmark = [pytest.mark.kafka]


@pytest.fixture
def topics(kafka_server):
    return make_topics(kafka_server.bootstrap)


async def ship(topics, first, last):
    sink = KafkaSink(topics.options())
    await sink.open()
    await sink.commit([record(number) for number in range(first, last + 1)], {"0": str(last)})
    await sink.close()


def connection(topics):
    return {"bootstrap_servers": topics.bootstrap}


async def numbers(topics, **how):
    found = [each async for each in read_topic(connection(topics), topics.records, **how)]
    return sorted(int(orjson.loads(each.value)["sequence"]) for each in found)


def foreign(topics):
    """Somebody else's producer, in a transaction."""
    producer = Producer({"bootstrap.servers": topics.bootstrap, "transactional.id": f"{topics.records}-other"})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topics.records, record(999).body, b"c9")
    producer.flush(20)
    return producer


async def test_every_committed_record_is_read_once_with_its_key_and_place(topics):
    await ship(topics, 1, 500)
    assert await numbers(topics) == list(range(1, 501))
    found = [each async for each in read_topic(connection(topics), topics.records)]
    assert {each.key for each in found} == {b"c%d" % number for number in range(10)}
    assert len({(each.partition, each.offset) for each in found}) == 500


async def test_an_empty_topic_ends_at_once(topics):
    assert await numbers(topics) == []


async def test_what_was_aborted_is_not_read_and_does_not_keep_the_end_away(topics):
    # Fails with read_uncommitted; hangs if the end waits for a record at the last offset.
    await ship(topics, 1, 10)
    await asyncio.to_thread(lambda: foreign(topics).abort_transaction(20))
    async with asyncio.timeout(10):
        assert await numbers(topics) == list(range(1, 11))


# Fails if the topic is read from its start: `sidecar records find --time` of the last hour took as long as `count`.
async def test_only_messages_since_a_time_are_read(topics):
    await ship(topics, 1, 10)
    await asyncio.sleep(0.01)
    later_ms = SystemClock().now_us() // 1_000
    await asyncio.sleep(0.01)
    assert await numbers(topics, since_ms=later_ms) == []
    await ship(topics, 11, 20)
    assert await numbers(topics, since_ms=later_ms) == list(range(11, 21))
    assert await numbers(topics, since_ms=1) == list(range(1, 21))


async def test_an_open_transaction_of_somebody_else_does_not_hold_reading_up(topics):
    # Hangs if the end is the high watermark and nothing bounds the waiting.
    await ship(topics, 1, 10)
    other = await asyncio.to_thread(foreign, topics)
    async with asyncio.timeout(10):
        assert await numbers(topics) == list(range(1, 11))
    await asyncio.to_thread(other.abort_transaction, 20)


async def test_the_last_ones_of_each_partition_are_records_and_not_ends_of_transactions(topics):
    # operator A13: `tail -n 1` printed nothing. Fails if offsets are counted: each transaction's end takes one.
    await ship(topics, 1, 5)
    for number in range(6, 12):
        await ship(topics, number, number)
    everything = [each async for each in read_topic(connection(topics), topics.records)]
    for number in (1, 2, 3, 100):
        found, ends = await read_last(connection(topics), topics.records, number)
        for partition in ends:
            here = [each for each in everything if each.partition == partition]
            assert [each for each in found if each.partition == partition] == here[-number:]
    assert (await read_last(connection(topics), topics.records, 0))[0] == []
    _, ends = await read_last(connection(topics), topics.records, 1)
    await ship(topics, 12, 12)
    assert await numbers(topics, begin=ends) == [12]


async def test_following_goes_on_with_what_comes_later(topics):
    await ship(topics, 1, 5)
    found = []
    reading = read_topic(connection(topics), topics.records, follow=True)
    async with asyncio.timeout(20), contextlib.aclosing(reading):
        async for each in reading:
            found.append(int(orjson.loads(each.value)["sequence"]))
            if len(found) == 5:
                await ship(topics, 6, 8)
            if len(found) == 8:
                break
    assert sorted(found) == list(range(1, 9))


async def test_a_missing_topic_is_named_and_not_made(topics):
    with pytest.raises(SinkError, match="no topic never"):
        await anext(read_topic(connection(topics), "never.made"))


async def test_without_a_broker_the_address_is_named():
    with pytest.raises(SinkError, match=r"127\.0\.0\.1:1"):
        await anext(read_topic({"bootstrap_servers": "127.0.0.1:1"}, "t"))


async def test_a_broker_that_goes_away_is_an_error_and_not_an_end(kafka_server, topics, monkeypatch):
    # Fails if silence is taken for the end: half a topic would be reported as all of it.
    monkeypatch.setattr(kafka_records, "_FETCH_BYTES", 20_000)
    await ship(topics, 1, 5_000)
    reading = read_topic({**connection(topics), "request_timeout_ms": 2_000}, topics.records)
    await anext(reading)
    kafka_server.kill()
    try:
        with pytest.raises(SinkError, match="records at"):
            [each async for each in reading]
    finally:
        await asyncio.to_thread(kafka_server.start)
