import json

import jsonschema
import pytest
import yaml

from tests.cli.conftest import POLICY, SETTINGS

VALIDATOR = jsonschema.Draft202012Validator


@pytest.mark.parametrize("what", ["record", "policy", "config"])
def test_a_schema_is_a_schema(sidecar, what):
    status, out, _ = sidecar("schema", what)
    assert status == 0
    VALIDATOR.check_schema(json.loads(out))


@pytest.mark.parametrize(("what", "good"), [("policy", POLICY), ("config", SETTINGS)])
def test_what_runs_is_valid_and_what_does_not_is_not(sidecar, what, good):
    schema = VALIDATOR(json.loads(sidecar("schema", what)[1]))
    document = yaml.safe_load(good)
    assert list(schema.iter_errors(document)) == []
    assert list(schema.iter_errors(document | {"nonsense": 1})) != []
