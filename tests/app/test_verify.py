"""The verifier of records: what is missing, what is twice, what is wrong, what they sum to."""

import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.app.verify import verify

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


def test_gaps_are_told_by_source():
    # fountain #503: an outage looked like no usage. Fails if only the count is compared.
    numbers = [number for number in range(5, 30) if number not in {7, 8, 20}]
    report = verify([*map(body, numbers), *(body(number, source="other") for number in range(1, 4))])
    assert not report.whole
    assert (report.missing, report.sources[SOURCE].gaps()) == (3, [(7, 8), (20, 20)])
    assert (report.sources[SOURCE].first, report.sources[SOURCE].last) == (5, 29)
    assert report.sources["other"].gaps() == []


@pytest.mark.parametrize(
    "copy", [body(2), body(2, id_="another"), body(9, id_=f"{SOURCE}2")], ids=["both", "sequence", "id"]
)
def test_a_copy_by_number_or_by_id_is_found_and_not_summed(copy):
    # openmeter #4485, lago #4725: a year of duplicates. Fails if either key alone is looked at.
    report = verify([*(body(number) for number in range(1, 9)), copy])
    assert (report.duplicates, report.totals["cust-9", "requests"]) == (1, 8)
    assert not report.whole


@pytest.mark.parametrize(
    "bad",
    [b"", b"{", b"[]", b"null", b'{"source":"s","id":"i"}', b'{"source":"s","id":"i","sequence":"x"}', body(0),
     body(1 << 60), body(3, requests="many"), b'{"source":"s","id":"i","sequence":"1","data":7}'],
)  # fmt: skip
def test_a_bad_record_is_told_and_the_rest_still_looked_at(bad):
    report = verify([body(1), bad, body(2)])
    assert report.faults == 1
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
    assert report.duplicates == len(numbers) - len(seen)
    assert report.missing == (max(seen) - min(seen) + 1 - len(seen) if seen else 0)
