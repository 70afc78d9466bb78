"""The verifier of records: what is missing, what is twice, what is wrong, what they sum to."""

import json
import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.records.verify import verify

SOURCE = "//sidecar/eu-1/gw-3/7"


def body(number, *, source=SOURCE, id_=None, kind="sidecar.usage.v1", billable=True, **usage):
    data = {"customer": "cust-9", "usage": usage or {"requests": 1}, "billable": billable}
    record = {"type": kind, "source": source, "id": id_ or f"{source}{number}", "sequence": f"{number:018d}"}
    return orjson.dumps({**record, "data": data})


def test_a_whole_set_is_whole_in_any_order():
    bodies = [body(number) for number in range(1, 5_001)]
    random.Random(1).shuffle(bodies)
    report = verify(bodies)
    assert report.whole
    assert (report.records, report.missing, report.duplicates) == (5_000, 0, 0)
    assert report.totals == {("cust-9", "requests"): 5_000}


def test_usage_of_nobody_is_no_fault_and_nobody_s_total():
    nobody = {"usage": {"requests": 1}, "billable": False}
    record = {"type": "sidecar.unattributed.v1", "source": SOURCE, "id": "x", "sequence": "2", "data": nobody}
    report = verify([body(1), orjson.dumps(record)])
    assert report.whole
    assert (report.totals, report.not_billable) == ({("cust-9", "requests"): 1}, 1)


def test_a_change_is_summed_where_its_original_is_billed_or_nothing_is_said():
    # Fails if changes are summed whatever they say, or not where they say nothing (records of older versions).
    kind = "sidecar.correction.v1"
    older = orjson.loads(body(4, kind=kind, requests=-100))
    del older["data"]["billable"]
    changes = [body(2, kind=kind, requests=-1), body(3, kind=kind, billable=False, requests=-10), orjson.dumps(older)]
    report = verify([body(1, requests=1_000), *changes])
    assert (report.totals, report.not_billable) == ({("cust-9", "requests"): 899}, 1)


def test_gaps_are_told_by_source():
    # fountain #503: an outage looked like no usage. Fails if only the count is compared.
    numbers = [number for number in range(5, 30) if number not in {7, 8, 20}]
    report = verify([*map(body, numbers), *(body(number, source="other") for number in range(1, 4))])
    assert not report.whole
    assert (report.missing, report.sources[SOURCE].gaps()) == (3, [(7, 8), (20, 20)])
    assert (report.sources[SOURCE].first, report.sources[SOURCE].last) == (5, 29)
    assert report.sources["other"].gaps() == []


def test_a_beginning_that_is_missing_is_not_whole_unless_retention_may_have_taken_it():
    # operator A5: the first 50 records were gone and the verdict was "whole". Fails if only gaps count.
    bodies = [body(number) for number in range(51, 201)]
    report = verify(bodies)
    assert (report.whole, report.before, report.missing) == (False, 50, 0)
    report.may_begin_late = True
    assert report.whole


def checkpoint(number, highest, source=SOURCE):
    data = {"highest": {"records": highest, "denials": 0}}
    record = {"type": "sidecar.checkpoint.v1", "source": source, "id": f"c{number}", "sequence": f"{number:018d}"}
    return orjson.dumps({**record, "data": data})


def test_an_end_below_what_a_checkpoint_says_is_missing():
    # Fails if the claim is not held against the last number.
    report = verify([body(1), checkpoint(2, 5)])
    assert (report.whole, report.missing, report.sources[SOURCE].gaps()) == (False, 3, [(3, 5)])
    assert verify([body(1), checkpoint(2, 1)]).whole


def test_the_highest_claim_of_a_source_counts_in_any_order():
    # Fails if the claim that was read last counts.
    report = verify([body(1), checkpoint(3, 5), checkpoint(2, 1)])
    assert (report.missing, report.sources[SOURCE].gaps()) == (2, [(4, 5)])


@pytest.mark.parametrize(
    "highest", [None, [], "9", *({"records": number} for number in ("9", True, 9.5, 1 << 36, 1 << 70, -1))]
)
def test_a_claim_that_cannot_be_stops_nothing(highest):
    # Fails if a claim of any size or type is believed.
    record = orjson.loads(checkpoint(2, 0))
    record["data"]["highest"] = highest
    assert verify([body(1), json.dumps(record).encode()]).missing == 0


@pytest.mark.parametrize(
    "copy",
    [body(2), body(9, id_=f"{SOURCE}2"), body(2, source="other", id_=f"{SOURCE}2")],
    ids=["the same", "another number", "another source"],
)
def test_a_copy_is_found_by_its_id_and_not_summed(copy):
    # openmeter #4485, lago #4725: a year of duplicates. Fails if the source is a part of the key.
    report = verify([*(body(number) for number in range(1, 9)), copy])
    assert (report.duplicates, report.reused, report.totals["cust-9", "requests"]) == (1, 0, 8)
    assert not report.whole


def test_a_number_that_comes_again_under_another_id_is_summed_and_reported():
    # conservation V4: half of what two nodes of one name had recorded was taken for copies. Fails if it is dropped, or
    # if such a set is whole.
    bodies = [*(body(number) for number in range(1, 9)), body(2, id_="another")]
    report = verify(bodies)
    assert (report.reused, report.duplicates, report.whole) == (1, 0, False)
    report = verify([*bodies, body(2, id_="another")])
    assert (report.reused, report.duplicates, report.totals["cust-9", "requests"]) == (1, 1, 9)
    assert report.reused_examples == [f"{SOURCE} 2 another"]


@pytest.mark.parametrize("kind", ["alert", "posting", "correction", "void"])
def test_one_content_that_two_producers_report_is_not_a_copy(kind):
    # Its id is made of its content (of an alert customer, limit, period and percent), so it is one for who reads it.
    alerts = [body(1, source=source, id_=kind, kind=f"sidecar.{kind}.v1") for source in ("a", "b", "b")]
    report = verify(alerts[:2])
    assert report.whole
    assert report.kinds == {f"sidecar.{kind}.v1": 1}
    assert verify(alerts).duplicates == 1


@pytest.mark.parametrize(
    "bad",
    [b"", b"{", b"[]", b"null", b'{"source":"s","id":"i"}', b'{"source":"s","id":"i","sequence":"x"}', body(0),
     body(1 << 60), body(3, requests="many"), b'{"source":"s","id":"i","sequence":"1","data":7}'],
)  # fmt: skip
def test_a_bad_record_is_told_and_the_rest_still_looked_at(bad):
    # Fails if a set with a fault is whole.
    report = verify([body(1), bad, body(2)])
    assert (report.faults, report.missing, report.whole) == (1, 0, False)
    assert report.fault_examples
    assert report.totals["cust-9", "requests"] == 2


def test_the_schema_is_asked_for_each():
    report = verify([body(1), body(2)], lambda record: "no route" if record["sequence"].endswith("2") else None)
    assert (report.faults, report.fault_examples) == (1, [f"record {SOURCE}2: no route"])


def test_totals_are_of_what_is_billed_corrections_included():
    bodies = [
        body(1, input_tokens=100, requests=1),
        body(2, kind="sidecar.correction.v1", input_tokens=-40),
        body(3, billable=False, input_tokens=999),
        body(4, source="s2", input_tokens=0),
    ]
    report = verify(bodies)
    assert report.totals == {("cust-9", "input_tokens"): 60, ("cust-9", "requests"): 1}
    assert (report.not_billable, report.kinds["sidecar.correction.v1"]) == (1, 1)


def test_examples_are_few_however_many_faults_there_are():
    report = verify([b"{"] * 5_000 + [body(1)] * 5_000)
    assert (report.faults, len(report.fault_examples)) == (5_000, 20)
    assert (report.duplicates, len(report.duplicate_ids)) == (4_999, 20)


@given(st.lists(st.integers(1, 200)))
def test_numbers_agree_with_sets(numbers):
    report = verify(body(number, id_=str(place)) for place, number in enumerate(numbers))
    seen = set(numbers)
    assert (report.reused, report.duplicates) == (len(numbers) - len(seen), 0)
    assert report.missing == (max(seen) - min(seen) + 1 - len(seen) if seen else 0)
