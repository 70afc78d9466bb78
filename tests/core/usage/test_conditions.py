"""Mirrors sidecar/core/usage/conditions.py."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.usage import Bodies, JsonTest, When
from sidecar.core.usage.conditions import body_tests, chosen, head_inputs, judge, named, sides


class Tap(Bodies):
    model = ""


def tap(request=None, response=None, model=""):
    found = Tap()
    found.model = model
    found.take("request", None if request is None else json.dumps(request).encode())
    found.take("response", None if response is None else json.dumps(response).encode())
    return found


def holds(when, *bodies, arriving=False, **more):
    return judge(body_tests(when, arriving=arriving), tap(*bodies, **more))


def tier(*values, side="request", pointer="/tier"):
    return JsonTest(side, pointer, frozenset(values))


@pytest.mark.parametrize(
    ("test", "body", "found"),
    [
        (tier("gold"), {"tier": "gold"}, True),
        (tier("gold", "silver"), {"tier": "silver"}, True),
        (tier("gold"), {"tier": "tin"}, False),
        (tier("g*d"), {"tier": "gold"}, True),
        (tier("5"), {"tier": 5}, True),
        (tier("true"), {"tier": True}, True),
        (tier(), {"tier": []}, True),
        (tier(), {"tier": None}, True),
        (tier(), {"other": 1}, False),
        (tier("gold"), {}, False),
        (tier("gold"), None, None),
        (tier(pointer="/a/0"), {"a": [1]}, True),
    ],
)
def test_a_field_of_a_body_is_there_or_not_or_not_known(test, body, found):
    assert holds(When(json=(test,)), body) is found


def test_one_that_is_false_wins_over_what_is_not_known():
    # Fails if what is not known wins: a meter of gold answers would count tin ones wherever an answer is cut.
    when = When(json=(tier("gold"), tier("gold", side="response")))
    assert holds(when, {"tier": "tin"}, None) is False
    assert holds(when, {"tier": "gold"}, None) is None
    assert holds(when, {"tier": "gold"}, {"tier": "gold"}) is True


def test_on_arrival_what_the_answer_says_is_left_open():
    when = When(json=(tier("gold"), tier("gold", side="response")))
    assert holds(when, {"tier": "gold"}, arriving=True) is True
    assert holds(when, {"tier": "tin"}, arriving=True) is False


@pytest.mark.parametrize(("model", "found"), [("gpt-4o", True), ("gpt-3", False), ("o1", True), ("", None)])
def test_a_model_is_matched_by_globs_and_one_not_known_is_not_known(model, found):
    assert holds(When(models=("gpt-4*", "o1")), {}, model=model) is found


def test_without_a_tap_only_conditions_of_bodies_are_not_known():
    assert judge(body_tests(When(models=("a",)), arriving=False), None) is None
    assert judge([], None) is True


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (When(), (set(), set())),
        (When(methods=frozenset()), ({"method"}, set())),
        (When(headers=((b"a", frozenset()),)), ({"header"}, set())),
        (When(json_rpc=("a",)), (set(), {"request"})),
        (When(models=("a",)), (set(), {"request"})),
        (When(json=(tier(side="response"),)), (set(), {"response"})),
        (When(json=(tier(), tier(side="response"))), (set(), {"request", "response"})),
    ],
)
def test_conditions_say_what_they_look_at(when, said):
    assert (head_inputs(when), sides(when)) == said


@given(st.lists(st.text("ab*", max_size=4), max_size=4), st.text("ab", max_size=5))
def test_a_name_matches_one_of_its_patterns_as_they_read(patterns, name):
    def plain(pattern, text):
        if not pattern:
            return not text
        if pattern[0] == "*":
            return plain(pattern[1:], text) or bool(text and plain(pattern, text[1:]))
        return bool(text) and pattern[0] == text[0] and plain(pattern[1:], text[1:])

    assert named(patterns)(name) is any(plain(pattern, name) for pattern in patterns)


@pytest.mark.parametrize(
    ("patterns", "taken"),
    [
        (["gpt-4*"], {"gpt-4", "gpt-4-mini"}),
        (["gpt-4*", "!*-mini"], {"gpt-4"}),
        (["!gpt-4*"], {"o3", "o3-mini"}),
        (["!*-mini", "!o3"], {"gpt-4"}),
        (["*", "!o3"], {"gpt-4", "gpt-4-mini", "o3-mini"}),
    ],
)
def test_an_exception_leaves_the_rest_so_that_every_name_can_have_its_price(patterns, taken):
    names = ["gpt-4", "gpt-4-mini", "o3", "o3-mini"]
    assert {name for name in names if chosen(patterns)(name)} == taken


@given(st.lists(st.sampled_from(["a*", "*b", "ab", "c"]), min_size=1), st.text("abc", max_size=3))
def test_what_is_chosen_and_what_is_excepted_by_the_same_patterns_are_all_and_never_both(patterns, name):
    # Mutation: the exceptions joined by any instead of all.
    assert chosen(patterns)(name) is not chosen(["!" + pattern for pattern in patterns])(name)
