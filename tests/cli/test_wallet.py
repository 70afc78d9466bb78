"""Mirrors sidecar/cli/wallet.py, through the command line as people use it, on a real Redis."""

import json
import sys
from datetime import UTC, datetime, timedelta

import pytest

WHOSE = ("--customer", "cust-9", "--unit", "usd")
GRANT = ("grant", *WHOSE, "--amount", "50.00", "--expires", "2099-01-01", "--id", "purchase-123")
WALLET, LEDGER = "sc:{cust-9}:wallet:cust-9:usd", "sc:{cust-9}:ledger:cust-9:usd"


class Counter:
    """Runs `sidecar wallet …` in this process, with a settings file of its own."""

    def __init__(self, folder, settings: str, monkeypatch, capsys) -> None:
        self.config = folder / "sidecar.yaml"
        self.config.write_text(settings)
        self.policy = folder / "policies" / "p.yaml"
        self.policy.parent.mkdir()
        self.policy.write_text("plans: { free: {} }\n")
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, command: str, *arguments: str, terminal: bool = False) -> tuple[int, str, str]:
        from sidecar.cli import main  # noqa: PLC0415 - a broken import is this test's failure, not the collection's

        self._monkeypatch.setattr(sys, "argv", ["sidecar", "wallet", command, "-c", str(self.config), *arguments])
        if terminal:
            self._monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
            self._monkeypatch.setenv("COLUMNS", "160")
        with pytest.raises(SystemExit) as left:
            main()
        told = self._capsys.readouterr()
        return int(left.value.code or 0), told.out, told.err

    def shown(self, *more: str) -> dict:
        _, out, _ = self("show", *WHOSE, "--json", *more)
        return json.loads(out)


@pytest.fixture
def redis_desk(tmp_path, monkeypatch, capsys, redis_clean):
    return Counter(tmp_path, f"redis: {{ url: '{redis_clean.url}' }}\n", monkeypatch, capsys)


@pytest.fixture(params=[pytest.param("redis", marks=pytest.mark.redis), "stopped"])
def desk(request, tmp_path, monkeypatch, capsys):
    """Wallets in Redis, or in the files of a node without one that does not run."""
    if request.param == "redis":
        return request.getfixturevalue("redis_desk")
    return Counter(tmp_path, "workers: 1\n", monkeypatch, capsys)


@pytest.fixture
def bare(tmp_path, monkeypatch, capsys):
    """Without a Redis: what is wrong is to be found before one is asked."""
    return Counter(tmp_path, "redis: { url: 'redis://127.0.0.1:1' }\n", monkeypatch, capsys)


def test_a_grant_prints_the_balance_alone_and_says_what_was_done(desk):
    code, out, err = desk(*GRANT)
    assert (code, out) == (0, "50\n")
    assert "granted 50 usd to cust-9 as purchase-123" in err
    assert "within a second" in err


def test_the_same_purchase_again_is_already_there(desk):
    desk(*GRANT)
    code, out, err = desk(*GRANT)
    assert (code, out, err) == (0, "50\n", "the grant purchase-123 already exists; nothing was changed\n")
    _, out, _ = desk(*GRANT, "--json")
    assert json.loads(out) == {
        "customer": "cust-9", "unit": "usd", "id": "purchase-123", "amount": "0", "done": "there", "balance": "50",
        "debt": "0",
    }  # fmt: skip


def test_a_purchase_whose_credit_is_gone_is_not_granted_again(desk):
    desk(*GRANT)
    desk("void", *WHOSE, "--grant", "purchase-123")
    code, out, err = desk(*GRANT)
    assert (code, out) == (0, "0\n")
    assert "the grant purchase-123 was made before, and is used up, expired or void" in err


def test_an_id_with_other_figures_is_refused(desk):
    desk(*GRANT)
    code, out, err = desk(*GRANT, "--priority", "1")
    assert (code, out) == (1, "")
    assert "a grant with the id purchase-123 and other figures exists" in err


def test_a_void_takes_what_is_left_once(desk):
    desk(*GRANT)
    code, out, err = desk("void", *WHOSE, "--grant", "purchase-123")
    assert (code, out) == (0, "0\n")
    assert "voided purchase-123: removed 50 usd from cust-9" in err
    code, out, err = desk("void", *WHOSE, "--grant", "purchase-123")
    assert (code, out) == (0, "0\n")
    assert "purchase-123 has nothing left to void" in err
    code, out, err = desk("void", *WHOSE, "--grant", "other")
    assert (code, out) == (1, "")
    assert err == "sidecar: no grant has the id other; `sidecar wallet show` lists them\n"


def test_all_that_was_said_of_a_grant_is_shown_in_the_order_of_burning(desk):
    more = ("--starts", "2098-01-01", "--rollover-max", "12.5", "--rollover-until", "2100-01-01T12:00:00+02:00")
    desk(*GRANT, "--priority", "2", *more)
    desk("grant", *WHOSE, "--amount", "0.000000001", "--expires", "never", "--id", "gift")
    told = desk.shown("--ledger", "10")
    assert [row["grant"] for row in told["grants"]] == ["gift", "purchase-123"]
    assert told["grants"][1] == {
        "grant": "purchase-123", "left": "50", "amount": "50", "priority": 2, "starts": "2098-01-01T00:00:00Z",
        "expires": "2099-01-01T00:00:00Z", "rollover_max": "12.5", "rollover_until": "2100-01-01T10:00:00Z",
        "state": "waiting",
    }  # fmt: skip
    assert (told["balance"], told["available"], told["debt"]) == ("50.000000001", "0.000000001", "0")
    assert [(row["kind"], row["id"], row["delta"], row["balance"]) for row in told["postings"]] == [
        ("grant", "purchase-123", "50", "50"), ("grant", "gift", "0.000000001", "50.000000001")
    ]  # fmt: skip


def test_in_a_pipe_each_grant_and_posting_is_a_line_parted_by_tabs(desk):
    desk(*GRANT)
    desk("grant", *WHOSE, "--amount", "1", "--expires", "never", "--id", "gift")
    _, out, _ = desk("show", *WHOSE, "--ledger", "1")
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[0] == ["balance", "51"]
    assert [line[:3] for line in lines if line[0] == "grant"] == [
        ["grant", "purchase-123", "50"], ["grant", "gift", "1"]
    ]  # fmt: skip
    assert [line[2:4] for line in lines if line[0] == "posting"] == [["grant", "gift"]]


def test_on_a_terminal_a_wallet_is_a_table(desk):
    desk(*GRANT)
    _, out, _ = desk("show", *WHOSE, terminal=True)
    assert "grants of cust-9, usd" in out
    assert "  purchase-123   50 " in out
    assert "rollover" not in out


def test_an_unknown_customer_has_an_empty_wallet(desk):
    assert desk("show", *WHOSE)[1] == "balance\t0\navailable\t0\ndebt\t0\nheld\t0\nholds\t0\n"


def test_a_ledger_that_sums_to_the_balance_is_whole(desk):
    desk(*GRANT)
    desk("void", *WHOSE, "--grant", "purchase-123")
    code, _, err = desk("show", *WHOSE, "--verify")
    assert (code, err) == (0, "whole: the sum of 2 postings is the balance\n")
    told = desk.shown("--verify")
    assert (told["ledger_sum"], told["whole"], told["postings"]) == ("0", True, [])


# Mutation: --verify looks at the last N postings only.
def test_a_difference_is_told_and_is_status_1(redis_desk, redis_clean):
    redis_desk(*GRANT)
    redis_desk("grant", *WHOSE, "--amount", "1", "--expires", "never", "--id", "gift")
    redis_clean.cli.hset(WALLET, "debt", 2_500_000_000)
    code, _, err = redis_desk("show", *WHOSE, "--verify", "--ledger", "1")
    assert code == 1
    assert err == "NOT whole: the ledger sums to 51, the wallet has 48.5, a difference of -2.5\n"


def test_a_forged_posting_is_told_with_its_place(redis_desk, redis_clean):
    redis_desk(*GRANT)
    place = redis_clean.cli.xadd(LEDGER, {"kind": "settle", "id": "x", "delta": -5, "balance": 50 * 10**9}).decode()
    for _ in range(6):
        redis_clean.cli.xadd(LEDGER, {"kind": "settle", "id": "y", "delta": 0, "balance": 50 * 10**9})
    code, _, err = redis_desk("show", *WHOSE, "--verify")
    assert code == 1
    assert f"posting {place} (settle x) has the balance 50, which is not the sum of the postings up to it" in err
    assert "and 2 more" in err


def test_a_dry_run_says_what_a_wallet_would_be_and_changes_nothing(redis_desk, redis_clean):
    redis_desk(*GRANT)
    assert redis_desk("rebuild", *WHOSE, "--dry-run")[::2] == (0, "all postings were replayed; no differences\n")
    redis_clean.cli.hset(WALLET, "debt", 2_500_000_000)
    before = redis_clean.cli.hgetall(WALLET)
    code, out, err = redis_desk("rebuild", *WHOSE, "--dry-run")
    assert (code, out) == (1, "purchase-123\t47.5\t50\n")
    assert "1 difference" in err
    assert redis_clean.cli.hgetall(WALLET) == before


def test_a_lost_wallet_is_made_anew_from_its_ledger(redis_desk, redis_clean):
    redis_desk(*GRANT)
    redis_desk("grant", *WHOSE, "--amount", "7", "--expires", "never", "--id", "gift")
    redis_desk("void", *WHOSE, "--grant", "gift")
    before = redis_clean.cli.hget(WALLET, "g:purchase-123")
    redis_clean.cli.delete(WALLET)
    _, out, _ = redis_desk("rebuild", *WHOSE, "--json")
    assert json.loads(out) == {
        "exact": True, "balance": "50", "differences": [{"what": "purchase-123", "stands": "0", "ledger": "50"}]
    }  # fmt: skip
    assert redis_clean.cli.hget(WALLET, "g:purchase-123") == before
    assert redis_desk("show", *WHOSE, "--verify")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (GRANT[:5], "Missing option '--amount'"),
        (GRANT[:7], "Missing option '--expires'"),
        ((*GRANT, "--amount", "0"), "'--amount': '0' is out of range: write more than 0"),
        (
            (*GRANT, "--amount", "0.0000000001"),
            "'--amount': '0.0000000001' is finer than its unit counts: write at most 9 digits",
        ),
        ((*GRANT, "--amount", "2251799.813685249"), "write at most 2251799.813685248, or give its unit fewer digits"),
        ((*GRANT, "--digits", "2", "--amount", "0.001"), "'--amount': '0.001' is finer than its unit counts"),
        ((*GRANT, "--digits", "10"), "'--digits': 10 is not in the range"),
        (
            (*GRANT, "--rollover-max", "0.0000000001", "--rollover-until", "2100-01-01"),
            "'--rollover-max': '0.0000000001'",
        ),
        ((*GRANT, "--amount", "ten"), "'--amount': 'ten' is not an amount: write digits"),
        ((*GRANT, "--expires", "soon"), "'--expires': 'soon' is not a moment: write 2027-01-01"),
        ((*GRANT, "--starts", "never"), "'--starts': 'never' is not a moment"),
        ((*GRANT, "--starts", "2099-01-01"), "--starts is not before --expires"),
        ((*GRANT, "--priority", "-1"), "'--priority': -1 is not in the range"),
        ((*GRANT, "--rollover-max", "5"), "--rollover-max and --rollover-until belong together"),
        ((*GRANT, "--rollover-until", "2100-01-01"), "--rollover-max and --rollover-until belong together"),
        ((*GRANT, "--rollover-max", "5", "--rollover-until", "2099-01-01"), "--rollover-until is not after --expires"),
        ((*GRANT, "--expires", "never", "--rollover-max", "5", "--rollover-until", "2099-01-01"), "never expires"),
        ((*GRANT, "--id", "a b"), "'--id': 'a b' is not 1 to 128 printable ASCII"),
        ((*GRANT, "--unit", "US Dollar"), "'--unit': 'US Dollar' is not a currency"),
        ((*GRANT, "--customer", " "), "'--customer': ' ' is not 1 to 256 printable"),
        (("void", *WHOSE), "Missing option '--grant'"),
        (("show", "--customer", "c"), "Missing option '--unit'"),
        (("show", *WHOSE, "--ledger", "0"), "'--ledger': 0 is not in the range"),
    ],
)
def test_wrong_usage_is_status_2_and_says_what_to_write(bare, arguments, what):
    code, out, err = bare(*arguments)
    assert (code, out) == (2, "")
    assert what in err


def test_an_end_that_is_past_is_wrong_usage_by_the_stores_clock(desk):
    ended = datetime.now(UTC) - timedelta(days=1)  # noqa: TID251 - held against the real clock
    code, _, err = desk(*GRANT, "--expires", f"{ended:%Y-%m-%d}")
    assert code == 2
    assert "is in the past: write a later time, or never" in err


def test_a_redis_that_is_away_is_status_1_in_one_line(bare):
    away = (
        "sidecar: the wallet's store did not answer: Error 111 connecting to 127.0.0.1:1. "
        "Connect call failed ('127.0.0.1', 1)."
    )
    for arguments in (("show", *WHOSE), ("void", *WHOSE, "--grant", "g"), ("rebuild", *WHOSE, "--dry-run")):
        assert bare(*arguments) == (1, "", f"{away}\n")
    assert bare(*GRANT) == (1, "", f"{away}; the grant may exist: repeat the command with --id purchase-123\n")


# Fails if a made id is kept to itself: the grant could then not be asked for again.
def test_a_made_id_is_told_also_where_the_answer_was_lost(bare):
    _, _, err = bare(*GRANT[:-2])
    assert "repeat the command with --id g_" in err


# A unit with a scale of its own.

CREDITS = ("--customer", "cust-9", "--unit", "credits")
POLICY = """\
units: { credits: { digits: %d } }
plans: { free: { currency: credits, prices: { requests: { per_unit: 1 } }, limits: [{ id: c, balance: credits }] } }
"""


def test_ten_million_credits_are_granted_shown_and_voided_to_the_hundredth(desk):
    # Fails if an amount is converted with nine digits: ten million would be refused, or shown as one.
    desk.policy.write_text(POLICY % 2)
    grant = ("grant", *CREDITS, "--expires", "2099-01-01", "--id", "one", "--amount", "10000000.01")
    code, out, err = desk(*grant, "--rollover-max", "0.01", "--rollover-until", "2100-01-01")
    assert (code, out) == (0, "10000000.01\n")
    assert "granted 10000000.01 credits to cust-9 as one" in err
    shown = json.loads(desk("show", *CREDITS, "--json", "--verify", "--ledger", "5")[1])
    assert (shown["balance"], shown["available"], shown["ledger_sum"]) == ("10000000.01",) * 3
    assert (shown["grants"][0]["amount"], shown["grants"][0]["rollover_max"]) == ("10000000.01", "0.01")
    assert (shown["postings"][0]["delta"], shown["postings"][0]["balance"]) == ("10000000.01",) * 2
    assert desk("rebuild", *CREDITS, "--dry-run")[::2] == (0, "all postings were replayed; no differences\n")
    code, out, err = desk("void", *CREDITS, "--grant", "one")
    assert (code, out) == (0, "0\n")
    assert "removed 10000000.01 credits from cust-9" in err


def test_the_most_that_a_wallet_holds_is_said_in_its_scale(desk):
    desk.policy.write_text(POLICY % 2)
    grant = ("grant", *CREDITS, "--expires", "never")
    assert desk(*grant, "--id", "one", "--amount", "22517998136852.48")[:2] == (0, "22517998136852.48\n")
    code, _, err = desk(*grant, "--id", "two", "--amount", "0.01")
    assert code == 1
    assert err == "sidecar: the grants would exceed 22517998136852.48 credits, the maximum; grant less\n"


def test_after_a_change_of_the_scale_a_wallet_is_empty_and_the_other_one_is_named(desk):
    # Fails if a wallet of one scale is read in another, or if the other one is not looked for.
    desk.policy.write_text(POLICY % 2)
    grant = ("grant", *CREDITS, "--expires", "never", "--id", "one", "--amount", "12.5")
    assert desk(*grant)[:2] == (0, "12.5\n")
    desk.policy.write_text(POLICY % 3)
    for command in (("show", *CREDITS), ("rebuild", *CREDITS, "--dry-run"), ("void", *CREDITS, "--grant", "x"), grant):
        _, out, err = desk(*command)
        warning = "warning: cust-9 also has a wallet in credits with 2 digits, whose balance is 12.5; this one has 3"
        assert err.startswith(warning), (command, err)
        assert "12.500" not in out
    assert desk("show", *CREDITS)[1].startswith("balance\t12.5\n")
    code, out, err = desk("void", *CREDITS, "--grant", "one", "--digits", "2")
    assert (code, out) == (0, "0\n")
    assert "with 3 digits, whose balance is 12.5; this one has 2" in err
    assert desk("show", *CREDITS)[2] == ""


def test_a_scale_that_is_given_needs_no_policies(redis_desk):
    redis_desk.policy.unlink()
    code, _, err = redis_desk("show", *CREDITS)
    assert code == 2
    assert "has no *.yaml file" in err
    assert redis_desk("grant", *CREDITS, "--digits", "2", "--amount", "0.01", "--expires", "never")[:2] == (0, "0.01\n")
    assert redis_desk("show", *CREDITS, "--digits", "2")[1].startswith("balance\t0.01\n")


@pytest.mark.redis
def test_a_grant_warns_of_a_redis_that_may_evict_it(redis_desk, redis_clean):
    redis_clean.cli.config_set("maxmemory-policy", "allkeys-lru")
    try:
        _, _, err = redis_desk(*GRANT)
    finally:
        redis_clean.cli.config_set("maxmemory-policy", "noeviction")
    assert "warning: redis: maxmemory-policy is allkeys-lru: it may evict counters and wallets; set noeviction" in err
    assert "maxmemory-policy" not in redis_desk(*GRANT)[2]
