import pytest

from sidecar.core.errors import SinkError
from sidecar.ledger.connection import open_ledger
from tests.ledger.parquet import event, write


def test_all_files_are_one_relation_that_knows_the_topics(tmp_path):
    write(tmp_path, [event("usage", "s", 1, usage={"a": 1})])
    write(tmp_path, [event("usage", "s", 2, usage={"a": 1})], part=7, first=5)
    write(tmp_path, [event("denial", "s/denials", 1)], topic="usage.denials")
    (tmp_path / "usage.records" / "p0000.new").write_text("a draft")
    with open_ledger(tmp_path) as ledger:
        assert ledger.engine.run("SELECT DISTINCT topic FROM ledger ORDER BY topic") == [
            ("usage.denials",),
            ("usage.records",),
        ]
        assert ledger.positions() == {"usage.denials/p0000": 1, "usage.records/p0000": 1, "usage.records/p0007": 6}
        with pytest.raises(SinkError, match="DuckDB: "):
            ledger.engine.run("SELECT nothing")


def test_without_records_it_says_how_they_get_there(tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(SinkError, match="`sidecar ledger load`"), open_ledger(folder):
            pass
