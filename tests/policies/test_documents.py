"""The policies that are shipped run as they are, and their schema is the one that the code has."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from jsonschema import Draft202012Validator

from sidecar.config.compile import load as load_documents
from sidecar.config.policies import policy_schema
from sidecar.core.errors import PolicyError
from sidecar.core.price import rate

FOLDER = Path(__file__).parents[2] / "policies"
DOCUMENTS = sorted(FOLDER.rglob("*.yaml"))
MANUAL = (FOLDER.parent / "docs/policies.md").read_text()
ALERTS = (FOLDER.parent / "docs/retries-and-alerts.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", MANUAL + ALERTS, re.DOTALL | re.MULTILINE)
SCHEMA = FOLDER / "policy.schema.json"


@pytest.mark.parametrize("path", [FOLDER, *DOCUMENTS], ids=lambda path: path.name)
def test_every_shipped_policy_loads_by_itself(path):
    policy = load_documents(path, {"default"}).policy
    assert all(policy.terms(plan, route).limits for plan in policy.plans for route in policy.routes)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.split()[0])
def test_every_policy_in_the_manual_loads_and_holds_to_the_schema(example, tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(example)
    load_documents(path, {"default"})
    Draft202012Validator(policy_schema()).validate(yaml.safe_load(example))


def test_the_fault_in_the_manual_is_told_as_it_says(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("plans: {pro: {limits: [{id: a, rate: 1/s}, {id: b, quota: 5/mon}]}}")
    with pytest.raises(PolicyError) as caught:
        load_documents(path, {"default"})
    assert str(caught.value).partition(": ")[2] in MANUAL


def test_the_folder_is_the_free_tier_that_a_newcomer_starts_with():
    # Fails if it has a version: an edit of a number, which is the first step of a newcomer, would be refused.
    loaded = load_documents(FOLDER, {"default"})
    assert set(loaded.policy.plans) == {"free"}
    assert not loaded.labels


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
    policy = load_documents(FOLDER / "examples/free-and-pro-with-overage.yaml", {"default"}).policy
    free, pro = ({limit.id: limit for limit in policy.plans[plan].limits} for plan in ("free", "pro"))
    assert (free["monthly"].over, pro["monthly"].over) == ("deny", "allow")
    assert free.keys() <= pro.keys()


def test_the_rollout_is_in_shadow():
    policy = load_documents(FOLDER / "examples/shadow-rollout.yaml", {"default"}).policy
    stages = {limit.id: limit.stage for limit in policy.plans["free"].limits}
    assert stages == {"burst": "enforce", "monthly": "enforce", "monthly-v2": "shadow", "per-minute": "shadow"}


def load(name):
    return load_documents(FOLDER / "examples" / name, {"default"}).policy


def limits(policy, plan, customer=""):
    return {limit.id: limit for limit in policy.terms(plan, policy.routes[-1], customer).limits}


def test_tokens_are_paid_for_by_kind_and_model_and_no_model_is_free():
    policy = load("ai-tokens.yaml")
    found = limits(policy, "prepaid")
    assert list(found)[2:] == [
        *(f"credit.{size}_{kind}" for size in ("mini", "large") for kind in ("input", "cached", "output")),
        "credit",
    ]
    meters = {meter.id: meter for meter in policy.terms("prepaid", policy.routes[0]).meters}
    for model in ("gpt-4.1-mini-2025-04-14", "gpt-4.1", "o3", "not-out-yet"):
        exchange = SimpleNamespace(
            tap=SimpleNamespace(model=model, tokens=lambda kind, _: {"output_total": 9}.get(kind))
        )
        counted = [size for size in ("mini", "large") if meters[f"{size}_output"].measure(exchange) == 9]
        assert counted == ["mini" if "mini" in model else "large"]
    assert policy.terms("prepaid", policy.routes[0]).lacks("o3-pro") == "reasoning-models"
    assert policy.offering("reasoning-models") == ("team",)


def test_a_call_of_a_batch_is_either_archive_or_plain():
    policy = load("json-rpc.yaml")
    meters = {meter.id: meter for meter in policy.terms("growth", policy.routes[0]).meters}
    tap = SimpleNamespace(calls=["eth_call", "debug_traceCall", "eth_getLogs", "eth_new"])
    exchange = SimpleNamespace(tap=tap, status=200)
    counted = {name: meters[name].measure(exchange) for name in ("calls", "archive_calls", "compute_units")}
    assert counted == {"calls": 2, "archive_calls": 2, "compute_units": 26 + 300 + 75 + 10}
    found = limits(policy, "growth")
    assert rate(found["commit.calls"].price, 50_000_000) == 0
    assert rate(found["commit.calls"].price, 150_000_001) == 1_000_000_008_000  # 1,000 dollars, and one unit
    assert (found["commit"].over, found["commit.archive_calls"].price.amount) == ("allow", 40_000)


def test_rows_and_bytes_are_read_where_they_are_sold():
    policy = load("data-api.yaml")
    assert {route.id: sorted(route.reads) for route in policy.routes} == {
        "query": ["response"],
        "download": [],
        "health": [],
    }
    assert not policy.terms("free", policy.match("GET", "/v1/exports/x")).entitled


def test_seats_bring_calls_and_one_customer_has_terms_of_its_own():
    policy = load("payments.yaml")
    plain, own = limits(policy, "business"), limits(policy, "business", "cust-9")
    assert (plain["monthly"].amount, own["monthly"].amount) == (10_000, 120_000)
    assert policy.terms("business", policy.routes[0], "cust-9").plan == "business@1+acme-2026"


def test_a_used_up_free_tier_leads_to_more():
    found = limits(load_documents(FOLDER, {"default"}).policy, "free")
    assert (found["monthly"].amount, found["monthly"].link) == (10_000, "https://example.com/plans")
