"""Tests mirror sources, so that whoever changes a module knows where its promises are held."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Modules without a test file of their own, and where what they promise is held instead.
ELSEWHERE = {
    "sidecar/__main__.py": "one line; tests/cli start the command through it",
    "sidecar/keys/migration.py": "a report of what others find; tests/cli/test_migrate.py reads all of it",
    "sidecar/ports.py": "interfaces; mypy and the edges' own tests hold them",
    "sidecar/core/limits/base.py": "questions; tests/core/limits/test_registry.py asks every kind all of them",
    "sidecar/core/limits/leasing.py": "a lease's figures by limit; tests/core/decision/test_lease.py leases by them",
    "sidecar/core/limits/limit.py": "fields without behaviour; the tests of every kind read them",
    "sidecar/core/native.py": "a word to the compiler; tests/deploy/test_wheel.py compiles what says it",
    "sidecar/core/usage/quantities.py": "tests/core/usage/test_meters.py reads every quantity by a meter",
    "sidecar/core/usage/ai/base.py": "fields without behaviour; tests of core/usage/ai read those of each",
    "sidecar/edge/journal/entry.py": "fields; tests/edge/journal/test_reader.py reads all of them",
    "sidecar/edge/kafka/options.py": "fields; tests/edge/kafka/test_positions.py has the names that are made of them",
    "sidecar/edge/kafka/producer.py": "what is private to aiokafka; tests/edge/kafka/test_sink.py sends and ends by it",
    "sidecar/edge/ledger/counts.py": "SQL; tests/ledger/test_counting.py holds all of it to a plain sum",
    "sidecar/edge/ledger/engine.py": "a connection; all of tests/edge/ledger; test_reading.py restricts it",
    "sidecar/edge/ledger/clickhouse_tables.py": "SQL; tests/ledger/test_pushing.py makes and reads all of it",
    "sidecar/edge/ledger/dialects.py": "SQL; tests/ledger/test_pushing.py asks all of it of both engines",
    "sidecar/ledger/backends.py": "connections; tests/ledger/test_pushing.py and test_reading.py ask them",
    "sidecar/edge/ledger/queries.py": "SQL; tests/ledger/test_reading.py asks all of it",
    "sidecar/ledger/load_options.py": "fields; tests/ledger/test_loading.py loads by all of them",
    "sidecar/ledger/report.py": "counts; tests/cli/test_ledger.py reads all of them",
    "sidecar/edge/shipping/figures.py": "counts and a state; tests/edge/shipping/test_shipper.py reads all of them",
    "sidecar/edge/shipping/source.py": "interfaces; tests/edge/shipping/test_shipper.py has doubles of them",
    "sidecar/cli/options.py": "shared options; tests/cli/test_cli.py meets them in every command",
    "sidecar/cli/children.py": "two hidden commands; tests/cli/test_run.py runs them as a house does",
    "sidecar/gateway/context.py": "collaborators with tests of their own; every test of the gateway makes one",
    "sidecar/gateway/states.py": "names of numbers; tests/gateway/test_guard.py enters all of them",
}


def sources():
    return sorted(
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "sidecar").rglob("*.py")
        if path.name != "__init__.py" or len(path.read_text().splitlines()) > 30
    )


def mirror(source):
    path = Path(source)
    folder = Path("tests", *path.parts[1:-1])
    if path.name == "__init__.py":
        return folder / f"test_{path.parent.name}.py"
    return folder / f"test_{path.name}"


@pytest.mark.parametrize("source", sources())
def test_every_module_has_its_test(source):
    assert (ROOT / mirror(source)).exists() or source in ELSEWHERE, f"write {mirror(source)}"


def test_no_module_that_has_its_test_is_excused():
    assert [source for source in ELSEWHERE if (ROOT / mirror(source)).exists()] == []


def test_every_excuse_is_for_a_module_that_is_there():
    assert [source for source in ELSEWHERE if not (ROOT / source).exists()] == []
