"""Mirrors sidecar/config/exclusions.py."""

import pytest

from sidecar.core.usage import Exclusion, When

HEALTH = "routes: [{id: health, match: {path: /healthz}}]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("exclude:\n  - {id: all}", "p.yaml:2: exclude[0]: excludes everything: say which with idempotency_key, when,"),
        ("exclude: [{id: all, when: {}, test_keys: false}]", "excludes everything"),
        (
            "exclude: [{id: retry, idempotency_key: 8d}]",
            "exclude[0].idempotency_key: should be less than or equal to",
        ),
        ("exclude: [{id: retry, idempotency_key: 24}]", "24 of what? write for example 50ms, 10s or 5m"),
        (
            HEALTH + "exclude: [{id: h, when: {route: [helth]}}]",
            "exclude[0].when.route[0]: 'helth' is not defined; did you",
        ),
        (
            "exclude: [{id: h, test_keys: true}, {id: h, customers: c}]",
            "exclude[1]: 'h' is already defined at p.yaml:1",
        ),
        ("exclude: [{id: h, costumers: c}]", "did you mean 'customers'?"),
    ],
)
def test_each_fault_is_told_at_its_line_with_what_would_be_right(faults, text, said):
    assert faults(text)[0].startswith(said) or said in faults(text)[0]


def test_every_form_becomes_its_exclusion_in_the_order_of_the_file(load):
    policy = load(
        HEALTH + "exclude:\n- {id: retry, idempotency_key: 24h}\n- {id: health, when: {route: [health]}}\n"
        "- {id: internal, customers: [us, them]}\n- {id: test_key, test_keys: true}"
    )
    assert policy.exclusions == (
        Exclusion("retry", retries_us=86_400_000_000),
        Exclusion("health", When(routes=frozenset({"health"}))),
        Exclusion("internal", customers=frozenset({"us", "them"})),
        Exclusion("test_key", test_keys=True),
    )
