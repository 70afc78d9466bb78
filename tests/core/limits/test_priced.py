from sidecar.core.limits import KINDS, check_for
from sidecar.core.limits.priced import price_word
from sidecar.core.price import Price, Tier
from tests.core.limits.examples import EXAMPLES, NOW_US, WHO

LIMIT = EXAMPLES["priced"]


def test_it_counts_and_never_denies():
    check = check_for(LIMIT, 7, WHO, NOW_US)
    denies, remaining, _, left, _, value, _ = check.kind.evaluator(check, forced=False)({check.keys[0]: 5}, NOW_US)
    assert (denies, remaining, left, value) == (False, -5, -12, 12)
    assert check.role == 1


def test_a_wallet_that_pays_for_it_corrects_it_too():
    check = check_for(LIMIT, 7, WHO, NOW_US)
    assert check.kind.correction({}, check, b"id", 9, 0, NOW_US)[2] == 2
    check.payer = 1
    assert check.kind.correction({}, check, b"id", 9, 0, NOW_US) is None
    assert (check.kind.reserve_words(check, 0)[0], check.kind.reserve_words(check, 3)[0]) == ("count", "priced")


def test_a_price_is_one_word_for_the_scripts():
    tiers = (Tier(10, 5), Tier(None, 3))
    assert price_word(Price("graduated", tiers=tiers, included=2)) == "g,2,1,10,5,0,3"
    assert price_word(Price("package", 7, per=1000)) == "k,0,1000,0,7"


def test_alone_it_costs_the_most_that_it_can():
    tiered = Price("graduated", tiers=(Tier(10, 5), Tier(None, 3)))
    assert KINDS["priced"].share(LIMIT, 2).price == LIMIT.price
    made = type(LIMIT)("x", "priced", 0, calendar="month", unit="usd", price=tiered)
    assert KINDS["priced"].share(made, 2).price.amount == 5
