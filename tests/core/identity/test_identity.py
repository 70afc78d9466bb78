from sidecar.core.identity import Identity


def test_identities_that_say_the_same_are_told_from_those_that_do_not():
    one = Identity("k", "s", "c", "p")
    assert one.same_as(Identity("k", "s", "c", "p"))
    assert not one.same_as(Identity("k", "s", "c", "p", expires_us=1))
    assert not one.same_as(Identity("k", "s", "c", "p", plan_since="2026-11-21T01:03:26Z"))
    assert one != Identity("k", "s", "c", "p")
