"""The end of a month, and a node that is cut off for a day, on clocks that the test sets: counters, ledger and seal.

The journal, the state of a node without Redis, the files and DuckDB are real; time and the upstream are the test's.
"""

import random
from datetime import UTC, datetime
from itertools import count

import orjson
import pytest

from sidecar.core.policy import Limit
from sidecar.core.record import Ids
from sidecar.edge.clock import SystemClock
from sidecar.edge.journal import Orphan, recover
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.ledger.connection import open_ledger
from sidecar.ledger.load_options import LoadOptions
from sidecar.ledger.loading import Loader
from sidecar.ledger.periods import period
from sidecar.ledger.sealing import Period, seal
from sidecar.ledger.verify import verify
from sidecar.testing import HandClock
from tests.edge.journal.logs import entries
from tests.embedded.survivor import EGRESS, Node
from tests.stage import quota

END_US = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp()) * 1_000_000
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
NOVEMBER = Period("2026-11", *period("2026-11"))
DECEMBER = Period("2026-12", *period("2026-12"))
LIMITS = quota(1_000_000), EGRESS, Limit("daily", "quota", 1_000_000, meter="requests", calendar="day")
MEMORY = "256MB"
_LIVES = count(1)


async def node(folder, clock):
    return with_ids(await Node(folder, clock, limits=LIMITS, version="1").start())


def with_ids(life):
    """A life mints ids that no other one does."""
    life.context.mint = Ids(next(_LIVES)).mint
    return life


def checkpoint(life, *, final=False):
    life.journal.checkpoint(len(life.open), "p", 0, life.context.totals.units, final=final)
    life.journal._writer.flush()


async def end(life):
    life.journal.summarise_denials()
    checkpoint(life, final=True)
    await life.journal.aclose()


def ship(life, path, *, without=()):
    """Write the records of the journal to a sink file, as the shipper does, without those at some places."""
    bodies = [entry.body for entry in entries(life.folder) if entry.stream == "records"]
    path.write_bytes(b"".join([body + b"\n" for place, body in enumerate(bodies) if place not in without]))
    return bodies


def load(folder, *files):
    options = LoadOptions(flush_records=97)
    with Loader(LedgerFolder(folder), options, memory=MEMORY) as loader:
        for file in files:
            loader.load_file(file)
        assert loader.report.faults == []


def sealing(folder, which=NOVEMBER):
    with open_ledger(folder, MEMORY) as ledger:
        return seal(ledger, which, which.end_us + 2 * DAY_US)


def asked(folder, sql):
    with open_ledger(folder, MEMORY) as ledger:
        return dict(ledger.engine.run(sql))


def counted(life, stem):
    """The counters of a limit over all customers, by window."""
    found = {}
    for key, units in life.state.counters.state.items():
        if f"={stem}:" in key and isinstance(units, int):
            window = key.rpartition(":")[2]
            found[window] = found.get(window, 0) + units
    return found


async def traffic(life, chance, steps):
    """Exchanges that begin, end and are killed while time passes over the end of the month."""
    for _ in range(steps):
        life.clock.turn(chance.randrange(400_000))
        match chance.choice(("begin", "end", "kill") if chance.random() < 0.05 else ("begin", "begin", "end")):
            case "begin":
                await life.begin(f"key{chance.randrange(40)}")
            case "end" if life.open:
                await life.end(chance)
            case "kill":
                life = with_ids(await life.next_life())
        if chance.random() < 0.2:
            checkpoint(life)
    return life


@pytest.mark.parametrize("seed", range(3))
async def test_at_a_month_s_end_each_exchange_is_in_one_month_everywhere(tmp_path, seed):
    # Fails if a record belongs to the month in which it ended, or a counter to that of the clock at the settle.
    chance, clock = random.Random(seed), HandClock(END_US - 12 * SECOND_US)
    life = await traffic(await node(tmp_path / "j", clock), chance, 130)
    assert clock.now_us() > END_US
    while life.open:
        await life.end(chance)
    await end(life)
    file = tmp_path / "records.jsonl"
    bodies = ship(life, file)
    load(tmp_path / "ledger", file)
    usage = [
        record["data"] | {"id": record["id"]} for record in map(orjson.loads, bodies) if ".usage." in record["type"]
    ]
    straddling = [
        each for each in usage if each["period_time"] < "2026-12" and each["outcome"] != "crashed"
        and int(each["period_time"][17:19]) + each["duration_us"] / 1e6 > 60
    ]  # fmt: skip
    assert straddling, "no exchange was open over the end of the month: this showed nothing"
    for stem, meter in (("monthly", "requests"), ("egress", "egress_bytes"), ("daily", "requests")):
        form = "%Y-%m-%d" if stem == "daily" else "%Y-%m"
        # What a killed worker had open gives back all that it had reserved, and is not billed.
        rows = asked(tmp_path / "ledger", f"""
            SELECT strftime(make_timestamp(period_us), '{form}') AS window, sum(units)::BIGINT FROM usage
            WHERE meter = '{meter}' AND outcome <> 'crashed' GROUP BY ALL HAVING sum(units) > 0""")  # fmt: skip
        assert {window: units for window, units in counted(life, stem).items() if units} == rows
    with open_ledger(tmp_path / "ledger", MEMORY) as ledger:
        assert verify(ledger).is_whole
    both = [sealing(tmp_path / "ledger", each) for each in (NOVEMBER, DECEMBER)]
    assert [each.is_sealed for each in both] == [True, True]  # the source has ended
    totals = [sum(sum(each.document["units"]["requests"].values()) for each in both)]
    assert totals == [sum(each["usage"]["requests"] for each in usage)]


async def test_a_month_is_sealed_when_its_last_exchange_is_recorded_and_not_before(tmp_path):
    # Fails if the seal waits for time alone, or for a checkpoint alone: the open exchange would be missing in the bill.
    clock = HandClock(END_US - 10 * SECOND_US)
    life = await node(tmp_path / "j", clock)
    chance, file, ledger = random.Random(1), tmp_path / "records.jsonl", tmp_path / "ledger"
    await life.begin()
    await life.end(chance)
    await life.begin()  # and it stays open over the end
    verdicts = []
    for passing_us in (0, 30 * SECOND_US, 60 * SECOND_US):
        clock.turn(passing_us)
        checkpoint(life)
        ship(life, file)
        load(ledger, file)
        [source] = sealing(ledger).sources
        verdicts.append(source.missing[0].partition(",")[0].partition(";")[0])
    assert verdicts == ["no checkpoint after the end"] * 2 + ["an exchange of the period may still be open"]
    await life.end(chance)
    checkpoint(life)
    ship(life, file)
    load(ledger, file)
    assert sealing(ledger).is_sealed


@pytest.mark.parametrize("hidden", ["usage", "checkpoint", "source"])
async def test_a_hidden_record_keeps_the_month_open_whatever_it_is(tmp_path, hidden):
    # Fails if numbers are not looked at: a lost record would be an exchange that is never billed.
    clock = HandClock(END_US - 10 * SECOND_US)
    life = await node(tmp_path / "j", clock)
    for _ in range(5):
        await life.begin()
        await life.end(random.Random(2))
        checkpoint(life)
    clock.turn(100 * SECOND_US)
    checkpoint(life)
    file, whole = tmp_path / "records.jsonl", tmp_path / "whole.jsonl"
    bodies = ship(life, whole)
    place = next(n for n, body in enumerate(bodies) if f"sidecar.{hidden}.v1".encode() in body)
    ship(life, file, without={place})
    load(tmp_path / "lacking", file)
    load(tmp_path / "ledger", whole)
    lacking = sealing(tmp_path / "lacking")
    assert not lacking.is_sealed
    assert "numbers" in lacking.sources[0].missing[0]
    assert sealing(tmp_path / "ledger").is_sealed


async def test_a_node_that_was_cut_off_for_a_day_ships_it_later_and_the_period_is_open_until_then(tmp_path):
    # Fails if a node that is silent counts as idle: its day would be missing in the month that was sealed without it.
    chance, clock = random.Random(3), HandClock(END_US - DAY_US)
    near, far = [await node(tmp_path / name, clock) for name in ("near", "far")]
    near_file, far_file, ledger = tmp_path / "near.jsonl", tmp_path / "far.jsonl", tmp_path / "ledger"
    checkpoint(far)
    ship(far, far_file)  # the last that Kafka got of it
    for _ in range(24 * 4):
        clock.turn(DAY_US // 24 // 4)
        for life in (near, far):
            await life.begin(f"key{chance.randrange(40)}")
            await life.end(chance)
            checkpoint(life)
        if chance.random() < 0.05:
            far = with_ids(await far.next_life())  # killed, and started again without Kafka and Redis
    clock.turn(100 * SECOND_US)
    checkpoint(near)
    ship(near, near_file)
    load(ledger, near_file, far_file)
    cut = sealing(ledger)
    assert not cut.is_sealed
    assert len([source for source in cut.sources if source.is_complete]) == 1
    before = asked(ledger, "SELECT meter, sum(units)::BIGINT FROM usage GROUP BY meter")
    far.journal._folder.release()  # its machine is off; the journal is carried over
    for timer in far.journal._timers.values():
        timer.cancel()
    assert recover(Orphan(tmp_path / "far", "0", "//sidecar/t/n/0", "1"), SystemClock()) == 0
    ship(far, far_file)
    load(ledger, far_file)
    whole = sealing(ledger)
    assert whole.is_sealed
    with open_ledger(ledger, MEMORY) as rows:
        assert verify(rows).is_whole
    after = asked(ledger, "SELECT meter, sum(units)::BIGINT FROM usage GROUP BY meter")
    assert after["requests"] > before["requests"]
    daily = {name: counted(life, "daily") for name, life in (("near", near), ("far", far))}
    per_day = asked(ledger, """SELECT strftime(make_timestamp(period_us), '%Y-%m-%d') AS day, sum(units)::BIGINT
        FROM usage WHERE meter = 'requests' GROUP BY day HAVING sum(units) > 0""")  # fmt: skip
    assert per_day == {
        day: daily["near"].get(day, 0) + daily["far"].get(day, 0) for day in daily["near"].keys() | daily["far"].keys()
    }
