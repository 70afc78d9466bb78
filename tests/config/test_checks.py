"""Mirrors sidecar/config/checks.py: what is wrong between the parts of a policy, through the load that tells it."""

import pytest


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
