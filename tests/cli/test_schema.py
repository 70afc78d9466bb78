import json

import jsonschema
import pytest
import yaml

from tests.cli.conftest import POLICY, SETTINGS

VALIDATOR = jsonschema.Draft202012Validator


@pytest.mark.parametrize("what", ["record", "policy", "settings", "config"])
def test_a_schema_is_a_schema(sidecar, what):
    status, out, _ = sidecar("schema", what)
    assert status == 0
    VALIDATOR.check_schema(json.loads(out))


@pytest.mark.parametrize(("what", "good"), [("policy", POLICY), ("settings", SETTINGS)])
def test_what_runs_is_valid_and_what_does_not_is_not(sidecar, what, good):
    schema = VALIDATOR(json.loads(sidecar("schema", what)[1]))
    document = yaml.safe_load(good)
    assert list(schema.iter_errors(document)) == []
    assert list(schema.iter_errors(document | {"nonsense": 1})) != []


@pytest.mark.parametrize(("what", "row"), [("record", "| `customer` |"), ("settings", "| `http.idle_timeout_ms` |")])
def test_the_table_of_a_schema_has_its_fields(sidecar, what, row):
    status, out, _ = sidecar("schema", what, "--table")
    assert status == 0
    assert row in out


def test_a_schema_without_a_table_says_which_have_one(sidecar):
    status, _, err = sidecar("schema", "policy", "--table")
    assert status == 2
    assert "--table is for record and settings" in err
