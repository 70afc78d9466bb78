import pytest

from sidecar.core.limits import KINDS, Limit
from sidecar.core.limits.amount import unit_of


@pytest.mark.parametrize(
    ("meter", "unit"), [("requests", ""), ("response_bytes", "content-bytes"), ("tokens", "tokens")]
)
def test_a_unit_of_our_own_is_named_and_requests_are_the_default(meter, unit):
    assert unit_of(meter) == unit


def test_a_worker_s_share_of_a_count_is_its_part_and_at_least_one():  # Fails if it is rounded to 0: nothing passes.
    quota = KINDS["quota"]
    assert quota.share(Limit("m", "quota", 10, calendar="day"), 4).amount == 2
    assert quota.share(Limit("m", "quota", 2, calendar="day"), 4).amount == 1
    assert quota.over_admission(Limit("m", "quota", 2, calendar="day"), 4) == 4
