import pytest

from sidecar.core.decision import Decision
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for

NOBODY = checks_for((), (), Identity("k", "s", "c", "free"), 1)


def test_a_decision_allows_unless_a_limit_is_violated():
    assert Decision(NOBODY, 1, (), ()).allowed
    assert not Decision(NOBODY, 1, (), (), 1).allowed
    assert Decision(NOBODY, 1, (), (), 64 << 2).allowed


@pytest.mark.parametrize(("mask", "shadowed"), [(0, ()), (0b1000000001, (0, 9)), (1 << 39, (39,))])
@pytest.mark.parametrize("violated", [-1, 0, 7])
def test_a_verdict_names_the_limit_that_denied_and_those_that_only_would_have(mask, shadowed, violated):
    said = Decision(NOBODY, 1, (), (), 1 + violated + 64 * mask)
    assert (said.violated, said.allowed, said.shadowed) == (violated, violated < 0, shadowed)
