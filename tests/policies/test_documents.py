"""The policies that are shipped run as they are, and their schema is the one that the code has."""

import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from sidecar.config.compile import load_policy
from sidecar.config.policies import policy_schema
from sidecar.core.errors import PolicyError

FOLDER = Path(__file__).parents[2] / "policies"
DOCUMENTS = sorted(FOLDER.rglob("*.yaml"))
MANUAL = (FOLDER.parent / "docs/policies.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", MANUAL, re.DOTALL | re.MULTILINE)
SCHEMA = FOLDER / "policy.schema.json"


@pytest.mark.parametrize("path", [FOLDER, *DOCUMENTS], ids=lambda path: path.name)
def test_every_shipped_policy_loads_by_itself(path):
    policy = load_policy(path, {"default"})
    assert all(policy.terms(plan, policy.match("GET", "/")).limits for plan in policy.plans)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.split()[0])
def test_every_policy_in_the_manual_loads_and_holds_to_the_schema(example, tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(example)
    load_policy(path, {"default"})
    Draft202012Validator(policy_schema()).validate(yaml.safe_load(example))


def test_the_fault_in_the_manual_is_told_as_it_says(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("plans: {pro: {limits: [{id: a, rate: 1/s}, {id: b, quota: 5/mon}]}}")
    with pytest.raises(PolicyError) as caught:
        load_policy(path, {"default"})
    assert str(caught.value).partition(": ")[2] in MANUAL


def test_the_folder_is_the_free_tier_that_a_newcomer_starts_with():
    plans = load_policy(FOLDER, {"default"}).plans
    assert {plan.label for plan in plans.values()} == {"free@1"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_shipped_policy_holds_to_the_schema(path):
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(yaml.safe_load(path.read_text()))


def test_the_schema_in_the_folder_is_the_one_that_the_code_has():
    # `sidecar schema policy > policies/policy.schema.json` brings it up to date.
    Draft202012Validator.check_schema(policy_schema())
    assert json.loads(SCHEMA.read_text()) == policy_schema()


@pytest.mark.parametrize(
    "document",
    [
        {"plan": {}},
        {"plans": {"p": {"limits": [{"rate": "5/s"}]}}},
        {"plans": {"p": {"limits": [{"id": "a", "rate": 5}]}}},
    ],
)
def test_the_schema_refuses_what_the_load_refuses(document):
    assert list(Draft202012Validator(policy_schema()).iter_errors(document))


def test_an_upgrade_keeps_what_was_used():
    policy = load_policy(FOLDER / "examples/free-and-pro-with-overage.yaml", {"default"})
    free, pro = ({limit.id: limit for limit in policy.plans[plan].limits} for plan in ("free", "pro"))
    assert (free["monthly"].over, pro["monthly"].over) == ("deny", "allow")
    assert free.keys() <= pro.keys()


def test_the_rollout_is_in_shadow():
    policy = load_policy(FOLDER / "examples/shadow-rollout.yaml", {"default"})
    stages = {limit.id: limit.stage for limit in policy.plans["free"].limits}
    assert stages == {"burst": "enforce", "monthly": "enforce", "monthly-v2": "shadow", "per-minute": "shadow"}
