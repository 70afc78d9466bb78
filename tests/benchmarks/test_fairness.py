"""The command that measures one client while another attacks: a short round of one case, and what is a failure."""

import json
import shutil

import pytest
from click.testing import CliRunner

from benchmarks import attacks, fairness
from benchmarks.fairness import Latency, Outcome
from benchmarks.stage import RunFailed, Stage

ATTACK = {"per_second": 9.0, "open": 1, "answers": {"401": 9}}


def outcome(*p99s_us, failures=None):
    """An outcome of (normal, attacked) rounds."""
    made = Outcome()
    for normal, attacked in p99s_us:
        made.normal.append(Latency(1, normal, {}))
        made.attacked.append(Latency(1, attacked, failures or {}))
        made.attacks.append(ATTACK)
    return made


def test_the_ratio_is_the_median_of_those_of_the_rounds():
    # Fails if all rounds are taken together: the median of 2000, 900, 300 by that of 1000, 300, 100 is 3.
    assert outcome((1000, 2000), (300, 900), (100, 300)).ratio() == 3.0
    assert outcome((100, 100), (1000, 1500), (10, 90)).ratio() == 1.5


def test_a_ratio_above_two_and_each_reason_of_a_failure_are_faults():
    assert outcome((100, 200)).faults("keys") == []
    assert outcome((100, 201)).faults("keys") == ["keys: p99 under attack is 2.0 times the normal one, more than 2"]
    refused = outcome((100, 100), (100, 100), failures={"answered b'HTTP/1.1 503'": 2})
    assert refused.faults("keys") == ["keys: 4 of the victim's requests: answered b'HTTP/1.1 503'"]


@pytest.mark.parametrize(("attacked_us", "exit_code"), [(200, 0), (300, 1)])
def test_the_exit_code_says_whether_the_victim_was_hurt(monkeypatch, attacked_us, exit_code):
    monkeypatch.setattr(fairness, "measure", lambda *_: outcome((100, attacked_us)))
    done = CliRunner().invoke(fairness.main, ["--pure", "--cases", "keys,paths"])
    assert done.exit_code == exit_code
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.count("9.0 sent/s") == 2
    assert done.stderr.count("3.0 times") == 2 * exit_code


def test_each_round_begins_when_the_attack_of_the_one_before_has_left_no_exchange(monkeypatch):
    steps = []
    monkeypatch.setattr(fairness, "wait_until_idle", lambda *_: steps.append("idle"))
    monkeypatch.setattr(fairness, "victim", lambda *_: steps.append("normal") or Latency(1, 1, {}))
    monkeypatch.setattr(fairness, "under_attack", lambda *_: steps.append("attacked") or (Latency(1, 1, {}), ATTACK))
    fairness.measure("keys", lambda _stage: fairness.Node(0, 0), 2, 1)
    # Fails if answers that are read on without their client count as normal.
    assert steps == ["idle", "normal", "attacked"] * 2


def test_a_case_that_is_unknown_is_named():
    done = CliRunner().invoke(fairness.main, ["--cases", "keys,nothing"])
    assert done.exit_code == 2
    assert "no case is named nothing" in done.output


def test_an_attack_that_did_nothing_fails_the_run(monkeypatch):
    monkeypatch.setattr(fairness, "victim", lambda *_: Latency(1, 1, {}))
    monkeypatch.setattr(
        fairness, "_module", lambda *_: ["sh", "-c", f"echo attacking; trap '{SAYS_NOTHING}' TERM; {SLEEP}"]
    )
    with Stage() as stage, pytest.raises(RunFailed, match="the attack keys did nothing"):
        fairness.under_attack(stage, "keys", 1, 1)


SAYS_NOTHING = 'echo {\\"per_second\\": 0, \\"open\\": 0}; exit'
SLEEP = "while :; do sleep 0.05; done"


@pytest.mark.skipif(not shutil.which("taskset"), reason="needs taskset")
@pytest.mark.timeout(120)
def test_one_short_round_of_one_case_is_measured():
    done = CliRunner().invoke(fairness.main, ["--pure", "--cases", "keys", "--rounds", "1", "--seconds", "1", "--json"])
    case = json.loads(done.stdout)["cases"]["keys"]  # so faults are said elsewhere
    [normal], [attacked], [attack] = case["normal"], case["attacked"], case["attacks"]
    assert (normal["failures"], attacked["failures"]) == ({}, {})
    assert 0 < normal["p50_us"] <= normal["p99_us"]
    # Fails if the attack is over before the victim asks, or is let through.
    assert attack["per_second"] > 10
    assert set(attack["answers"]) <= {"401", "429"}
    assert attack["open"] == attacks.FLOODS
