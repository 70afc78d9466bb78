"""Mirrors sidecar/core/policy/model.py."""

from sidecar.core.policy import NOWHERE, Route


def test_routes_are_compared_by_object():
    # Two loads may define the same route, and what is cached for one is not for the other.
    assert Route("r") != Route("r")


def test_nowhere_is_no_route_that_a_policy_can_name():
    assert NOWHERE.id == ""
