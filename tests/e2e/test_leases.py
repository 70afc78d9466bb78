"""The whole node with leases: what clients were answered, what is recorded and what Redis holds say the same number."""

from collections import Counter

import orjson
import pytest

from tests.e2e.books import exchanges, usage
from tests.e2e.harness import Caller, Traffic, counters, house, until

pytestmark = pytest.mark.redis

TIGHT = 700
POLICY = f"""\
meters:
  requests: {{ count: 1, when: {{ status: [2xx, 3xx, 4xx] }} }}
  egress_bytes: {{ value: response.bytes }}
routes:
  - {{ id: all, match: {{ path: "/**" }}, identity_headers: true }}
plans:
  wide:
    limits:
      - {{ id: monthly, quota: 1000000/month }}
      - {{ id: burst, rate: 5000/s }}
  tight:
    limits: [{{ id: monthly, quota: {TIGHT}/month }}]
  sized:
    limits: [{{ id: egress, meter: egress_bytes, quota: 1GiB/month, reserve: 100 }}]
"""
CALLERS = [Caller("k-one", "c-one", "wide"), Caller("k-tight", "c-tight", "tight"), Caller("k-size", "c-size", "sized")]
LOAD = {"k-one": 8, "k-tight": 8, "k-size": 4}


def billed(answers, caller):
    """What counts of what a caller was answered: a 5xx does not."""
    return sum(answer.caller == caller and answer.status in (200, 404) for answer in answers)


async def test_with_leases_counters_records_and_answers_are_one_number(tmp_path, make_redis):
    # Mutations: a unit that came to nothing is lost (`settle`); what is in hand does not go back at the stop.
    redis = make_redis()
    more = f"redis: {{ url: '{redis.url}', timeout: 2s }}"
    async with house(tmp_path, POLICY, CALLERS, workers=2, more=more) as running:
        await running.ready()
        async with Traffic(running, LOAD) as traffic:
            # A unit that came to nothing is there for the next who asks: so they ask until all of it is used.
            all_used = lambda: billed(running.answers, "k-tight") >= TIGHT  # noqa: E731 - a condition
            await until(all_used, "the tight limit is used up", 60)
            await traffic.answered(200)
        assert await running.stop() == 0, running.log()
        lines = (tmp_path / "data/records.jsonl").read_bytes().splitlines()
        records = [record for record in map(orjson.loads, lines) if record["type"] == "sidecar.usage.v1"]
        modes = Counter(record["data"]["decision"]["mode"] for record in exchanges(records))
        print(modes, Counter((answer.caller, answer.status) for answer in running.answers))
        assert set(modes) == {"exact", "leased"}
        assert modes["leased"] > 300
        for caller, customer in (("k-one", "c-one"), ("k-tight", "c-tight")):
            used = billed(running.answers, caller)
            assert usage(records)[customer] == used
            assert counters(redis.cli, customer, "monthly") == {f"c{customer}": used}
        assert usage(records)["c-tight"] == TIGHT
        sent = usage(records, "egress_bytes")["c-size"]
        assert counters(redis.cli, "c-size", "egress") == {"cc-size": sent}
