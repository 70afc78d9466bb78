"""Joins the three counts and says what does not agree: one line of assertion for each invariant of FAULTS.

Records are taken as a consumer gets them; nothing here asks the sidecar for its opinion, but for `numbered`, which
holds the verifier that is shipped to the same answer as the count made here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import orjson

from sidecar.records.verify import verify
from tests.e2e.harness import Answer, body_of

Records = list[dict[str, Any]]


def exchanges(records: Records) -> Records:
    """The records of exchanges, without the checkpoints."""
    return [record for record in records if record["type"] == "sidecar.usage.v1"]


def numbered(records: Records) -> None:
    """Each producer's numbers run from 1 without gap or copy, and the shipped verifier says the same (I10)."""
    found = defaultdict(list)
    for record in records:
        found[record["source"]].append(int(record["sequence"]))
    for source, numbers in found.items():
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), f"{source}: {_gaps(numbers)}"
    report = verify(orjson.dumps(record) for record in records)
    assert report.whole, report
    _totalled(records)


def _totalled(records: Records) -> None:
    """Each checkpoint's totals are the sum of its source's records before it, those of a recovery included."""
    # Fails if a worker does not add what its start closed to its totals (conservation V10).
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for record in sorted(records, key=lambda record: record["sequence"]):
        used = sums[record["source"]]
        if record["type"] == "sidecar.checkpoint.v1":
            assert used == Counter(record["data"]["totals"]), record
        else:
            used.update(record["data"].get("usage", {}))


def once(records: Records) -> dict[str, dict[str, Any]]:
    """One record per exchange (I2); by id."""
    copies = [id_ for id_, number in Counter(record["id"] for record in records).items() if number > 1]
    assert not copies, f"recorded more than once: {copies[:5]}"
    return {record["id"]: record for record in records}


def denied(answers: Iterable[Answer], denials: Records) -> Records:
    """Each refusal has a record of its own or is counted in one summary; those of their own are returned."""
    refused = {answer.id: answer for answer in answers if answer.status == 429}
    alone = [record for record in denials if record["type"] == "sidecar.denial.v1"]
    assert once(alone).keys() <= refused.keys()
    assert all(record["data"]["path"].split("/")[2] == refused[record["id"]].nonce for record in alone)
    summed = sum(record["data"]["count"] for record in denials if record["type"] == "sidecar.denial-summary.v1")
    assert len(alone) + summed == len(refused), f"{len(alone)} records and {summed} summed, {len(refused)} refused"
    return alone


def joined(answers: Iterable[Answer], seen: Records, records: Records) -> None:
    """Whole answers have a record that says what they were; what the upstream saw has one, and the reverse (I1, I7).

    An exchange that nobody finished may end in a record of outcome `crashed`, or one that says how it broke.
    """
    by_id = once(exchanges(records))
    served = {answer.id: answer for answer in answers if answer.status and answer.status not in (401, 429, 502, 503)}
    unrecorded = [served[id_] for id_ in served.keys() - by_id.keys()]
    assert not unrecorded, f"{len(unrecorded)} answers have no record, as {unrecorded[:3]}"
    for id_, answer in served.items():
        _agree(answer, by_id[id_])
    at_upstream = Counter(entry["id"] for entry in seen)
    assert not [id_ for id_, number in at_upstream.items() if number > 1], "an upstream saw one request twice"
    assert not at_upstream.keys() - by_id.keys(), f"{len(at_upstream.keys() - by_id.keys())} exchanges have no record"
    nowhere = [by_id[id_] for id_ in by_id.keys() - at_upstream.keys()]
    assert {record["data"]["outcome"] for record in nowhere} <= {"crashed", "client_gone"}, nowhere[:3]
    for entry in seen:
        record = by_id[entry["id"]]
        assert record["data"]["path"].split("/")[2] == entry["nonce"]
        assert record["data"]["customer"] == entry["customer"]
        assert not entry["leaked"]
        if record["data"]["outcome"] == "ok":
            assert record["data"]["bytes_out"] == entry["bytes"]


def _agree(answer: Answer, record: dict[str, Any]) -> None:
    data = record["data"]
    assert data["path"].split("/")[2] == answer.nonce
    assert data["key_id"] == answer.caller
    assert data["status"] == answer.status, (answer, record)
    assert data["outcome"] == "ok", (answer, record)
    assert data["bytes_out"] == len(answer.body)
    assert answer.body == body_of(answer.nonce, len(answer.body)), "bytes crossed clients"
    assert data["usage"]["requests"] == (1 if answer.status < 500 else 0)


def usage(records: Records, meter: str = "requests", by: str = "customer") -> Counter[str]:
    """Units by customer (or key) of all records."""
    found: Counter[str] = Counter()
    for record in exchanges(records):
        found[record["data"][by]] += record["data"]["usage"].get(meter, 0)
    return found


def _gaps(numbers: list[int]) -> str:
    missing = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
    return (
        f"{len(numbers)} records, missing {missing[:10]} of {len(missing)}, {len(numbers) - len(set(numbers))} copies"
    )
