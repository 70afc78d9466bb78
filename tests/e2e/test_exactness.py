"""What was enforced is what is billed: the upstream's file, clients' answers, Redis and Kafka say the same number."""

import asyncio
from collections import Counter

import orjson
import pytest
from jsonschema import Draft202012Validator

from tests.e2e.books import denied, exchanges, joined, numbered, usage
from tests.e2e.harness import Caller, counters, house

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

REQUESTS = 1200
POLICY = """\
meters:
  requests: { count: 1, when: { status: [2xx, 3xx, 4xx] } }
  egress_bytes: { value: response.bytes }
routes:
  - { id: all, match: { path: "/**" }, identity_headers: true }
plans:
  wide:
    limits:
      - { id: monthly, quota: 1000000/month }
      - { id: daily, quota: 1000000/day, scope: key }
      - { id: egress, meter: egress_bytes, quota: 1GiB/month, reserve: 4096 }
  tight:
    limits:
      - { id: monthly, quota: 97/month, exact: true }
      - { id: daily, quota: 60/day, scope: key, exact: true }
"""
CALLERS = [
    Caller("k-one", "c-one", "wide"),
    Caller("k-two", "c-two", "wide"),
    Caller("k-two-b", "c-two", "wide"),
    Caller("k-tight", "c-tight", "tight"),
    Caller("k-tight-b", "c-tight", "tight"),
    Caller("k-alone", "c-alone", "tight"),
]


async def test_what_was_counted_served_and_recorded_is_one_number_through_two_workers(
    tmp_path, make_redis, kafka_server
):
    """litellm #34732 (N at once all passed), unkey #1995, Kong docs #6586, openmeter #4485.

    Fails if `_settle` is skipped (egress keeps its estimate, a 500 its unit), or if a denial writes to the limits.
    """
    redis = make_redis()
    async with house(
        tmp_path, POLICY, CALLERS, bootstrap=kafka_server.bootstrap, redis=redis.url, workers=2
    ) as running:
        await running.all_ready()
        await _ask_all(running)
        answers = running.answers
        assert all(answer.status for answer in answers), [answer for answer in answers if not answer.status][:3]
        assert await running.stop() == 0, running.log()

        records, denials, seen = running.records(), running.denials(), running.origin.seen()
        numbered(records)
        numbered(denials)
        joined(answers, seen, records)
        _hold_to_schema(await running.sidecar("schema", "record"), records + denials)

        by_status = Counter((answer.caller, answer.status) for answer in answers)
        assert len({record["source"] for record in exchanges(records)}) == 2, "one of the workers had nothing to do"
        by_key = usage(records, by="key_id")
        for caller in CALLERS:
            billed = by_status[caller.name, 200] + by_status[caller.name, 404]
            assert by_key[caller.name] == billed
            assert counters(redis.cli, caller.customer, "daily")[f"k{caller.name}"] == billed
        for customer in {caller.customer for caller in CALLERS}:
            assert counters(redis.cli, customer, "monthly") == {f"c{customer}": usage(records)[customer]}
        upstream_bytes = Counter()
        for entry in seen:
            upstream_bytes[entry["customer"]] += entry["bytes"]
        for customer in ("c-one", "c-two"):
            assert counters(redis.cli, customer, "egress") == {f"c{customer}": upstream_bytes[customer]}
            assert usage(records, "egress_bytes")[customer] == upstream_bytes[customer]

        assert usage(records)["c-tight"] == 97, "all of a limit can be used, and not one more"
        assert usage(records)["c-alone"] == 60
        # Fails if a denial beyond `journal.denials` is neither recorded nor summed up, or both.
        alone = denied(answers, denials)
        assert {denial["data"]["decision"]["violated"] for denial in alone} == {"monthly", "daily"}
        assert {answer.nonce for answer in answers} == {entry["nonce"] for entry in seen} | {
            answer.nonce for answer in answers if answer.status == 429
        }


async def _ask_all(running):
    """Forty connections, six keys: each connection asks its share, one request after the other."""
    callers = [CALLERS[i % len(CALLERS)].name for i in range(40)]

    async def one(caller: str, number: int) -> None:
        client = running.client(caller)
        for i in range(number):
            # Nothing of the tight plan fails, so that its limit is met exactly.
            status = 200 if "tight" in caller or "alone" in caller else (200, 200, 404, 500)[i % 4]
            await client.ask(running.nonce(), status, 17 * i % 900 + 1, i % 3)
        client.hang_up()

    await asyncio.gather(*(one(caller, REQUESTS // len(callers)) for caller in callers))


def _hold_to_schema(schema: str, records: list[dict]) -> None:
    """By `sidecar schema record` and a validator that is not ours."""
    validator = Draft202012Validator(orjson.loads(schema))
    for record in records:
        assert validator.is_valid(record), [error.message for error in validator.iter_errors(record)]
