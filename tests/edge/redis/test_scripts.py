"""How scripts are put together. What they decide is held to the rule by test_counters.py and test_balances.py."""

import re

import pytest

from sidecar.core.limits import KINDS, checks_for
from sidecar.edge.redis.scripts import PLAIN, WITH_WALLETS, script_text
from tests.core.limits.examples import EXAMPLES, NOW_US, WHO


def arms_of(name):
    return set(re.findall(r"if kind == '(\w+)' then", script_text(name)))


# Fails if an arm's file is missing, or its section has another name.
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("wallet", [0, 2])
def test_every_kind_names_arms_that_both_scripts_have(name, wallet):
    (check,) = checks_for((EXAMPLES[name],), (1,), WHO, NOW_US).entries
    assert check.kind.reserve_words(check, wallet)[0] in arms_of("evaluate.lua")
    assert check.kind.settle_words(check, 1, 0, wallet)[0] in arms_of("settle.lua")


def test_no_place_for_arms_is_left_and_their_functions_come_before_them():
    text = script_text("settle.lua")
    assert "-- arms" not in text
    assert text.index("function backlog") < text.index("kind == 'rate'")


def test_a_command_in_full_has_the_text_in_place_of_the_digest():
    packed = b"*3\r\n" + PLAIN.settle.words + b"$1\r\n0\r\n"
    assert PLAIN.settle.in_full(packed).startswith(b"*3\r\n$4\r\nEVAL\r\n")
    assert PLAIN.settle.words != WITH_WALLETS.settle.words
