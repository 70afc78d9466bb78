"""The benchmark of the ledger measures records as they are, and a large ledger as a loader would make it."""

from benchmarks.billing import METERS, QUESTIONS, digests, generate, records, sums
from sidecar.ledger.reading import open_ledger
from tests.edge.ledger.ledgers import ask, load


def test_the_records_are_such_as_the_ledger_takes(tmp_path):
    for meters in METERS:
        made = [value for _, value in records(100, meters)]
        (loaded,) = load(tmp_path / str(meters), made)
        assert (loaded.records, loaded.rejected, loaded.copies, loaded.rows) == (100, 0, 0, 100 * meters)
        assert ask(tmp_path / str(meters), "SELECT count(DISTINCT duration_us) > 90 FROM usage") == [(True,)]


def test_a_generated_ledger_answers_every_question(tmp_path):
    generate(tmp_path, 5_000)
    with open_ledger(tmp_path, memory="512MB", threads=1) as ledger:
        assert ledger.faults == []
    assert ask(tmp_path, "SELECT count(*), count(*) FILTER (first) FROM usage") == [(5_000, 1_000)]
    assert digests(str(tmp_path))["groups"] == 1
    assert [sums(str(tmp_path), by, scope)["groups"] > 0 for by, scope in QUESTIONS][:4] == [True] * 4
