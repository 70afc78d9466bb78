import pytest

from sidecar.wallets.text import describe_wallet, format_moment, parse_amount, parse_moment_us
from tests.wallets.test_audit import DAY_US, Till, grant


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("50.00", 50 * 10**9), ("0.000000001", 1), ("0.10", 10**8), ("007", 7 * 10**9), ("1.0000000000000", 10**9)],
)
def test_amounts_may_be_written_as_people_do(text, nanos):
    assert parse_amount(text) == nanos


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("0", "more than 0"), ("0.00", "more than 0"), ("2251799.813685248", "less than 2251799.813685248"),
        ("0.0000000001", "at most 9 digits"), ("-5", "write digits"), ("1e3", "write digits"), ("1,5", "write digits"),
        ("", "write digits"), (".5", "write digits"), ("5.", "write digits"), ("٣", "write digits"), ("5\n", "write"),
        ("$5", "write digits"), ("9" * 17, "write digits"),
    ],
)  # fmt: skip
def test_what_is_no_amount_is_refused_with_what_to_write(text, right):
    with pytest.raises(ValueError, match=right):
        parse_amount(text)


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
    rows = describe_wallet(till.book(held={"x": 30, "y": 12}, postings=()))
    assert [(row["grant"], row["state"]) for row in rows["grants"]] == [("later", "waiting"), ("other", "live")]
    assert (rows["balance"], rows["available"]) == ("0.0000002", "0.0000001")
    assert (rows["held"], rows["holds"], rows["postings"]) == ("0.000000042", 2, [])
