"""Positions on a real broker, committed and read by the sink."""

import asyncio

import pytest
from confluent_kafka import Producer

from sidecar.edge.kafka.sink import KafkaSink
from tests.edge.kafka.topics import make_topics, records

pytestmark = [pytest.mark.kafka]


async def test_a_position_alone_is_committed_too(topics, sink):
    await sink.open()
    await sink.commit([], {"0": "after the quarantine"})
    assert await sink.open() == {"0": "after the quarantine"}


async def test_another_node_and_another_journal_of_the_same_name_have_positions_of_their_own(topics):
    # Fails if the key is the worker, or `node/worker` without the journal: a new volume would be skipped in silence.
    for node, journal, position in [("n1", "aa", "p1"), ("n1", "bb", "p2"), ("n2", "aa", "p3"), ("n1", "", "p4")]:
        sink = KafkaSink(topics.options(node, journal=journal))
        assert await sink.open() == {}
        await sink.commit([], {"0": position})
        assert await sink.open() == {"0": position}
        await sink.close()


async def test_an_open_transaction_of_another_node_does_not_hide_our_position(topics, sink):
    # Fails if positions are read up to the last stable offset (`end_offsets` of a read_committed consumer).
    await sink.open()
    other = Producer({"bootstrap.servers": topics.bootstrap, "transactional.id": f"{topics.records}-other"})
    other.init_transactions(20)
    other.begin_transaction()
    other.produce(topics.positions, b"theirs", b"n2/0", partition=0)
    other.flush(20)
    await sink.commit(records(1, 5), {"0": "p5"})
    opening = asyncio.ensure_future(sink.open())  # noqa: TID251 - awaited below
    done, _ = await asyncio.wait([opening], timeout=1.5)
    assert not done, "the position behind the open transaction was taken for none"
    await asyncio.to_thread(other.commit_transaction, 20)
    assert await opening == {"0": "p5"}


async def test_what_others_write_to_the_positions_topic_stops_nobody(kafka_server):
    # Fails if every key must be text: one message of anybody's would stop the shippers of all nodes for ever.
    topics = make_topics(kafka_server.bootstrap)
    sink = KafkaSink(topics.options(journal="mine"))
    await sink.open()
    await sink.commit(records(1, 2), {"0": "1.1.2"})
    other = Producer({"bootstrap.servers": topics.bootstrap})
    for key, value in ((b"\xff\xfe/0/mine", b"\xff"), (b"", b"?"), (b"n1/1/mine", b"\xff")):
        other.produce(topics.positions, value, key)
    assert other.flush(20) == 0
    assert await sink.open() == {"0": "1.1.2", "1": "\ufffd"}
    await sink.close()


async def test_positions_of_a_journal_that_was_replaced_are_left_alone_and_it_is_said(kafka_server, caplog):
    topics = make_topics(kafka_server.bootstrap)
    for journal, wanted in (("old", {}), ("new", {}), ("new", {"0": "1.1.2"})):
        sink = KafkaSink(topics.options(journal=journal))
        assert await sink.open() == wanted
        if not wanted:
            await sink.commit(records(1, 2), {"0": "1.1.2"})
        await sink.close()
    assert caplog.text.count("the positions of node n1 belong to another journal") == 1


async def test_a_deleted_position_is_no_position(topics, sink):
    await sink.open()
    await sink.commit([], {"0": "p1", "1": "q1"})
    other = Producer({"bootstrap.servers": topics.bootstrap})
    other.produce(topics.positions, None, b"n1/0", partition=0)
    assert other.flush(20) == 0
    assert await sink.open() == {"1": "q1"}
