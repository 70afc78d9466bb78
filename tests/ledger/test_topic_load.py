"""The loop over partitions waits for what is late, and goes on from what it has read."""

import orjson
import pytest

from sidecar.core.errors import SinkError
from sidecar.edge.kafka.bulk import Chunk
from sidecar.edge.kafka.connection import KafkaRefusalError
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.ledger import topic_load
from sidecar.ledger.load_options import LoadOptions
from sidecar.ledger.loading import Loader
from tests.edge.ledger.events import usage
from tests.ledger.test_loading import MEMORY, Away


class Silent:
    """A reader of one partition with 10 offsets, which gets nothing; `error` when it asks for the stable end."""

    def __init__(self, error):
        self.error = error

    def partitions(self, topics):
        return "A", {topic: [0] for topic in topics}

    def bounds(self, places):
        return dict.fromkeys(places, (0, 10))

    def assign(self, positions):
        self.positions = positions

    def read(self, _seconds):
        return Chunk({}, dict(self.positions))

    def stable_ends(self):
        raise self.error


def load_silent(folder, error, **options):
    with Loader(LedgerFolder(folder), LoadOptions(**options), memory=MEMORY) as loader:
        loader.load_topics(Silent(error), ["t"])


def test_an_outage_is_an_error_and_not_the_end_and_is_waited_for_where_a_load_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(topic_load, "_PATIENCE_SECONDS", 0.01)
    # Fails if silence is taken for the end: the load of half a topic would be reported as done.
    with pytest.raises(SinkError, match="no answer"):
        load_silent(tmp_path, SinkError("no answer"))
    troubles = []
    stop = {"stop": lambda: len(troubles) > 2, "on_trouble": troubles.append, "follow": True}
    load_silent(tmp_path, SinkError("no answer"), **stop)
    assert set(troubles) == {"no answer"}
    with pytest.raises(KafkaRefusalError):
        load_silent(tmp_path, KafkaRefusalError("wrong password"), **stop | {"stop": lambda: False})


class Growing(Away):
    """A topic that gets a second partition after the first one's records were read. Kafka is away in between."""

    def __init__(self):
        super().__init__(0)
        self.assigned = []
        self.was_read = False
        self.reads = 0

    def partitions(self, topics):
        answer = super().partitions(topics)
        return answer if not self.assigned else (answer[0], {topic: [0, 1] for topic in topics})

    def assign(self, positions):
        self.assigned.append(dict(positions))

    def read(self, seconds):
        messages = [] if self.was_read else [(number, orjson.dumps(usage(number))) for number in range(3)]
        self.failures += 0 if self.was_read else 2
        self.was_read = True
        self.reads += 1
        return Chunk({("t", 0): messages} if messages else {}, {})


def test_what_was_read_and_is_in_no_file_is_not_read_again_after_a_partition_was_taken(tmp_path, monkeypatch):
    # Fails if reading goes on at the ends of the files, or an outage while it looks for partitions ends or blocks it.
    monkeypatch.setattr(topic_load, "_LOOK_SECONDS", 0.001)
    reader, troubles = Growing(), []
    options = {"stop": lambda: len(reader.assigned) > 1, "on_trouble": lambda _: troubles.append(reader.reads)}
    with Loader(LedgerFolder(tmp_path), LoadOptions(**options, follow=True), memory=MEMORY) as loader:
        loader.load_topics(reader, ["t"])
        assert loader.report.total("records") == 3
    assert reader.assigned == [{("t", 0): 0}, {("t", 0): 3, ("t", 1): 0}]
    assert len(set(troubles)) == 2
