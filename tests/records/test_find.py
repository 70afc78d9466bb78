"""Mirrors sidecar/records/find.py."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from sidecar.records.find import Wanted, describe, find, time_span
from sidecar.records.sources import RecordSource

NOW = datetime(2026, 11, 21, 14, 30, tzinfo=UTC)


def record(id_, time="14:03:20", *, kind="denial", customer="acme", status=429, **data):
    if "decision" not in data and kind == "denial":
        data["decision"] = {"violated": "monthly", "limits": [{"id": "monthly", "used": 100, "limit": 100}]}
    return {
        "type": f"sidecar.{kind}.v1", "id": id_, "time": f"2026-11-21T{time}.000000Z", "partitionkey": customer,
        "data": {"customer": customer, "status": status, "key_id": "k_1", "method": "GET", "path": "/a", **data},
    }  # fmt: skip


def source(folder, *records, stream="denials"):
    path = folder / f"{stream}.jsonl"
    path.write_text("".join(json.dumps(each, separators=(",", ":")) + "\n" for each in records))
    return RecordSource(stream, file=path)


async def ids(sources, wanted, number=20):
    return [json.loads(body)["id"] for body in await find(sources, wanted, number)]


@pytest.mark.parametrize(
    ("text", "margin", "span"),
    [
        ("14:03", 0, ("2026-11-21T14:03:00", "2026-11-21T14:04:00")),
        ("14:03:20", 0, ("2026-11-21T14:03:20", "2026-11-21T14:03:21")),
        ("15:00", 0, ("2026-11-20T15:00:00", "2026-11-20T15:01:00")),
        ("2026-10-05", 0, ("2026-10-05T00:00:00", "2026-10-06T00:00:00")),
        ("2026-10-05T14:03Z", 5, ("2026-10-05T13:58:00", "2026-10-05T14:09:00")),
    ],
)
def test_a_time_is_a_day_a_minute_or_a_second(text, margin, span):
    assert time_span(text, NOW, timedelta(minutes=margin)) == tuple(f"{end}.000000Z" for end in span)


@pytest.mark.parametrize("text", ["", "Z", "noon", "25:00", "14", "2026-13-01", "14:03+01:00"])
def test_another_time_is_refused_with_what_is_right(text):
    with pytest.raises(ValueError, match="is not a time: write 14:03"):
        time_span(text, NOW)


# Fails if one of the conditions is left out.
async def test_only_records_with_all_that_is_asked_for_are_found(tmp_path):
    begin, end = time_span("14:03", NOW)
    denials = source(
        tmp_path, record("a"), record("b", customer="beta"), record("c", status=402), record("d", "14:04:00"),
        record("e", "14:02:59"), record("f", "14:03:59"),
    )  # fmt: skip
    assert await ids([denials], Wanted("acme", 429, "", begin, end)) == ["a", "f"]
    assert await ids([denials], Wanted(id="c")) == ["c"]
    assert await ids([denials], Wanted(customer="beta")) == ["b"]


async def test_both_streams_are_searched_and_the_last_matches_are_given_in_order(tmp_path):
    used = source(tmp_path, record("u", "14:03:10", kind="usage", status=200), stream="records")
    denied = source(tmp_path, record("a", "14:03:20"), record("b", "14:03:05"))
    missing = RecordSource("denials", file=tmp_path / "none.jsonl")
    assert await ids([used, denied, missing], Wanted("acme")) == ["b", "u", "a"]
    assert await ids([used, denied], Wanted("acme"), 2) == ["u", "a"]


# Fails if a summary counts at the time of its record alone.
async def test_a_summary_is_found_by_the_times_of_its_denials(tmp_path):
    times = {"first": "2026-11-21T14:03:01.000000Z", "last": "2026-11-21T14:03:09.000000Z"}
    counted = record("s", "14:03:30", kind="denial-summary", limit="monthly", reason="quota-exceeded", count=7, **times)
    del counted["partitionkey"]
    begin, end = time_span("14:03:05", NOW)
    denials = source(tmp_path, counted)
    (body,) = await find([denials], Wanted("acme", 429, "", begin, end), 5)
    assert describe(body) == "2026-11-21T14:03:30.000Z 429 acme 7 times quota-exceeded: limit monthly"


async def test_a_denial_is_explained_on_one_line(tmp_path):
    (body,) = await find([source(tmp_path, record("a"))], Wanted("acme"), 5)
    assert describe(body) == (
        "2026-11-21T14:03:20.000Z 429 acme k_1 GET /a refused by the limit monthly (used 100, limit 100) id a"
    )


async def test_lines_that_are_not_json_are_passed_over(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("acme\n[]\n")
    assert await find([RecordSource("records", file=path)], Wanted("acme"), 5) == []


async def test_other_types_are_named_and_amounts_of_wallets_are_decimals(tmp_path):
    # Fails if an amount is shown in the scale of its unit.
    posting = record("p", kind="posting", unit="eur", digits=2, change="settle", delta=-125, balance=975)
    change = record("c", kind="correction", usage={"tokens": -2}, reason="twice", actor="ann") | {"causationid": "u"}
    alert = record("a", kind="alert", unit="usd", percent=80, used=8_500_000_000, amount=10**10, limit="credit")
    lines = await find([source(tmp_path, posting, change, alert)], Wanted("acme", types=("all",)), 5)
    assert [describe(body).partition("Z ")[2] for body in lines] == [
        "alert acme 80 % of the limit credit (used 8.5 usd of 10 usd) id a",
        "correction acme tokens -2 of u reason: twice actor: ann id c",
        "posting acme settle delta -1.25 eur balance 9.75 eur id p",
    ]
    limits = [{"id": "credit", "unit": "eur", "digits": 2, "balance": 5}]
    denial = record("d", status=402, decision={"violated": "credit", "limits": limits})
    (body,) = await find([source(tmp_path, denial)], Wanted("acme"), 5)
    assert "refused by the limit credit (balance 0.05 eur) id d" in describe(body)
