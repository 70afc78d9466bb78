import pytest

from sidecar.wallets.text import describe_wallet, format_moment, parse_amount, parse_moment_us
from tests.wallets.test_audit import DAY_US, Till, grant


@pytest.mark.parametrize(
    ("text", "amount"),
    [("50.00", 50 * 10**9), ("0.000000001", 1), ("0.10", 10**8), ("007", 7 * 10**9), ("1.0000000000000", 10**9)],
)
def test_amounts_may_be_written_as_people_do(text, amount):
    assert parse_amount(text, 9) == amount


def test_amounts_are_in_the_scale_of_their_unit():
    assert (parse_amount("10000000", 2), parse_amount("0.01", 2), parse_amount("3", 0)) == (10**9, 1, 3)
    with pytest.raises(ValueError, match="write at most 2 digits"):
        parse_amount("0.001", 2)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("0", "more than 0"), ("0.00", "more than 0"), ("2251799.813685249", "at most 2251799.813685248"),
        ("0.0000000001", "at most 9 digits"), ("-5", "write digits"), ("1e3", "write digits"), ("1,5", "write digits"),
        ("", "write digits"), (".5", "write digits"), ("5.", "write digits"), ("٣", "write digits"), ("5\n", "write"),
        ("$5", "write digits"), ("9" * 17, "write digits"),
    ],
)  # fmt: skip
def test_what_is_no_amount_is_refused_with_what_to_write(text, right):
    with pytest.raises(ValueError, match=right):
        parse_amount(text, 9)


def test_moments_are_days_in_utc_or_have_their_offset():
    assert format_moment(parse_moment_us("2027-01-01")) == "2027-01-01T00:00:00Z"
    assert parse_moment_us("2027-01-01T01:00:00+01:00") == parse_moment_us("2027-01-01")
    assert format_moment(0) == ""
    for text in ("2027-13-01", "soon", "never", "2027-01-01T00:00:00", "2027-01-01T00:00:00.5Z", "1969-12-31"):
        with pytest.raises(ValueError, match="write"):
            parse_moment_us(text)
    with pytest.raises(ValueError, match="1970 to 2255"):
        parse_moment_us("9999-12-31")


def test_a_wallet_is_shown_as_the_next_request_finds_it():
    till = Till()
    till.grant(grant("later", starts_us=till.now_us + DAY_US))
    till.grant(grant("ends", expires_us=till.now_us + DAY_US // 2, priority=1))
    till.grant(grant("other", priority=1))
    till.now_us += DAY_US // 2
    rows = describe_wallet(till.book(held={"x": 30, "y": 12}, postings=()), 9)
    assert [(row["grant"], row["state"]) for row in rows["grants"]] == [("later", "waiting"), ("other", "live")]
    assert (rows["balance"], rows["available"]) == ("0.0000002", "0.0000001")
    assert (rows["held"], rows["holds"], rows["postings"]) == ("0.000000042", 2, [])


def test_every_amount_of_a_wallet_is_shown_in_the_scale_of_its_unit():
    # Fails if one of the fields is converted with the digits of another scale.
    till = Till()
    till.grant(grant("g", rollover_max=40, expires_us=till.now_us + DAY_US, rollover_until_us=till.now_us + 2 * DAY_US))
    till.move(250)
    rows = describe_wallet(till.book(held={"x": 30}), 2)
    assert {name: rows[name] for name in ("balance", "available", "debt", "held")} == {
        "balance": "-1.5", "available": "-1.5", "debt": "1.5", "held": "0.3"
    }  # fmt: skip
    [row] = rows["grants"]
    assert (row["left"], row["amount"], row["rollover_max"]) == ("0", "1", "0.4")
    assert [(row["delta"], row["balance"]) for row in rows["postings"]] == [("1", "1"), ("-2.5", "-1.5")]
