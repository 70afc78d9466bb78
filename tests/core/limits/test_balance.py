from dataclasses import replace

from sidecar.core.limits import KINDS, Limit, bounds_fault, check_for
from tests.core.limits.examples import EXAMPLES, NOW_US, WHO


def test_alone_an_empty_wallet_lends_its_part_of_the_offline_allowance():
    limit = Limit("credit", "balance", 0, unit="usd", period_us=1, offline=10)
    assert KINDS["balance"].share(limit, 4).amount == 2
    assert KINDS["balance"].over_admission(limit, 4) == 8
    assert KINDS["balance"].refuses_alone(limit, 11)


def test_a_record_says_the_scale_of_a_balance_where_it_is_not_nine_digits():
    # Fails if the scale is left out: a consumer would read a hundredth as a billionth.
    limit = Limit("credit", "balance", 0, unit="credits", period_us=10**6, digits=2)
    item = KINDS["balance"].record_item(check_for(limit, 0, WHO, NOW_US))
    assert item == (("id", "credit"), ("unit", "credits"), ("digits", 2), ("balance", None))
    item = KINDS["balance"].record_item(check_for(replace(limit, digits=9), 0, WHO, NOW_US))
    assert item == (("id", "credit"), ("unit", "credits"), ("balance", None))


def test_a_unit_has_zero_to_nine_digits():
    faults = [bounds_fault(Limit("credit", "balance", 0, unit="u", period_us=10**6, digits=n)) for n in (-1, 0, 9, 10)]
    assert faults == ["a unit has 0 to 9 digits, not -1", None, None, "a unit has 0 to 9 digits, not 10"]


def test_who_has_funds_is_not_told_to_buy_more_while_the_wallet_cannot_be_read():
    assert KINDS["balance"].denial("degraded").status == 503
    assert KINDS["balance"].denial("exact").status == 402


def test_a_hold_that_was_released_is_not_extended():
    check = check_for(EXAMPLES["balance"], 0, WHO, NOW_US)
    assert check.kind.extension({}, check, b"id", 9, is_open=True) is None
