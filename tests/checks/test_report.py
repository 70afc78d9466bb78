import os
from dataclasses import replace
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from sidecar.checks.report import bounds, findings
from sidecar.config.settings import load_settings
from sidecar.core.policy import Limit
from sidecar.core.price.wallet import Grant
from sidecar.wallets.opening import open_wallets

MEMORY = load_settings(None, {})
FOUR = {"SIDECAR_REDIS__URL": "redis://127.0.0.1:6379/0", "SIDECAR_WORKERS": "4"}
LEASES = load_settings(None, FOUR)
REDIS = load_settings(None, FOUR | {"SIDECAR_REDIS__LEASES": "false"})
TWO_NODES = load_settings(None, FOUR | {"SIDECAR_REDIS__NODES": "2"})
RATE = Limit("burst", "rate", 10, per=5, period_us=1_000_000)


@pytest.fixture(autouse=True)
def _not_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.mark.parametrize(
    ("settings", "limit", "over", "after_restart"),
    [
        (MEMORY, RATE, 0, 0),
        (MEMORY, Limit("n", "concurrency", 4), 0, 0),
        (MEMORY, Limit("m", "quota", 100, calendar="month", over="allow"), 0, 0),
        (REDIS, RATE, 2 * 8 + 5, 0),
        (REDIS, Limit("burst", "rate", 10, per=5, period_us=1_000_000, on_store_failure="deny"), 0, 0),
        (REDIS, Limit("m", "quota", 2, calendar="month"), 4, 0),
    ],
)
def test_a_limit_is_missed_by_at_most(settings, limit, over, after_restart):
    assert bounds(limit, settings) == {
        "over_by_at_most": over,
        "over_after_restart": after_restart,
        "over_by_a_store_loss": limit.amount if settings is REDIS and limit.over == "deny" else 0,
        "lost_by_a_kill": 0,
    }


def test_nodes_that_share_a_store_share_what_each_decides_alone_and_leases():
    # Mutation: `redis.nodes` is left out of `Settings.total_workers`: two nodes would let through 200 alone.
    found = bounds(Limit("m", "quota", 100, calendar="month"), TWO_NODES)
    assert found == {
        "over_by_at_most": 96, "over_after_restart": 0, "over_by_a_store_loss": 100, "lost_by_a_kill": 6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "limit", "lost"),
    [
        (LEASES, Limit("m", "quota", 8000, calendar="month"), 1000),
        (LEASES, Limit("m", "quota", 8000, calendar="month", exact=True), 0),
        (LEASES, Limit("n", "concurrency", 8000), 0),
        (REDIS, Limit("m", "quota", 8000, calendar="month"), 0),
    ],
)
def test_a_killed_worker_takes_at_most_its_part_of_a_window_with_it(settings, limit, lost):
    assert bounds(limit, settings)["lost_by_a_kill"] == lost


EXAMPLES = Path(__file__).parents[2] / "policies/examples"


async def found(tmp_path, policy, keys="keys: []\n"):
    """The report of a policy for a node on a Redis that does not answer, without the warning of that."""
    (tmp_path / "keys.yaml").write_text(keys)
    (tmp_path / "keys.yaml").chmod(0o600)
    (tmp_path / "sidecar.yaml").write_text(
        f"policies: {EXAMPLES / policy}\nredis: {{ url: 'redis://127.0.0.1:6379' }}\n"
    )
    return await findings(load_settings(tmp_path / "sidecar.yaml", {}), offline=True)


async def test_a_route_whose_meters_look_at_bodies_says_so(tmp_path):
    told = await found(tmp_path, "data-api.yaml")
    assert {route["id"]: route["reads"] for route in told["routes"]} == {
        "query": ["response body"],
        "download": [],
        "health": [],
    }
    [chat] = (await found(tmp_path, "ai-tokens.yaml"))["routes"]
    assert (chat["reads"], chat["usage"]) == (["request body", "response body"], "openai")


async def test_limits_of_a_customer_are_told_where_they_are_unlike_the_plan_s(tmp_path):
    told = await found(tmp_path, "payments.yaml")
    own = {limit["id"]: limit["says"] for limit in told["limits"] if limit["customer"] == "cust-9"}
    assert own["monthly"] == "120000 per month of subscription"
    assert all(limit["kind"] not in ("priced", "balance") for limit in told["limits"])


async def test_what_is_not_billed_is_told(tmp_path):
    told = await found(tmp_path, "payments.yaml")
    assert told["exclude"] == [
        {"id": "retry", "says": "retries within 7 d"},
        {"id": "internal", "says": "customers cust-us"},
        {"id": "test_key", "says": "test keys"},
    ]
    assert (await found(tmp_path, "ai-tokens.yaml"))["exclude"][0]["says"] == "retries within 1 d"


async def test_a_key_that_its_customer_s_terms_do_not_apply_to_is_a_warning(tmp_path):
    key = f"keys: [{{ id: k1, hash: 'sha256:{'0' * 64}', customer: cust-9, subject: s, plan: starter }}]\n"
    told = await found(tmp_path, "payments.yaml", key)
    assert told["warnings"] == [
        "key k1: its plan is starter, but the terms of cust-9 extend business: they do not apply"
    ]


@pytest.mark.parametrize(
    ("more", "warns"),
    [
        (", unread: allow", True),
        (", unread: allow, max_body: 2MiB", True),
        (", unread: allow, max_body: 2MiB, body: 2MiB", False),
        (", unread: allow, max_body: 9kB", False),
        ("", False),  # it is refused
    ],
)
async def test_a_body_that_may_go_unread_though_it_is_metered_is_a_warning(tmp_path, more, warns):
    (tmp_path / "p.yaml").write_text(
        "meters: { a: { when: { json_rpc_method: x } }, b: { value: { json: response, pointer: /n } } }\n"
        f"routes: [{{ id: r, match: {{ path: /** }}{more} }}]\n"
    )
    told = (await found(tmp_path, tmp_path / "p.yaml"))["warnings"]
    said = (
        "route r: a count their default for bodies over 1048576 bytes: set `max_body: 1048576B` to refuse such bodies"
    )
    assert told == [said] * warns


@pytest.mark.parametrize("policy", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
async def test_a_shipped_policy_is_without_warnings(tmp_path, policy):
    assert (await found(tmp_path, policy))["warnings"] == []


async def test_credit_in_another_scale_than_that_of_the_policy_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "p.yaml").write_text(
        "units: { credits: { digits: 2 } }\nplans: { p: { currency: credits, prices: { requests: { per_unit: 1 } }, "
        "limits: [{ id: credit, balance: credits }] } }\n"
    )
    (tmp_path / "keys.yaml").write_text("keys: []\n")
    (tmp_path / "keys.yaml").chmod(0o600)
    (tmp_path / "sidecar.yaml").write_text("policies: p.yaml\n")
    settings = load_settings(tmp_path / "sidecar.yaml", {})
    monkeypatch.setattr("sidecar.checks.upstreams.unreachable", AsyncMock(return_value=[]))
    async with open_wallets(settings) as wallets:
        await wallets("acme", "credits").grant(Grant("g", 0, 0, 0, 5, 5))
    [warning] = (await findings(settings))["warnings"]
    assert warning.startswith(
        "unit credits: requests use wallets with 2 digits, but balances with 9 digits are left in 1"
    )
    assert (await findings(settings, offline=True))["warnings"] == []


# conservation V5: printed as 0, seen as one whole amount for each time that Redis came back empty.
@pytest.mark.parametrize(
    ("more", "over"), [({}, 10), ({"on_store_loss": "deny"}, 0), ({"over": "allow"}, 0), ({"stage": "soft"}, 0)]
)
def test_a_redis_that_comes_back_empty_lets_one_amount_more_pass_unless_it_is_denied(more, over):
    assert bounds(replace(RATE, **more), REDIS)["over_by_a_store_loss"] == over


@pytest.mark.parametrize(
    ("line", "records"), [("sink: { stdout: true }", "stdout"), ("sink: { file: /srv/r.jsonl }", "/srv/r.jsonl")]
)
async def test_the_report_says_where_records_go(tmp_path, line, records):
    # Fails if the default of sink.file is named beside standard output.
    (tmp_path / "keys.yaml").write_text("keys: []\n")
    (tmp_path / "keys.yaml").chmod(0o600)
    (tmp_path / "sidecar.yaml").write_text(f"policies: {EXAMPLES / 'data-api.yaml'}\n{line}\n")
    assert (await findings(load_settings(tmp_path / "sidecar.yaml", {})))["records"] == records


GATED = """
routes:
  - { id: chat, match: { methods: [POST], path: /v1/chat/completions }, feature: chat }
  - { id: everything-else, match: { path: "/**" } }
plans:
  pro: { features: [chat], limits: [ { id: m, quota: 100000/month } ] }
"""


async def warnings_of(tmp_path, policy):
    (tmp_path / "p.yaml").write_text(policy)
    (tmp_path / "keys.yaml").write_text("keys: []\n")
    (tmp_path / "keys.yaml").chmod(0o600)
    (tmp_path / "sidecar.yaml").write_text("policies: p.yaml\n")
    told = await findings(load_settings(tmp_path / "sidecar.yaml", {}), offline=True)
    return [warning.replace(f"{tmp_path}/", "") for warning in told["warnings"]]


# Express, ASP.NET and Spring serve these: parse-community/parse-server #10501, jkaninda/goma-gateway #595,
# getodk/central #1263.
async def test_spellings_that_avoid_a_gated_route_are_a_warning_with_file_line_and_remedy(tmp_path):
    [warning] = await warnings_of(tmp_path, GATED)
    assert warning == (
        "p.yaml:3: routes[0].match.path: servers that take these spellings for the same path serve them by route "
        "everything-else, without feature chat: /v1/chat/completions/ (a slash at the end), /v1/chat/completions. "
        "(a dot at the end), /v1/chat/completions%20 (a blank at the end), /V1/CHAT/COMPLETIONS (other upper and "
        "lower case), /v1/chat/completions;x=1 (a parameter): write /v1/chat/completions/** for the slash at the end; "
        "demand the same on route everything-else, or narrow its methods or its path /** to those of the API"
    )


# Fails if a remedy that the warning names does not end it.
@pytest.mark.parametrize(
    ("before", "after", "gone"),
    [
        ("/v1/chat/completions }", "/v1/chat/completions/** }", "(a slash at the end)"),
        ('path: "/**" }', 'path: "/**" }, feature: chat', "warning"),
        ('path: "/**"', "path: /v1/models", "warning"),
        ('path: "/**"', 'methods: [GET, HEAD], path: "/**"', "warning"),
    ],
)
async def test_the_remedy_of_a_spelling_is_the_end_of_its_warning(tmp_path, before, after, gone):
    assert before in GATED
    told = await warnings_of(tmp_path, GATED.replace(before, after))
    assert told == [] if gone == "warning" else gone not in told[0]


async def test_the_spellings_that_a_route_takes_are_listed(tmp_path):
    (tmp_path / "p.yaml").write_text("routes: [{ id: r, match: { path: /** }, paths: refuse }]\n")
    (tmp_path / "keys.yaml").write_text("keys: []\n")
    (tmp_path / "sidecar.yaml").write_text("policies: p.yaml\n")
    [listed] = (await findings(load_settings(tmp_path / "sidecar.yaml", {})))["routes"]
    assert listed["paths"] == "refuse"


async def test_the_origins_and_the_places_of_keys_of_a_route_are_listed(tmp_path):
    cors = "cors: { origins: [https://b.example, https://a.example] }"
    (tmp_path / "p.yaml").write_text(f"routes: [{{ id: r, match: {{ path: /** }}, credentials: gemini, {cors} }}]\n")
    (tmp_path / "keys.yaml").write_text("keys: []\n")
    (tmp_path / "sidecar.yaml").write_text("policies: p.yaml\n")
    [listed] = (await findings(load_settings(tmp_path / "sidecar.yaml", {})))["routes"]
    assert listed["cors"] == ["https://a.example", "https://b.example"]
    assert listed["credentials"] == ["X-Goog-Api-Key", "?key"]
