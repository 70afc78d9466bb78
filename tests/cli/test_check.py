import json
import re
from pathlib import Path

import pytest

from sidecar.loading.exposure import AS_ROOT


def test_a_good_configuration_is_status_0_and_told(sidecar, folder):
    status, out, err = sidecar("check", "-c", "sidecar.yaml")
    assert (status, err) == (0, "")
    assert "counters in memory" in out
    assert "\n\nNo limit is exceeded, not even after a restart or a kill. Counters are lost only if " in out
    # Fails if a node without Redis is told what Redis, or being without it, would do.
    assert not re.search("on_store_|over_by|while redis|redis is away", out)
    assert re.search(r"\nconnections of clients: at most [1-9]\d* per worker\n", out)
    assert "\nclients see what is left with their key: GET /.well-known/usage\n" in out
    assert out.endswith("good\n")


def test_what_clients_see_of_their_usage_is_listed(in_process, folder):
    # Fails if a plan that hides it is not named, or a path that is off is.
    text = (folder / "p.yaml").read_text()
    (folder / "p.yaml").write_text(text.replace("  free:\n", "  free:\n    show_usage: off\n"))
    assert "GET /.well-known/usage; not of plan free\n" in in_process("check")[1]
    assert "clients see" not in in_process("check", SIDECAR_USAGE_PATH="")[1]
    status, _, err = in_process("check", SIDECAR_USAGE_PATH="usage")
    assert (status, "usage_path: 'usage' is not right: write a path" in err) == (2, True)


def test_json_has_every_limit_with_its_bound(sidecar, folder):
    status, out, _ = sidecar("check", "-c", "sidecar.yaml", "--json")
    found = json.loads(out)
    assert status == 0
    assert {limit["id"]: limit["says"] for limit in found["limits"]} == {
        "burst": "5 per s, 10 at once",
        "monthly": "10000 per month",
    }
    assert all(limit["over_by_at_most"] == 0 for limit in found["limits"])
    assert [warning for warning in found["warnings"] if warning != AS_ROOT] == []


# Fails if check leaves the warnings of exposure.py out.
def test_a_key_file_that_others_can_read_is_a_warning(sidecar, folder):
    (folder / "keys.yaml").chmod(0o644)
    status, _, err = sidecar("check", "-c", "sidecar.yaml")
    assert status == 0
    assert err.endswith(f"can read it: chmod o= {folder}/keys.yaml\n")


# Mutation: the control listener has the scheme of clients.
def test_it_shows_the_addresses_and_urls_of_both_listeners(sidecar, folder):
    several = {"SIDECAR_LISTEN": ":9001,[::1]:9002", "SIDECAR_CONTROL__LISTEN": "[::1]:9003"}
    status, out, err = sidecar("check", "-c", "sidecar.yaml", "--offline", **several)
    assert (status, err) == (0, "")
    assert re.search(r"listen +:9001 +all addresses +http://localhost:9001\n", out)
    assert re.search(r"listen +\[::1\]:9002 +- +http://\[::1\]:9002\n", out)
    assert re.search(r"control.listen +\[::1\]:9003 +- +http://\[::1\]:9003\n", out)


VENDOR = """\
upstreams:
  default:
    urls: ["https://api.vendor.example/v1"]
    host: upstream
    headers: { Authorization: "Bearer ${VENDOR_KEY}" }
policies: p.yaml
keys: { file: keys.yaml }
"""


# Fails if `check` passes where `run` would not start, or prints a secret.
def test_a_variable_that_is_not_set_is_a_fault_with_file_line_and_field(sidecar, folder):
    (folder / "sidecar.yaml").write_text(VENDOR)
    status, out, err = sidecar("check", "-c", "sidecar.yaml")
    assert (status, out) == (2, "")
    assert err == (
        "sidecar.yaml:5: upstreams.default.headers.Authorization: the environment variable VENDOR_KEY is not set: "
        "set it, or write ${file:/run/secrets/VENDOR_KEY}\n"
    )
    status, out, err = sidecar("check", "-c", "sidecar.yaml", "--offline", VENDOR_KEY="sk-vendor")
    assert (status, err) == (0, "")
    assert re.search(r"default +https://api.vendor.example:443/v1 +upstream +Authorization +-\n", out)
    assert (
        "sk-vendor"
        not in out + sidecar("check", "-c", "sidecar.yaml", "--json", "--offline", VENDOR_KEY="sk-vendor")[1]
    )


def test_where_leases_are_on_it_says_what_a_kill_can_cost(sidecar, folder):
    told = {"SIDECAR_REDIS__URL": "redis://127.0.0.1:1/0", "SIDECAR_WORKERS": "2"}
    assert "lost_by_a_kill" not in sidecar("check", "-c", "sidecar.yaml", SIDECAR_REDIS__LEASES="false", **told)[1]
    _, out, _ = sidecar("check", "-c", "sidecar.yaml", **told)
    assert re.search(r"monthly +10000 per month .* allow +10000 +2500\n", out)


def test_several_nodes_on_one_redis_are_told_with_the_bounds_of_all(sidecar, folder):
    told = {"SIDECAR_REDIS__URL": "redis://127.0.0.1:1/0", "SIDECAR_WORKERS": "2", "SIDECAR_REDIS__NODES": "3"}
    _, out, _ = sidecar("check", "-c", "sidecar.yaml", **told)
    assert ", 2 workers on each of 3 nodes\n" in out
    assert re.search(r"monthly +10000 per month .* allow +9996 +allow +10000 +833\n", out)


def test_a_key_of_a_plan_that_is_not_there_is_a_warning(sidecar, folder):
    (folder / "keys.yaml").write_text(
        f"keys:\n  - {{ id: k1, hash: 'sha256:{'0' * 64}', customer: c, subject: s, plan: gold }}\n"
    )
    status, _, err = sidecar("check", "-c", "sidecar.yaml")
    assert status == 0
    what = "key k1: plan 'gold' is not defined, its requests are refused (403); known: free"
    assert err == f"warning: {folder}/keys.yaml: {what}\n"


def test_kafka_that_does_not_answer_is_a_warning_not_a_fault(sidecar, folder):
    status, _, err = sidecar("check", "-c", "sidecar.yaml", SIDECAR_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert status == 0
    assert err.startswith("warning: kafka: its topics could not be checked: ")


@pytest.mark.redis
@pytest.mark.parametrize(
    ("marker", "warning"),
    [
        ("ID 0 0", "warning: redis: it has keys of version 0.1, which are not read: run `sidecar migrate`\n"),
        ("ID 0 0 2", ""),
    ],
)
def test_a_redis_of_version_0_1_is_a_warning(sidecar, folder, redis_clean, marker, warning):
    redis_clean.cli.set("sc:store:mark", marker)
    status, _, err = sidecar("check", "-c", "sidecar.yaml", SIDECAR_REDIS__URL=redis_clean.url)
    assert (status, err) == (0, warning)


@pytest.mark.redis
def test_a_redis_that_does_not_answer_is_a_warning_not_a_fault(sidecar, folder, make_redis):
    # Fails if the question has no bound: a check is often made where there is no Redis.
    server = make_redis()
    where = {"SIDECAR_REDIS__URL": server.url}
    server.pause()
    status, _, err = sidecar("check", "-c", "sidecar.yaml", **where)
    assert (status, err.count("\n")) == (0, 1)
    assert re.fullmatch(r"warning: redis at 127\.0\.0\.1:\d+ did not answer: .+\n", err)
    server.kill()
    status, _, err = sidecar("check", "-c", "sidecar.yaml", **where)
    assert (status, err.count("\n")) == (0, 1)
    assert re.fullmatch(r"warning: redis at 127\.0\.0\.1:\d+ did not answer: .+\n", err)


def test_balances_and_prices_are_told_as_people_read_them(sidecar, folder):
    policy = Path(__file__).parents[2] / "policies/examples/ai-tokens.yaml"
    told = {"SIDECAR_POLICIES": str(policy), "SIDECAR_REDIS__URL": "redis://127.0.0.1:1/0"}
    status, out, _ = sidecar("check", "-c", "sidecar.yaml", **told)
    assert status == 0
    assert re.search(r"prepaid +- +large_output +8\.00 usd per 1000000 +month +credit\n", out)
    assert re.search(r"prepaid +- +credit +usd +9 +deny +enforce +0\.6887394 +5\.5099152 +0\.10\n", out)
    where = r"chat +POST +/v1/chat/completions +default +X-Api-Key, bearer"
    assert re.search(where + r" +request body, response body +deny +- +openai\n", out)
    assert re.search(r"retry +retries within 1 d\n", out)
    status, out, _ = sidecar("check", "-c", "sidecar.yaml", "--json", **told)
    assert json.loads(out)["balances"][0]["below_zero_in_total"] == "5.5099152"


def test_what_has_no_bound_is_named_with_what_would_give_one(sidecar, folder):
    (folder / "unbounded.yaml").write_text(
        "meters: { got: { value: response.bytes } }\nplans: { p: { currency: usd, prices: { got: { per_unit: 1 } }, "
        "limits: [{ id: credit, balance: usd }] } }\n"
    )
    told = {"SIDECAR_POLICIES": str(folder / "unbounded.yaml"), "SIDECAR_REDIS__URL": "redis://127.0.0.1:1/0"}
    _, out, _ = sidecar("check", "-c", "sidecar.yaml", **told)
    assert "No bound for credit of p: got on default. Set a `ceiling` at the price.\n" in out


def test_a_balance_needs_no_redis(sidecar, folder):
    policy = Path(__file__).parents[2] / "policies/examples/ai-tokens.yaml"
    status, out, _ = sidecar("check", "-c", "sidecar.yaml", "--json", SIDECAR_POLICIES=str(policy))
    found = json.loads(out)
    assert (status, found["counters"]) == (0, "memory")
    assert {limit["over_after_restart"] for limit in found["limits"]} == {0}
    assert found["balances"]


def test_hosts_and_headers_of_routes_are_columns_where_a_route_has_them(sidecar, folder):
    assert not re.search(" host +headers ", sidecar("check", "-c", "sidecar.yaml")[1])
    policy = (folder / "p.yaml").read_text()
    (folder / "p.yaml").write_text(
        policy
        + 'routes: [{ id: a, match: { path: "/**", host: a.example, headers: { X-Tier: [b, a], X-On: "*" } } }]\n'
    )
    _, out, _ = sidecar("check", "-c", "sidecar.yaml")
    assert re.search(r"  a +any +/\*\* +a.example +x-tier: a or b, x-on: any +default", out)


def test_spellings_of_paths_are_a_column_where_a_route_does_not_normalise_them(sidecar, folder):
    assert not re.search(" path +paths ", sidecar("check", "-c", "sidecar.yaml")[1])
    policy = (folder / "p.yaml").read_text()
    (folder / "p.yaml").write_text(policy + 'routes: [{ id: a, match: { path: "/**" }, paths: preserve }]\n')
    _, out, _ = sidecar("check", "-c", "sidecar.yaml")
    assert re.search(r"  a +any +/\*\* +preserve +default", out)


# Fails if a journal that `run` cannot make is found by `run` alone.
def test_a_journal_that_is_a_file_is_an_error_with_its_setting(sidecar, folder):
    settings = folder / "sidecar.yaml"
    settings.write_text(settings.read_text() + "journal: { dir: keys.yaml/journal }\n")
    status, _, err = sidecar("check", "-c", "sidecar.yaml", "--offline")
    assert status == 1
    assert err == f"error: sidecar.yaml:7: journal.dir: {folder}/keys.yaml is a file, not a folder: name another path\n"
