import pytest

from sidecar.edge.clock import SystemClock
from sidecar.edge.journal.command_source import CommandSource, PendingRecord
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.edge.ledger.views import create_views
from sidecar.ledger.pending import RELATION, pending_rows
from tests.edge.ledger.events import change, record_id, usage
from tests.edge.ledger.ledgers import load, raw

NUMBERS = range(1, 7)


@pytest.fixture
def journal(tmp_path):
    """A journal with six records and a correction of the first."""
    records = [*[usage(number) for number in NUMBERS], change(9, record_id(1), {"requests": -1})]

    def pending(record):
        return PendingRecord(record["id"].encode(), "acme", lambda *_: raw(record))

    with CommandSource(tmp_path / "journal", "//sidecar/test/n", SystemClock()) as commands:
        commands.write([pending(each) for each in records], "1")
    return tmp_path / "journal"


def test_records_that_the_ledger_has_are_left_out(tmp_path, journal):
    # Fails if a record counts twice, or if a correction whose original is loaded is left out.
    load(tmp_path / "ledger", [usage(number) for number in (1, 2)], [usage(4)])
    with Engine() as engine:
        create_views(engine, LedgerFolder(tmp_path / "ledger"))
        with pending_rows(engine, journal) as count:
            rows = engine.run(f"SELECT id FROM {RELATION} WHERE kind IN ('usage', 'correction') ORDER BY id")
            others = engine.run(f"SELECT count(*) FROM {RELATION} WHERE kind IN ('source', 'checkpoint')")[0][0]
    assert [id_ for (id_,) in rows] == sorted([*map(record_id, (3, 5, 6)), change(9, "", {})["id"]])
    assert count == len(rows) + others


def test_a_journal_that_does_not_exist_has_nothing(tmp_path):
    load(tmp_path / "ledger", [usage(1)])
    with Engine() as engine:
        create_views(engine, LedgerFolder(tmp_path / "ledger"))
        with pending_rows(engine, tmp_path / "none") as count:
            assert count == 0
