import orjson
import pytest
from confluent_kafka import Producer

from sidecar.records.originals import StoredOriginals
from sidecar.records.sources import RecordSource
from tests.edge.kafka.topics import make_topics

ID, OTHER = "01M8N97TG90000000000000001", "01M8N97TG90000000000000002"
USAGE = {"type": "sidecar.usage.v1", "id": ID, "data": {"usage": {"tokens": 5}}}


def change(number, kind="correction", cause=ID):
    return {
        "type": f"sidecar.{kind}.v1",
        "id": f"{number:026d}",
        "causationid": cause,
        "data": {"usage": {"tokens": -1}},
    }


def lines(path, *records):
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))
    return RecordSource("records", file=path)


async def test_a_record_is_found_with_its_changes_over_all_sources_each_once(tmp_path):
    # Fails if copies are not dropped, or what only names the id (a settle, another record's change) is a change.
    first = lines(tmp_path / "a", change(1), USAGE, {"id": OTHER, "path": ID})
    settle = {"type": "sidecar.posting.v1", "id": f"{7:026d}", "causationid": ID, "data": {"usage": {"tokens": 1}}}
    second = lines(
        tmp_path / "b", USAGE, change(1), change(2, "void"), settle, change(3, cause=OTHER) | {"subject": ID}
    )
    with (tmp_path / "b").open("ab") as file:
        file.write(f'torn {ID}\n["{ID}"]\n'.encode())
    history = await StoredOriginals([first, second]).find(ID)
    assert history.record == USAGE
    assert [each["id"][-1] for each in history.changes] == ["1", "2"]
    assert history.usage == {"tokens": 3}


async def test_changes_without_their_record_are_not_found(tmp_path):
    assert await StoredOriginals([lines(tmp_path / "a", change(1))]).find(ID) is None


@pytest.mark.kafka
async def test_a_record_is_found_in_a_topic(kafka_server):
    topics = make_topics(kafka_server.bootstrap)
    producer = Producer({"bootstrap.servers": topics.bootstrap})
    for record in (USAGE, change(1), change(2, cause=OTHER)):
        producer.produce(topics.records, orjson.dumps(record), b"acme")
    producer.flush(10)
    source = RecordSource("records", topic=topics.records, connection={"bootstrap_servers": topics.bootstrap})
    history = await StoredOriginals([source]).find(ID)
    assert (history.record, len(history.changes)) == (USAGE, 1)
