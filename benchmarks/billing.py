"""`python -m benchmarks.billing`: Kafka → ledger in records a second of CPU, and sums over a large ledger.

Both stages of a load are measured apart, each in a process of its own: Kafka → bytes (aiokafka, as the loader does,
beside librdkafka), bytes → Parquet. Then the whole command's loader does the same at once. A run whose
ledger has one record less, or more, than the topic gives no number.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import report
from benchmarks.destinations import broker
from benchmarks.feed import CUSTOMERS, Exchange
from benchmarks.stage import RunFailed
from sidecar.core.record import Ids, usage_record
from sidecar.edge.kafka.bulk import BulkReader
from sidecar.edge.ledger.digests import damaged_files
from sidecar.edge.ledger.earlier import Earlier
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFile, LedgerFolder
from sidecar.edge.ledger.lines import encode
from sidecar.edge.ledger.queries import Scope
from sidecar.edge.ledger.schema import COLUMNS, ordering, quoted
from sidecar.edge.ledger.writer import PartitionWriter, copy_options, metadata_of
from sidecar.ledger.load_options import LoadOptions
from sidecar.ledger.loading import Loader
from sidecar.ledger.reading import open_ledger

MEMORY = "1GB"
GOAL = 50_000
METERS = {1: {"requests": 1}, 5: dict.fromkeys(("requests", "input", "output", "cached", "egress_bytes"), 1)}
BEGIN_US = 1_793_491_200_000_000  # 2026-11-01
FILE_ROWS = 5_000_000
MODELS = ("claude-opus-4-6", "gpt-5", "gpt-5-mini", "gemini-3-pro")
Figures = dict[str, Any]


def records(count: int, meters: int) -> list[tuple[bytes, bytes]]:
    """Keys and records, written by the code of the data path; ids and figures differ as they do in life."""
    chance = random.Random(11)
    ids = [Ids(chance.getrandbits(60)) for _ in range(4)]  # of four workers
    callers = [Exchange(number, BEGIN_US) for number in range(CUSTOMERS)]
    made = []
    for number in range(count):
        now_us = BEGIN_US + number * 900 + chance.randrange(900)
        facts = callers[int(chance.paretovariate(1)) % CUSTOMERS]
        facts.id, facts.upstream_us = ids[number % 4].mint(now_us // 1000), chance.randrange(5_000_000)
        facts.duration_us = facts.upstream_us + chance.randrange(500)
        facts.bytes_in, facts.bytes_out = chance.randrange(9_000), chance.randrange(70_000)
        facts.usage = {name: 1 if name == "requests" else chance.randrange(5_000) for name in METERS[meters]}
        if meters > 1:
            model = MODELS[number % len(MODELS)]
            facts.dims = {"model": model}
            facts.usage_lines = [{"model": model, "kinds": {"input": 10, "output": 20}}]
        facts.decide(now_us)
        source = f"//sidecar/bench/node/{number % 4}/179603185546701178938013"
        made.append((facts.identity.customer.encode(), usage_record(facts, now_us, source, number // 4 + 1)))
    return made


def produce(bootstrap: str, topic: str, made: list[tuple[bytes, bytes]]) -> None:
    """All records on one partition, in transactions like the shipper's, not compressed as its are."""
    from confluent_kafka import Producer  # noqa: PLC0415 - tools of this function
    from confluent_kafka.admin import AdminClient, NewTopic  # noqa: PLC0415

    admin = AdminClient({"bootstrap.servers": bootstrap})
    for done in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        done.result(20)
    options = {"bootstrap.servers": bootstrap, "transactional.id": topic, "queue.buffering.max.messages": 200_000}
    producer = Producer({**options, "log_level": 0})
    producer.init_transactions(60)
    for start in range(0, len(made), 5_000):
        producer.begin_transaction()
        for key, value in made[start : start + 5_000]:
            producer.produce(topic, value, key)
        producer.commit_transaction(60)


def measured(work: Callable[..., Figures], *arguments: Any) -> Figures:
    """Run in a fresh process: its CPU, wall time and peak memory beside what it returns."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_timed, work, arguments).result()


def _timed(work: Callable[..., Figures], arguments: tuple[Any, ...]) -> Figures:
    idle = _peak_kb()
    cpu, wall = time.process_time(), time.monotonic()
    figures = work(*arguments)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    peak = _peak_kb()
    rates = {"per_core_second": round(figures["records"] / cpu), "per_second": round(figures["records"] / wall)}
    return {
        **(rates if figures["records"] else {}),
        "cpu_s": round(cpu, 2),
        "wall_s": round(wall, 2),
        "peak_mb": peak >> 10,
        "idle_mb": idle >> 10,
        **figures,
    }


def _peak_kb() -> int:
    """Of this process alone: getrusage begins with the peak of the one that started it."""
    (line,) = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM")]
    return int(line.split()[1])


def by_aiokafka(bootstrap: str, topic: str, folder: str, expected: int) -> Figures:
    """Kafka → bytes, as the loader does it."""
    count = 0
    with BulkReader({"bootstrap_servers": bootstrap}) as reader, Path(folder, "lines").open("wb", buffering=0) as out:
        reader.assign({(topic, 0): 0})
        while count < expected:
            for pairs in reader.read(0.5).messages.values():
                count += len(pairs)
                out.write(encode(pairs))
    return {"records": count}


def by_librdkafka(bootstrap: str, topic: str, folder: str, expected: int) -> Figures:
    """The same by the client that most consumers have."""
    from confluent_kafka import Consumer, TopicPartition  # noqa: PLC0415 - the tool of this function

    options = {"bootstrap.servers": bootstrap, "group.id": "bench", "isolation.level": "read_committed", "log_level": 0}
    ahead = {"queued.max.messages.kbytes": 32_768, "fetch.queue.backoff.ms": 10}  # else it rests for seconds
    consumer, count = Consumer({**options, **ahead, "enable.auto.commit": False}), 0
    consumer.assign([TopicPartition(topic, 0, 0)])
    with Path(folder, "lines").open("wb", buffering=0) as out:
        while count < expected:
            messages = [each for each in consumer.consume(10_000, timeout=0.5) if each.error() is None]
            count += len(messages)
            out.write(encode([(each.offset(), each.value()) for each in messages]))
    consumer.close()
    return {"records": count}


def to_parquet(folder: str, path: str, count: int) -> Figures:
    """Bytes → Parquet: the lines of a batch that is there, by the writer of the loader."""
    ledger = LedgerFolder(Path(folder))
    with Engine(folder=ledger.path, memory=MEMORY) as engine:
        writer = PartitionWriter(ledger, "bench", 0, (engine, Earlier(engine, ledger)))
        shutil.copyfile(path, writer._lines)  # as if it had been collected; the copy is 0.1 s of system time
        writer.records, writer.longest = count, 1 << 20
        loaded = writer.flush(count)
        writer.close()
    assert loaded is not None
    return {"records": loaded.records, "bytes_per_record": round(loaded.size / loaded.records, 1)}


def load(bootstrap: str, topic: str, folder: str) -> Figures:
    """Both at once: what `sidecar ledger load` does."""
    with (
        BulkReader({"bootstrap_servers": bootstrap}) as reader,
        Loader(LedgerFolder(Path(folder)), LoadOptions(), memory=MEMORY) as loader,
    ):
        loader.load_topics(reader, [topic])
        return {
            "records": loader.report.total("records"),
            "bytes_per_record": round(loader.report.total("size") / loader.report.total("records"), 1),
            "files": loader.report.files,
        }


def stages(bootstrap: str, count: int, meters: int) -> Figures:
    """All stages of a topic of `count` records."""
    topic = f"bench{time.monotonic_ns()}"
    _say(f"{count:,} records with {counted(meters)}")
    made = records(count, meters)
    produce(bootstrap, topic, made)
    sizes = sum(len(value) for _, value in made)
    del made
    found: Figures = {"json_bytes_per_record": round(sizes / count)}
    with tempfile.TemporaryDirectory(prefix="bench-ledger-") as folder:
        found["librdkafka"] = measured(by_librdkafka, bootstrap, topic, folder, count)
        found["parquet"] = measured(to_parquet, f"{folder}/stage", f"{folder}/lines", count)
        found["aiokafka"] = measured(by_aiokafka, bootstrap, topic, folder, count)
        found["load"] = measured(load, bootstrap, topic, f"{folder}/ledger")
    for name in ("librdkafka", "aiokafka", "parquet", "load"):
        if found[name]["records"] != count:
            raise RunFailed(f"{count} records were produced, and {name} had {found[name]['records']}")
    return found


def counted(meters: int) -> str:
    return "one meter" if meters == 1 else f"{meters} meters"


def generate(folder: Path, rows: int) -> None:
    """A ledger of `rows` rows: a month of 20,000 customers, five meters and four models, in files as a loader's."""
    ledger = LedgerFolder(folder)
    ledger.identify()
    (folder / "usage.records").mkdir()
    time_us = f"{BEGIN_US} + i * {max(1, 30 * 86_400_000_000 // rows)}"
    values = {
        "part": "0", "offset": "i", "source": "'//sidecar/bench/node/' || i % 4 || '/1'", "sequence": "i // 4 + 1",
        "id": "printf('01M8N%021d', i)", "kind": "'usage'", "copy": "false", "first": "i % 5 = 0",
        "time_us": time_us, "period_us": time_us, "account": "c", "customer": "c", "key_id": "'k' || c",
        "plan": "'pro@3'", "route": "'chat'", "method": "'POST'", "path": "'/v1/chat'", "status": "200",
        "outcome": "'ok'", "quality": "'exact'", "billable": "hash(i) % 50 > 0", "reason": "'plan:pro'", "line": "0",
        "units": "hash(i + 1) % 5000", "model": f"{list(MODELS)}[1 + (i // 5 * 7919) % 4]",
        "meter": f"{list(METERS[5])}[1 + i % 5]",
    }  # fmt: skip
    columns = ", ".join([f"({values.get(each.name, 'NULL')})::{each.type} AS {quoted(each.name)}" for each in COLUMNS])
    with Engine(folder=folder, threads=2, memory="4GB") as engine:
        for first in range(0, rows, FILE_ROWS):
            last = min(rows, first + FILE_ROWS) - 1
            draft = ledger.work_file("usage.records", 0, "new")
            numbered = f"SELECT *, 'c' || hash(i // 5) % 20000 AS c FROM range({first}, {last + 1}) t(i)"
            ordered = f"SELECT {columns} FROM ({numbered}) ORDER BY {ordering()}"
            file = LedgerFile("usage.records", 0, first, last)
            engine.run(f"COPY ({ordered}) TO '{draft}' {copy_options(metadata_of(file))}")
            ledger.publish(draft, file)
            _say(f"{last + 1:,} of {rows:,} rows generated")


def sums(folder: str, by: list[str], scope: Scope) -> Figures:
    """One question on two cores, opening the ledger included."""
    with open_ledger(Path(folder), memory=MEMORY, threads=2) as ledger:
        return {"records": 0, "by": ",".join(by), "groups": len(ledger.totals(by, scope).rows)}


def digests(folder: str) -> Figures:
    """What `sidecar ledger verify` and `seal` do first: each file read and compared with the digest of its name."""
    ledger = LedgerFolder(Path(folder))
    files = ledger.listing().files
    if damaged := damaged_files(ledger, files, threads=2):
        raise RunFailed(f"damaged: {damaged}")
    return {"records": 0, "by": "digests of the files", "groups": len(files)}


QUESTIONS = (
    (["meter"], Scope()),
    (["customer", "meter"], Scope()),
    (["customer", "meter", "model", "plan"], Scope()),
    (["day", "meter"], Scope()),
    (["meter", "model"], Scope(customer="c77")),
)


def large(rows: int) -> Figures:
    """Totals of a ledger of `rows` rows."""
    with tempfile.TemporaryDirectory(prefix="bench-ledger-") as folder:
        began = time.monotonic()
        generate(Path(folder), rows)
        generated = round(time.monotonic() - began)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
        found = [measured(sums, folder, by, scope) for by, scope in QUESTIONS] + [measured(digests, folder)]
    return {"rows": rows, "bytes": size, "generated_s": generated, "questions": found}


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def show(found: Figures) -> None:
    out = Console(width=None if sys.stdout.isatty() else 140)
    for meters, stage in found["stages"].items():
        rows = [
            [name, f"{stage[key]['per_core_second']:,}", f"{stage[key]['per_second']:,}", f"{stage[key]['peak_mb']} MB"]
            for name, key in (
                ("Kafka → bytes, librdkafka", "librdkafka"),
                ("Kafka → bytes, aiokafka", "aiokafka"),
                ("bytes → Parquet", "parquet"),
                ("Kafka → Parquet (the loader)", "load"),
            )
        ]
        title = (
            f"{counted(int(meters))}: {stage['load']['bytes_per_record']} bytes a record at rest, "
            f"{stage['json_bytes_per_record']} as JSON"
        )
        out.print(report.table(title, ("stage", "records/s of CPU", "records/s", "peak memory"), rows))
    if "large" in found:
        rows = [
            [each["by"], str(each["groups"]), f"{each['wall_s']} s", f"{each['cpu_s']} s", f"{each['peak_mb']} MB"]
            for each in found["large"]["questions"]
        ]
        title = f"totals of {found['large']['rows']:,} rows, {found['large']['bytes'] / 1e9:.1f} GB, two cores"
        out.print(report.table(title, ("by", "groups", "time", "CPU", "peak memory"), rows))


@click.command(context_settings={"show_default": True})
@click.option("--records", "count", default=500_000, type=click.IntRange(1_000), help="Of each topic.")
@click.option("--rows", default=100_000_000, type=click.IntRange(0), help="Of the large ledger; 0: without it.")
@click.option("--short", is_flag=True, help="50,000 records and a million rows: does it run?")
@click.option("--json", "as_json", is_flag=True, help="JSON on the standard output, instead of tables.")
def main(count: int, rows: int, short: bool, as_json: bool) -> None:
    """Records a second from Kafka into the ledger, bytes at rest, and sums over a large ledger."""
    count, rows = (50_000, min(rows, 1_000_000)) if short else (count, rows)
    found: Figures = {"machine": report.machine(), "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "stages": {}}
    try:
        with broker() as bootstrap:
            for meters in METERS:
                found["stages"][str(meters)] = stages(bootstrap, count, meters)
        if rows:
            found["large"] = large(rows)
    except RunFailed as failure:
        raise click.ClickException(str(failure)) from failure
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(found)
    rate = found["stages"]["1"]["load"]["per_core_second"]
    _say(f"goal {GOAL:,} records a second of CPU: {rate:,}, {'reached' if rate >= GOAL else 'NOT reached'}")


if __name__ == "__main__":
    main()
