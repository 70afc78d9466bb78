"""`sidecar ledger push` as a user calls it, and the questions that ClickHouse answers then."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Semaphore, Thread

import pytest

from tests.edge.ledger.events import lines, usage
from tests.edge.ledger.ledgers import load


@pytest.fixture
def loaded(sidecar, folder):
    path = folder / "data" / "records.jsonl"
    path.parent.mkdir()
    path.write_bytes(lines(*[usage(number, {"tokens": number}, customer=f"c{number % 2}") for number in range(1, 11)]))
    assert sidecar("ledger", "load")[0] == 0
    return path


def test_pushed_files_give_the_same_answers(sidecar, folder, loaded):
    # Fails if --engine or `ledger.engine` is not asked.
    place = {"SIDECAR_LEDGER__CLICKHOUSE__URL": f"chdb://{folder}/ch?database=ledger"}
    assert sidecar("ledger", "totals", "--engine", "clickhouse", **place)[2].endswith(
        "`sidecar ledger push` makes it\n"
    )
    status, out, err = sidecar("ledger", "push", **place)
    assert (status, out) == (0, "10 rows of 1 file inserted\n")
    assert "/p0000 0-" in err
    again = sidecar("ledger", "push", "--json", **place)[1]
    assert json.loads(again) == {"files": 0, "rows": 0, "last": [], "faults": []}
    for command in (["totals", "--by", "customer,hour"], ["trace", "--customer", "c1"]):
        answers = [
            sidecar("ledger", *command, "--json", "--engine", engine, **place) for engine in ("duckdb", "clickhouse")
        ]
        assert answers[0] == answers[1]
        assert answers[0][0] == 0
    version = "SELECT position(version(), '.') > 0 AS is_clickhouse"
    answer = sidecar("ledger", "query", version, "--csv", SIDECAR_LEDGER__ENGINE="clickhouse", **place)
    assert answer[:2] == (0, "is_clickhouse\n1\n")


def test_a_push_without_a_place_says_what_to_write(sidecar, loaded):
    status, _, err = sidecar("ledger", "push")
    assert status != 0
    assert "ledger.clickhouse.url" in err
    assert "SIDECAR_LEDGER__CLICKHOUSE__URL" in err


# The command, looking for new files ten times a second.
FOLLOW = """
import sys
from sidecar.cli import ledger_push, main
ledger_push.FOLLOW_SECONDS = 0.1
sys.argv[1:] = ["ledger", "push", "--follow"]
main()
"""


@contextmanager
def following(folder, url):
    """A push that follows: its lines on standard error can be read, and what it `printed` once SIGTERM has ended it."""
    place = {"SIDECAR_LEDGER__CLICKHOUSE__URL": url}
    words = [sys.executable, "-u", "-c", FOLLOW]
    with subprocess.Popen(
        words, cwd=folder, env=os.environ | place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        running.printed = []
        try:
            yield running
        finally:
            running.send_signal(signal.SIGTERM)
            running.printed += running.communicate(timeout=30)


def next_push(running):
    return next(line for line in running.stderr if "/p0000 " in line).partition("/p0000 ")[2]


def test_a_push_that_follows_pushes_what_arrives_until_a_signal_ends_it(sidecar, folder, loaded):
    # Fails if it ends after the first look, if it inserts what is in again, or if SIGTERM is a failure.
    url = f"chdb://{folder}/ch?database=ledger"
    with following(folder, url) as running:
        first, size = next_push(running), loaded.stat().st_size
        with loaded.open("ab") as file:
            file.write(lines(usage(11, customer="c1"), usage(12, customer="c1")))
        assert sidecar("ledger", "load")[0] == 0
        second = next_push(running)
    assert (first.partition("-")[0], second.partition("-")[0]) == ("0", str(size))
    assert (first.split(": ")[1], second.split(": ")[1]) == ("10 rows\n", "2 rows\n")
    assert (running.returncode, running.printed[0]) == (0, "12 rows of 2 files inserted\n")
    sums = [sidecar("ledger", "totals", "--json", "--engine", engine, SIDECAR_LEDGER__CLICKHOUSE__URL=url)
            for engine in ("duckdb", "clickhouse")]  # fmt: skip
    assert sums[0] == sums[1]


def test_a_push_that_follows_waits_for_a_clickhouse_that_is_ill_with_one_line(folder, loaded):
    # Fails if the first failure ends it, or if each is a line.
    asked = Semaphore(0)

    class Ill(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(500)
            asked.release()

    with ThreadingHTTPServer(("127.0.0.1", 0), Ill) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with following(folder, f"http://127.0.0.1:{server.server_port}/ledger") as running:
            assert all(asked.acquire(timeout=30) for _ in range(4))
        server.shutdown()
    assert (running.returncode, running.printed[1].count("trying again")) == (0, 1), running.printed


PUSH = """
import os, signal, sys
from pathlib import Path
from sidecar.edge.ledger.clickhouse import ClickHouse
from sidecar.edge.ledger.clickhouse_tables import ClickHouseTables
from sidecar.edge.ledger.engine import Engine
from sidecar.edge.ledger.files import LedgerFolder
from sidecar.ledger.pushing import Push, push

folder, url, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

class Mortal(ClickHouse):
    def _step(self, act):
        global steps
        if not (steps := steps - 1):
            os.kill(os.getpid(), signal.SIGKILL)
        act()

    def insert_file(self, *arguments):
        self._step(lambda: super(Mortal, self).insert_file(*arguments))

    def execute(self, sql):
        step = self._step if sql.startswith("INSERT") else lambda act: act()
        step(lambda: super(Mortal, self).execute(sql))

with Mortal(url) as clickhouse, Engine() as engine:
    push(LedgerFolder(folder), engine, ClickHouseTables(clickhouse), Push())
    print(clickhouse.run("SELECT count(*), sum(units), (SELECT count(*) FROM ledger_rows) FROM usage"))
"""


def test_a_push_that_is_killed_at_any_point_loses_and_doubles_nothing(tmp_path):
    # Fails if a file is noted before it is inserted: it is lost. Each run is killed one step later than the one before.
    load(tmp_path / "ledger", *[[usage(number)] for number in range(1, 4)])
    arguments = [sys.executable, "-c", PUSH, str(tmp_path / "ledger"), f"chdb://{tmp_path}/ch?database=ledger"]
    for step in (1, 2, 2, 3):  # before an insert; before its note; again; of the second file
        killed = subprocess.run([*arguments, str(step)], check=False, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = subprocess.run([*arguments, "-1"], check=True, capture_output=True, text=True)
    assert done.stdout == "[(3, 3, 3)]\n"
