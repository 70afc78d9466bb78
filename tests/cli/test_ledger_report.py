"""The report of `verify`: everything that is wrong is named or counted, and what to do next."""

import pytest

from sidecar.cli import tables
from sidecar.cli.ledger_report import print_report
from sidecar.core.billing.sealing import Numbers
from sidecar.ledger.facts import NumbersOf
from sidecar.ledger.verify import Difference, LedgerReport

S = "//sidecar/eu/n/0/1"


def printed(capsys, report):
    print_report(report)
    done = capsys.readouterr()
    return done.out.splitlines(), done.err.splitlines()


# Fails if a list ends without a word: who mends 20 lines would take the ledger for whole.
def test_a_list_of_examples_ends_with_the_number_of_the_others(capsys):
    report = LedgerReport(
        rejected=[("t", 0, number, "not JSON") for number in range(20)], rejected_count=51,
        reused=[(S, 4, 2)], reused_count=3, unknown_originals=[("a", "b")], unknown_count=2,
    )  # fmt: skip
    _, err = printed(capsys, report)
    assert err[:2] == [f"number used again: {S} 4: 2 ids", "number used again: and 2 more"]
    assert err[2:22] == [f"rejected: t partition 0 offset {number}: not JSON" for number in range(20)]
    assert err[22:] == [
        "rejected: and 31 more", "original unknown: a changes b, which is not here", "original unknown: and 1 more",
    ]  # fmt: skip
    report.rejected_count, report.reused_count, report.unknown_count = 20, 1, 1
    assert not [line for line in printed(capsys, report)[1] if "more" in line]


def test_what_was_refused_or_is_missing_is_followed_by_what_to_do(capsys):
    sources = {f"{S}{number}": NumbersOf(Numbers(2, 3), 2, is_whole=True) for number in range(2)}
    report = LedgerReport(faults=("a: damaged: x", "b: damaged: y"), sources=sources)
    _, err = printed(capsys, report)
    assert [line.partition(":")[0] for line in err] == ["refused", "refused", "  next", "missing", "missing", "  next"]
    assert "restore the file" in err[2]
    assert "`sidecar ledger load`" in err[5]
    assert printed(capsys, LedgerReport())[1] == []


def test_the_verdict_is_in_80_columns_of_a_terminal_and_one_line_in_a_pipe(capsys, monkeypatch):
    report = LedgerReport(differences=[Difference(S, "tokens", 1, 2)] * 10, rejected_count=12_345)
    assert len(printed(capsys, report)[0]) == 1
    monkeypatch.setattr(tables, "terminal_width", lambda **_: 80)
    out, _ = printed(capsys, report)
    assert (len(out) > 1, max(map(len, out)) <= 80) == (True, True)


@pytest.mark.parametrize(("count", "text"), [(0, "0 numbers"), (1, "1 number"), (2, "2 numbers")])
def test_the_verdict_counts_in_the_right_form(capsys, count, text):
    assert f", {text} used again, " in printed(capsys, LedgerReport(reused_count=count))[0][-1]
