"""The views read what is whole, name what is not, and have the columns that docs/ledger.md lists."""

from pathlib import Path

import pytest

from sidecar.core.record.fields import FIELDS
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.edge.ledger.schema import COLUMNS
from sidecar.edge.ledger.views import VIEWS
from sidecar.edge.ledger.writer import copy_options, metadata_of
from tests.edge.ledger.events import event, usage
from tests.edge.ledger.ledgers import TOPIC, ask, load, views


def test_every_view_is_there_of_an_empty_ledger_too(tmp_path):
    for name in ("ledger", *VIEWS):
        assert ask(tmp_path, f"SELECT count(*) FROM {name}") == [(0,)]
    columns = [name for name, *_ in ask(tmp_path, "DESCRIBE ledger")]
    assert columns == ["topic", *[column.name for column in COLUMNS]]


# Fails if one damaged file fails the query, or is left out in silence.
@pytest.mark.parametrize("damage", ["footer", "foreign", "text"])
def test_a_damaged_or_foreign_file_is_named_and_the_rest_is_read(tmp_path, damage):
    load(tmp_path, [usage(1)], [usage(2)], [usage(3)])
    path = sorted((tmp_path / TOPIC).glob("*.parquet"))[1]
    if damage == "footer":
        data = bytearray(path.read_bytes())
        data[-2000:-12] = bytes(1988)
        path.write_bytes(data)
    elif damage == "foreign":
        with Engine() as engine:
            engine.run(f"COPY (SELECT 1 AS units) TO '{path}' (FORMAT parquet)")
    else:
        path.write_text("nothing of ours")
    with views(tmp_path) as (engine, listing):
        assert engine.run('SELECT sum(units), list("offset" ORDER BY "offset") FROM usage') == [(2, [0, 2])]
    ((name, _),) = listing.refused
    assert name == f"{TOPIC}/{path.name}"


def test_a_column_that_older_files_do_not_have_is_null(tmp_path):
    load(tmp_path, [usage(1)])
    folder = LedgerFolder(tmp_path)
    [file] = folder.listing().files
    path = folder.at(file)
    with Engine() as engine:
        engine.run(f"COPY (SELECT * EXCLUDE (parent) FROM '{path}') TO '{path}.new' {copy_options(metadata_of(file))}")
    path.with_name(f"{path.name}.new").replace(path)
    load(tmp_path, [usage(2, parent="P")])
    assert ask(tmp_path, 'SELECT parent FROM usage ORDER BY "offset"') == [(None,), ("P",)]


def test_members_of_data_are_columns(tmp_path):
    highest = {"records": 7, "denials": 2}
    load(
        tmp_path,
        [
            event(1, "checkpoint", {"highest": highest, "totals": {"requests": 9}, "final": True}),
            event(2, "source", {"state": "closed", "about": "//s", "version": "1", "highest": highest}),
            event(3, "denial", {"customer": "a", "decision": {"violated": "monthly"}}),
            event(4, "denial-summary", {"customer": "a", "count": 5, "limit": "monthly", "first": "F", "last": "L"}),
            event(5, "audit", {"action": "keys.revoke", "after": {"a": 1}}),
            event(6, "policy", {"policy": "1", "state": "applied", "plans": {"pro@3": "ab"}}),
        ],
    )
    assert ask(tmp_path, "SELECT highest['records'], totals['requests'], final FROM checkpoints") == [(7, 9, True)]
    assert ask(tmp_path, "SELECT state, about, highest['denials'] FROM sources") == [("closed", "//s", 2)]
    denials = 'SELECT violated, "limit", "count", first_denial, last_denial FROM denials ORDER BY id'
    assert ask(tmp_path, denials) == [("monthly", None, None, None, None), (None, "monthly", 5, "F", "L")]
    # docs/ledger.md: all denials by limit; the record of a denial has no reason.
    by_limit = 'SELECT coalesce(violated, "limit"), sum(coalesce("count", 1)) FROM denials GROUP BY 1'
    assert by_limit in Path("docs/ledger.md").read_text()
    assert ask(tmp_path, by_limit) == [("monthly", 6)]
    assert ask(tmp_path, "SELECT action, after->>'a' FROM audits") == [("keys.revoke", "1")]
    assert ask(tmp_path, "SELECT policy, plans->>'$.\"pro@3\"' FROM policies") == [("1", "ab")]


# Fails if a view has a name of its own for a member: docs/record.md would not say what the column means.
@pytest.mark.parametrize(
    ("view", "kinds"),
    [("denials", {"denial", "denial-summary"}), ("postings", {"posting"}), ("checkpoints", {"checkpoint"}),
     ("sources", {"source"}), ("alerts", {"alert"}), ("audits", {"audit"}), ("policies", {"policy"})],
)  # fmt: skip
def test_columns_of_members_have_the_names_that_the_record_documents(tmp_path, view, kinds):
    documented = {each.name for each in FIELDS if kinds & set(each.kinds.split())}
    envelope = {name for name, *_ in ask(tmp_path, "DESCRIBE ledger")}
    members = {name for name, *_ in ask(tmp_path, f"DESCRIBE {view}")} - envelope
    assert members - documented <= {"violated", "first_denial", "last_denial"}  # of `decision`; FIRST is a word of SQL
    assert len(members & documented) > 1
