"""Mirrors sidecar/config/checks.py: what is wrong between the parts of a policy, through the load that tells it."""

import pytest

from sidecar.config.compile import load_policy
from sidecar.core.errors import PolicyError

AB = "routes:\n- {id: a, match: {path: /a}}\n- {id: b, match: {path: /b}}\n"
CHAT = "routes: [{id: chat, match: {path: /chat}}]\n"


@pytest.fixture
def faults(tmp_path):
    def faults(text, upstreams=("default",), region="local"):
        path = tmp_path / "p.yaml"
        path.write_text(text)
        with pytest.raises(PolicyError) as caught:
            load_policy(path, set(upstreams), region=region)
        return [str(fault).replace(str(tmp_path) + "/", "") for fault in caught.value.faults]

    return faults


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "plans:\n  p:\n    limits:\n      - {id: a, meter: requets, quota: 1/day}",
            "p.yaml:4: plans.p.limits[0].meter: 'requets' is not defined; did you mean 'requests'?",
        ),
        (
            CHAT + "plans:\n  p:\n    limits: [{id: a, quota: 1/day, routes: [caht]}]",
            "p.yaml:4: plans.p.limits[0].routes[0]: 'caht' is not defined; did you mean 'chat'?",
        ),
        (
            "routes:\n  - id: r\n    match: {path: /}\n    upstream: defalt",
            "p.yaml:4: routes[0].upstream: 'defalt' is not defined; did you mean 'default'?",
        ),
        (
            CHAT + "meters: {m: {when: {route: [chta]}}}",
            "p.yaml:2: meters.m.when.route[0]: 'chta' is not defined; did you mean 'chat'?",
        ),
        (
            "routes: [{id: r, match: {path: /}, feature: chta}]\nplans: {p: {features: [chat]}}",
            "p.yaml:1: routes[0].feature: 'chta' is not defined; did you mean 'chat'?",
        ),
        ("meters: {m: {when: {status: [20x]}}}", "meters.m.when.status[0]: '20x' is no status: write 2xx or 404"),
        ("meters: {m: {when: {status: [600]}}}", "'600' is no status"),
        ("meters: {m: {value: response.byts}}", "'response.byts' is no quantity; did you mean 'response.bytes'?"),
        ("meters: {m: {value: usage.openai.input}}", "meters.m.value: not available yet: usage read from answers"),
        ("meters: {m: {count: 1, value: duration_ms}}", "p.yaml:1: meters.m: has both count and value: keep one"),
        (
            "meters: {m: {value: {lookup: methd, table: {GET: 1}}}}",
            "p.yaml:1: meters.m.value.lookup: 'methd' cannot be looked up; did you mean 'method'?",
        ),
        (
            "meters: {m: {value: {lookup: method, table: {GET: 1}}}}",
            "p.yaml:1: meters.m.value.table: needs a default: a request can hold a value that is not in the table",
        ),
        ("meters: {m: {value: {lookup: header.X-T, table: {a: 1}}}}", "needs a default"),
        (
            CHAT + "meters: {m: {value: {lookup: route, table: {caht: 1}, default: 1}}}",
            "p.yaml:2: meters.m.value.table.caht: 'caht' is not defined; did you mean 'chat'?",
        ),
        (
            AB + "meters: {m: {value: {lookup: route, table: {a: 1}}}}",
            "p.yaml:4: meters.m.value.table: has no entry for b, and no default: add one",
        ),
        (
            "meters: {m: {value: {lookup: region, table: {eu: 1}}}}",
            "has no entry for 'local', which is this sidecar's `region`, and no default: add one",
        ),
        ("routes: [{id: r, match: {path: v1}}]", "p.yaml:1: routes[0].match.path: 'v1' does not begin with a slash"),
        ("routes: [{id: r, match: {path: /v*}}]", "'/v*' has a star inside a segment: `*` is one whole segment"),
        ("routes: [{id: r, match: {path: /**/**}}]", "has `**` twice in a row: once is enough"),
        ("routes: [{id: r, match: {path: //a}}]", "'//a' is never seen in that spelling: write '/a'"),
        ("routes: [{id: r, match: {path: /a/../b}}]", "write '/b'"),
        ("routes: [{id: r, match: {path: /%61}}]", "write '/a'"),
        ("routes: [{id: r, match: {path: /ü}}]", "write '/%C3%BC'"),
        ("routes: [{id: r, match: {path: '/a?x=1'}}]", "'/a?x=1' has a query: only the path is matched"),
        ("routes: [{id: r, match: {path: '/a%2fb'}}]", "'/a%2fb' is no path: an encoded slash"),
        (
            "routes:\n- {id: a, match: {path: /x/*/y}}\n- {id: b, match: {path: /x/*/y}}",
            "p.yaml:3: routes[1].match: is as specific as 'a' at p.yaml:2, and some requests match both: make one path",
        ),
        (
            "routes: [{id: r, match: {path: /}, credentials: [{header: X-A, query: k}]}]",
            "p.yaml:1: routes[0].credentials[0]: names one place: header, query, bearer or basic",
        ),
        (
            "plans:\n  p:\n    limits:\n    - {id: a, rate: 1/s}\n    - {id: a, quota: 1/day}",
            "p.yaml:5: plans.p.limits[1].id: 'a' is already a limit of this plan, at p.yaml:4",
        ),
        (
            "plans:\n  p:\n    limits: [{id: a, quota: 5/mon}]",
            "p.yaml:3: plans.p.limits[0].quota: 'mon' is no calendar unit; did you mean 'month'?",
        ),
        ("plans: {p: {limits: [{id: a, window: 1125899906842624/366d}]}}", "p.yaml:1: plans.p.limits[0].window: "),
    ],
)  # fmt: skip
def test_each_fault_is_told_at_its_line_with_what_would_be_right(faults, text, said):
    assert faults(text)[0].startswith(said) or said in faults(text)[0]


def test_a_policy_without_routes_needs_the_default_upstream(faults):
    [said] = faults("plans: {}", upstreams=("llm",))
    assert said == "p.yaml: has no routes, so all goes to the upstream 'default'; known: llm"


@pytest.mark.parametrize(
    ("one", "other", "differs"),
    [
        ("quota: 1/day", "rate: 1/s, scope: customer", "kind rate here, quota there"),
        ("quota: 1/day", "quota: 1/day, scope: key", "scope key here, customer there"),
        ("quota: 1/day", "quota: 1/month", "calendar month here, day there"),
        ("quota: 1/day", "quota: 1/day, meter: m", "meter m here, requests there"),
        ("window: 1/60s", "window: 1/30s", "period 30000000 µs here, 60000000 µs there"),
        ("window: 1/60s", "window: 1/60s, fixed: true", "fixed True here, False there"),
    ],
)
def test_one_id_that_would_be_two_counters_is_a_fault_that_names_both(faults, one, other, differs):
    text = f"meters: {{m: {{}}}}\nplans:\n  a: {{limits: [{{id: x, {one}}}]}}\n  b: {{limits: [{{id: x, {other}}}]}}"
    [said] = faults(text)
    assert said.startswith("p.yaml:4: plans.b.limits[0].id: 'x' is the counter of p.yaml:3 too, but differs (")
    assert differs in said


def test_faults_of_all_kinds_are_told_in_one_load_in_the_order_of_their_lines(faults):
    said = faults(
        "meters:\n  m: {value: byts}\nroutes:\n  - {id: r, match: {path: x}, upstream: u}\nplans:\n"
        "  p: {limits: [{id: a, quota: 1/eon, meter: n}]}"
    )
    assert [line.split(": ")[1] for line in said] == [
        "meters.m.value",
        "routes[0].upstream",
        "routes[0].match.path",
        "plans.p.limits[0].meter",
        "plans.p.limits[0].quota",
    ]
