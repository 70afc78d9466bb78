"""The Kafka sink against a real broker, read back with librdkafka and read_committed."""

import asyncio
import socket
import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from sidecar.core.errors import RefusedError, SinkError
from sidecar.edge.kafka.sink import KafkaSink
from tests.edge.kafka.topics import Topics, make_topics, positions, read_topic, record, records, sequences, until

pytestmark = [pytest.mark.kafka]

SOURCE = "//sidecar/test/n/0/1"


def aiokafka_tasks():
    return [str(task) for task in asyncio.all_tasks() if "aiokafka" in task.get_coro().cr_code.co_filename]


@pytest.fixture(autouse=True)
async def no_task_is_left():
    """Whatever happened to Kafka: aiokafka's tasks are gone when the sink is closed (I8)."""
    yield
    await until(lambda: not aiokafka_tasks(), "the end of aiokafka's tasks", 3)


def shipped(topics):
    return sorted(sequences(read_topic(topics.bootstrap, topics.records)).get(SOURCE, []))


async def test_records_denials_and_positions_are_committed_as_one(topics, sink):
    assert await sink.open() == {}
    await sink.commit([*records(1, 200), record(1, stream="denials")], {"0": "p1", "1": "q1"})
    assert shipped(topics) == list(range(1, 201))
    assert sequences(read_topic(topics.bootstrap, topics.denials)) == {SOURCE: [1]}
    assert positions(topics) == {b"n1/0": b"p1", b"n1/1": b"q1"}
    # Fails if the positions are read before the producer is started, or from the end.
    assert await sink.open() == {"0": "p1", "1": "q1"}


async def test_a_key_goes_to_the_partition_that_every_other_client_would_choose(topics, sink):
    # Fails if `hash(key)` or Python's crc32 stands for murmur2.
    await sink.open()
    await sink.commit(records(1, 10), {"0": "p"})
    ours = {message.key(): message.partition() for message in read_topic(topics.bootstrap, topics.records)}
    other = Producer({"bootstrap.servers": topics.bootstrap, "partitioner": "murmur2"})
    for key in ours:
        other.produce(topics.records, b'{"source":"other","sequence":"0"}', key)
    other.flush(20)
    found = read_topic(topics.bootstrap, topics.records)
    assert {message.key(): message.partition() for message in found if b'"other"' in message.value()} == ours
    assert len(set(ours.values())) > 1


async def test_the_records_of_one_customer_keep_their_order_over_many_batches(topics):
    # Fails if the batches of a partition are sent in any other order, as by size.
    sink = KafkaSink(topics.options(max_batch_bytes=5_000))
    await sink.open()
    await sink.commit(records(1, 300, size=700), {"0": "p"})
    await sink.close()
    by_key = {}
    for message in read_topic(topics.bootstrap, topics.records):
        by_key.setdefault(message.key(), []).append(message.value())
    assert all(values == sorted(values, key=lambda value: value.split(b'"sequence":')[1]) for values in by_key.values())
    assert sum(map(len, by_key.values())) == 300


async def test_a_second_shipper_of_the_node_fences_the_first_and_nothing_is_doubled(topics):
    # Fails if the transactional id is new at each start: the first would go on and both would write.
    first, second = KafkaSink(topics.options()), KafkaSink(topics.options())
    await first.open()
    await first.commit(records(1, 10), {"0": "10"})
    assert await second.open() == {"0": "10"}
    with pytest.raises(SinkError, match="taken over"):
        await first.commit(records(11, 20), {"0": "20"})
    await second.commit(records(11, 20), {"0": "20"})
    await first.close()
    await second.close()
    assert shipped(topics) == list(range(1, 21))


async def test_what_a_killed_shipper_left_open_is_aborted_and_its_position_with_it(topics):
    first, second = KafkaSink(topics.options()), KafkaSink(topics.options())
    await first.open()
    first._producer.commit_transaction = asyncio.Event().wait
    with pytest.raises(SinkError, match="did not answer"):  # everything was written, and the end never came
        await first.commit(records(1, 10), {"0": "10"})
    assert len(read_topic(topics.bootstrap, topics.records, "read_uncommitted")) == 10

    assert await second.open() == {}
    await second.commit(records(1, 10), {"0": "10"})
    await first.close()
    await second.close()
    assert shipped(topics) == list(range(1, 11))


async def test_a_record_over_our_own_bound_is_refused_before_it_is_sent(topics):
    sink = KafkaSink(topics.options(max_record_bytes=2_000))
    await sink.open()
    large = record(2, size=3_000)
    with pytest.raises(RefusedError, match="2000 bytes") as refused:
        await sink.commit([record(1), large, record(3)], {"0": "3"})
    assert refused.value.entries == [large]
    await sink.commit([record(1), record(3)], {"0": "3"})
    await sink.close()
    assert shipped(topics) == [1, 3]


async def test_a_record_that_the_broker_refuses_is_found_among_good_ones(kafka_server):
    # Fails if only the batch is known, or if the producer is kept after a refusal (out of order sequence).
    topics = make_topics(kafka_server.bootstrap, max_message_bytes="60000")
    sink = KafkaSink(topics.options())
    await sink.open()
    batch = records(1, 300)
    batch[122] = large = record(123, size=70_000)
    with pytest.raises(RefusedError) as refused:
        await sink.commit(batch, {"0": "300"})
    assert refused.value.entries == [large]
    batch.remove(large)
    await sink.commit(batch, {"0": "300"})
    assert await sink.open() == {"0": "300"}
    await sink.close()
    assert shipped(topics) == [number for number in range(1, 301) if number != 123]


async def test_a_topic_that_takes_smaller_batches_than_ours_gets_smaller_ones(kafka_server):
    # Fails if a refused batch is put into quarantine whole.
    topics = make_topics(kafka_server.bootstrap, max_message_bytes="20000")
    sink = KafkaSink(topics.options())
    await sink.open()
    with pytest.raises(SinkError, match=r"raise its max\.message\.bytes") as failed:
        await sink.commit(records(1, 400, size=700), {"0": "400"})
    assert not isinstance(failed.value, RefusedError)
    assert await sink.open() == {}
    await sink.commit(records(1, 400, size=700), {"0": "400"})
    await sink.close()
    assert shipped(topics) == list(range(1, 401))


async def test_a_missing_topic_is_named_with_what_makes_it(topics):
    sink = KafkaSink(topics.options(positions_topic="never.made"))
    with pytest.raises(SinkError, match=r"no topic never\.made: `sidecar kafka init`"):
        await sink.open()
    await sink.close()


async def test_a_topic_deleted_under_way_fails_in_time(topics, sink):
    await sink.open()
    await sink.commit(records(1, 5), {"0": "5"})
    admin = AdminClient({"bootstrap.servers": topics.bootstrap})
    admin.delete_topics([topics.records])[topics.records].result(20)
    with pytest.raises(SinkError):
        await sink.commit(records(6, 9), {"0": "9"})
    assert positions(topics) == {b"n1/0": b"5"}


async def test_the_producer_is_replaced_long_before_its_sequences_wrap(topics):
    # aiokafka wraps at 2^31 to a negative number. Fails if `_sent` is not counted, or the bound not looked at.
    sink = KafkaSink(topics.options(producer_records=250))
    await sink.open()
    producers = set()
    for first in range(1, 1001, 100):
        await sink.commit(records(first, first + 99), {"0": str(first + 99)})
        producers.add(sink._producer._txn_manager.producer_epoch)
    await sink.close()
    assert len(producers) == 5
    assert shipped(topics) == list(range(1, 1001))


async def test_without_a_broker_opening_fails_in_time_and_says_why():
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        port = silent.getsockname()[1]
        topics = make_options(port, commit_timeout_us=500_000, request_timeout_us=300_000)
        sink, began = KafkaSink(topics), time.monotonic()
        with pytest.raises(SinkError, match="opening"):
            await sink.open()
        await sink.close()
    with pytest.raises(SinkError, match="opening: no connection to 127"):  # and now refuses
        await sink.open()
    await sink.close()
    assert time.monotonic() - began < 5


def make_options(port, **changes):
    return Topics(f"127.0.0.1:{port}", "r", "d", "p").options(**changes)


async def test_a_frozen_broker_fails_the_commit_in_time_and_the_truth_is_read_afterwards(kafka_server, topics):
    # Fails if no bound of our own stands around the commit: aiokafka tries an idempotent batch again for ever.
    sink = KafkaSink(topics.options(commit_timeout_us=1_500_000, request_timeout_us=1_000_000))
    await sink.open()
    await sink.commit(records(1, 10), {"0": "10"})
    kafka_server.pause()
    try:
        began = time.monotonic()
        with pytest.raises(SinkError, match="committing"):
            await sink.commit(records(11, 20), {"0": "20"})
        with pytest.raises(SinkError, match="opening"):
            await sink.open()
        await sink.close()
        assert time.monotonic() - began < 10
    finally:
        kafka_server.resume()
    sink = KafkaSink(topics.options())
    position = int((await sink.open())["0"])
    await sink.commit(records(position + 1, 30), {"0": "30"})
    await sink.close()
    assert shipped(topics) == list(range(1, 31))


async def test_a_killed_broker_fails_the_commit_and_the_next_opening_goes_on(kafka_server, topics, sink):
    await sink.open()
    await sink.commit(records(1, 10), {"0": "10"})
    kafka_server.kill()
    try:
        with pytest.raises(SinkError):
            await sink.commit(records(11, 20), {"0": "20"})
        await sink.close()
    finally:
        kafka_server.start()
    assert await sink.open() == {"0": "10"}
    await sink.commit(records(11, 20), {"0": "20"})
    assert shipped(topics) == list(range(1, 21))


async def test_compressed_batches_are_read_by_others(topics):
    sink = KafkaSink(topics.options(compression="gzip"))
    await sink.open()
    await sink.commit(records(1, 100, size=700), {"0": "100"})
    await sink.close()
    assert shipped(topics) == list(range(1, 101))
