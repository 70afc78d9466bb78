"""The page of results: what is kept stands until it is measured again, and a goal without a figure is not reached."""

import json

import pytest

from benchmarks import kept, page
from benchmarks.goals import GOALS, NOT_MEASURED, Evidence, Goal

ROUNDS = {"0": 10_000, "1": 20_000}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "HOME", tmp_path)


def cpu(**factors: float) -> dict:
    samples = {
        name: {
            n: {"requests": 1000, "duration_us": 1_000_000, "cpu_us": {"proxy": int(us * factor)}, "facts": {}}
            for n, us in ROUNDS.items()
        }
        for name, factor in factors.items()
    }
    shape = {"rounds": 2, "seconds": 1, "warmup": 0, "answer_bytes": 1024}
    titles = {name: f"form {name}" for name in factors}
    return {"results": {"shape": shape, "titles": titles, "samples": samples, "left_out": {}}, "versions": ["v1"]}


def curve(name: str, figures: dict) -> dict:
    told = {x: {"0": one} for x, one in figures.items()}
    return {"curve": {"name": name, "unit": 1, "figures": told, "left_out": {"9": "no room\nat all"}}}


def test_of_each_name_the_newest_sitting_stands() -> None:
    kept.keep("cpu", ["nginx", "leased"], cpu(nginx=1, leased=3))
    kept.keep("cpu", ["nginx", "redis"], cpu(nginx=1, redis=2))
    assert Evidence().ratio("leased") == [3.0, 3.0]
    assert Evidence().ratio("redis") == [2.0, 2.0]
    assert kept.newest("cpu")["nginx"].names == ["nginx", "redis"]
    kept.keep("cpu", ["nginx", "leased", "redis"], cpu(nginx=1, leased=1.5, redis=2))
    # Mutation: older sittings are kept for ever, or the first one wins.
    assert len(kept.kept("cpu")) == 1
    assert Evidence().ratio("leased") == [1.5, 1.5]


def test_what_measured_nothing_is_not_kept() -> None:
    kept.keep("cpu", [], cpu())
    assert kept.kept("cpu") == []


def test_forms_of_two_sittings_are_not_compared() -> None:
    kept.keep("cpu", ["nginx", "envoy"], cpu(nginx=1, envoy=4))
    kept.keep("cpu", ["nginx", "leased"], cpu(nginx=1, leased=1))
    assert Evidence().ratio("leased", "envoy") == []


@pytest.mark.parametrize(
    ("figures", "least", "reached"),
    [([1.0], False, "yes"), ([1.3], False, "**no**"), ([1.3], True, "yes"), ([], True, NOT_MEASURED)],
)
def test_a_goal_is_reached_by_its_median_and_never_without_a_figure(figures, least, reached) -> None:
    assert Goal("x", 1.25, lambda _: figures, least=least).row(Evidence())[-1] == reached


def test_without_any_figure_no_goal_is_reached() -> None:
    assert {goal.row(Evidence())[-1] for goal in GOALS} == {NOT_MEASURED}


def test_calls_that_fall_as_the_load_grows_come_to_one() -> None:
    falling = {"500": {"calls": 0.16, "cpu_ns": 1}, "4000": {"calls": 0.02, "cpu_ns": 1}}
    kept.keep("curves", ["calls"], curve("calls", falling) | {})
    row = next(goal.row(Evidence()) for goal in GOALS if "falls as 1/load" in goal.what)
    assert row[2:] == ("1.00", "yes")


def test_what_the_shipper_was_measured_at_is_on_the_page_and_held_to_its_goals() -> None:
    rounds = [
        {"records_per_core_second": 120_000, "cpu_ns_per_record": 8300, "records_per_second": 1, "bytes_per_second": 1}
    ]
    kafka = {"rounds": rounds, "lag": {"rate": 9998, "p50_us": 50_000, "p99_us": 90_000, "max_us": 1_200_000}}
    told = {"when": "2026-11-21 18:32", "form": "compiled", "records": 300_000, "seconds": 20, "kafka": kafka}
    (kept.HOME / "shipping.json").write_text(json.dumps(told))
    evidence = Evidence()
    assert "| kafka | 120,000 | 8.30 µs | 1 | 0 | 50 ms | 90 ms | 1,200 ms |" in page.compose(evidence)
    reached = {goal.what: goal.row(evidence)[-1] for goal in GOALS if "Kafka" in goal.what}
    assert reached == {"records/s and core, to Kafka": "yes", "greatest lag at 10,000 records/s, Kafka": "**no**"}


def test_the_page_has_goals_tables_curves_and_who_measured_them(monkeypatch, tmp_path) -> None:
    (tmp_path / "left.md").write_text("## What is left\n\nprose of the lead\n")
    monkeypatch.setattr(page, "LEFT", tmp_path / "left.md")
    kept.keep("cpu", ["nginx", "leased"], cpu(nginx=1, leased=1.2))
    kept.keep("curves", ["limits"], curve("limits", {"1": {"cpu_ns": 10_000, "redis_ns": 0}}))
    kept.keep("memory", ["memory"], {"rounds": [dict.fromkeys(page.MEMORY_FIGURES, 1024)], "connections": 10_000})
    said = page.compose(Evidence())
    for part in ("≤ 1.25 | 1.20 (1.20 … 1.20) | yes |", "form leased", "| 1 | 10.0 µs | 1.00 |", "prose of the lead"):
        assert part in said
    assert "- 9: no room\n" in said
    assert said.count("UTC at") == 3
