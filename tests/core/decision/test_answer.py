from sidecar.core.decision import Decision, shadowed_of
from sidecar.core.identity import Identity
from sidecar.core.limits import checks_for

NOBODY = checks_for((), (), Identity("k", "s", "c", "free"), 1)


def test_a_decision_allows_unless_a_limit_is_violated():
    assert Decision(NOBODY, 1, (), ()).allowed
    assert not Decision(NOBODY, 1, (), (), 0).allowed
    assert Decision(NOBODY, 1, (), (), -1, (2,)).allowed


def test_a_mask_names_the_limits_that_only_would_have_denied():
    assert shadowed_of(0) == ()
    assert shadowed_of(0b1000000001) == (0, 9)
    assert shadowed_of(1 << 39) == (39,)
