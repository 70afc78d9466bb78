"""What clients notice while processes of the node die and come back: a delay, and no refused connection."""

import asyncio
import contextlib
import os
import signal
import time

import orjson
import pytest

from tests.app.node import KEY, node, start
from tests.e2e.harness import until
from tests.servers.redis import free_port


class Visitors:
    """Clients that connect anew for each request, one after the other, until they are to stop."""

    def __init__(self, where, number=4):
        self.refused, self.failed, self.answered = [], 0, 0
        host, port = where.removeprefix("http://").split(":")
        self._where = host, int(port)
        self._stopping = False
        self._tasks = [asyncio.get_running_loop().create_task(self._go()) for _ in range(number)]

    async def stop(self):
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def more(self, number):
        goal = self.answered + number
        await until(lambda: self.answered >= goal, f"{number} more answers")

    async def _go(self):
        while not self._stopping:
            began = time.monotonic()
            try:
                reader, writer = await asyncio.open_connection(*self._where)
            except ConnectionRefusedError:
                self.refused.append(began)
                await asyncio.sleep(0.01)
                continue
            try:
                writer.write(
                    f"GET /hello HTTP/1.1\r\nHost: a\r\nX-Api-Key: {KEY}\r\nConnection: close\r\n\r\n".encode()
                )
                answer = await asyncio.wait_for(reader.read(), 20)
            except ConnectionError:
                answer = b""
            finally:
                writer.close()
            self.answered += answer.startswith(b"HTTP/1.1 200")
            self.failed += not answer.startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.005)


async def test_no_connection_is_refused_while_the_only_worker_is_started_again(tmp_path):
    # Fails if the worker binds for itself, or if the supervisor does not hold the listening sockets.
    async with node(tmp_path) as running:
        visitors = Visitors(running.where)
        for restarts in (1, 2):
            await visitors.more(30)
            status = (await running.tell("/status"))[1]
            os.kill(status["children"][0]["pid"], signal.SIGKILL)
            await running.until(lambda status, n=restarts: status["children"][0]["restarts"] == n and status["ready"])
        await visitors.more(30)
        await visitors.stop()
        assert visitors.refused == []
        assert visitors.failed <= 2 * 4, "those that the killed worker had accepted, at most one a client"
        assert await running.stop() == 0


@pytest.mark.redis
async def test_another_worker_accepts_while_one_is_being_started_again(tmp_path, make_redis):
    # Fails if `cover` is not told: every second connection waits until the stopped worker goes on.
    redis = make_redis()
    async with node(tmp_path, f"workers: 2\nredis: {{ url: '{redis.url}', timeout: 2s }}\n") as running:
        status = await running.until(lambda status: status["ready"])
        os.kill(status["children"][0]["pid"], signal.SIGSTOP)
        await running.until(lambda status: "does not answer" in " ".join(status["reasons"]))
        visitors = Visitors(running.where, number=8)
        await visitors.more(200)
        await visitors.stop()
        assert (visitors.refused, visitors.failed) == ([], 0)
        os.kill(status["children"][0]["pid"], signal.SIGCONT)
        await running.until(lambda status: status["ready"])
        assert (await running.ask())[0] == 200
        assert await running.stop() == 0


@contextlib.asynccontextmanager
async def killed_supervisor(folder, settings=""):
    """A node with a stream under way whose supervisor was killed, the stream, clients of it, and the next node."""
    more = {"SIDECAR_LISTEN": f"127.0.0.1:{free_port()}", "SIDECAR_DRAIN_SECONDS": "60"}
    async with node(folder, settings, **more) as running:
        await running.until(lambda status: status["ready"])
        stream = asyncio.get_running_loop().create_task(running.ask("/long"))
        await running.until(lambda status: status["children"][0]["stats"]["gauges"]["exchanges"] == 1)
        visitors = Visitors(running.where)
        await visitors.more(30)
        running.process.kill()
        # Not `wait`: that is until the orphans, too, have closed the standard output that they share.
        await until(lambda: running.process.returncode is not None, "the end of the supervisor")
        again = await start(folder, running.session, **more)
        try:
            yield running, stream, visitors, again
        finally:
            await again.kill()


@pytest.mark.redis
@pytest.mark.parametrize("store", ["redis", "memory"])
async def test_a_node_is_back_at_once_while_streams_of_its_killed_supervisor_end(tmp_path, make_redis, store):
    # Fails if the journal's lock of a worker that finishes keeps the new one from starting, or if that worker holds
    # the port. Before: not ready until the longest stream had ended.
    settings = f"redis: {{ url: '{make_redis().url}', timeout: 2s }}\n" if store == "redis" else ""
    async with killed_supervisor(tmp_path, settings) as (running, stream, visitors, again):
        await until_listening(again)
        refused = len(visitors.refused)
        await again.until(lambda status: status["ready"])
        assert not stream.done(), "it ends when we say so"
        await visitors.more(30)
        successor = (await again.tell("/status"))[1]["children"][0]["pid"]
        os.kill(successor, signal.SIGKILL)  # whoever comes after it uses its folder, and not yet another one
        await again.until(lambda status: status["children"][0]["restarts"] and status["ready"])
        await visitors.more(30)
        await visitors.stop()
        assert len(visitors.refused) == refused, "refused only until the new supervisor listened"
        assert visitors.failed <= 4, "those of the killed worker"
        assert {path.name for path in (tmp_path / "data" / "journal").glob("0*")} == {"0", "0.1"}
        running.release.set()
        assert (await stream)[0] == 200
        await until(running.process.stdout.at_eof, "the end of the orphans")
        assert await again.stop() == 0
    assert running.process._transport.is_closing(), "a transport that is left open is reported by a later test"
    served = [record for record in map(orjson.loads, running.records()) if record["type"] == "sidecar.usage.v1"]
    assert len({record["id"] for record in served}) == len(served)
    complete = sum(record["data"]["outcome"] == "ok" for record in served) - 1  # without the stream's
    # A worker that is killed has recorded some exchanges whose last bytes it has not sent yet.
    assert visitors.answered <= complete <= visitors.answered + visitors.failed


async def until_listening(again):
    """The supervisor listens from before its control listener says where it is."""
    line = await asyncio.wait_for(again.process.stdout.readline(), 20)
    again.control = line.decode().split()[-1]


def backlog(text):
    """Bytes and age, as a scrape shows them."""
    shown = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if line[:1] != "#"}
    return shown["sidecar_journal_backlog_bytes"], shown["sidecar_journal_oldest_seconds"]


async def test_the_backlog_is_shown_while_the_shipper_is_stopped_or_dead_and_shipped_by_a_stop_in_its_pause(tmp_path):
    # Fails if the backlog is what the living shipper says: 0 (V9). Fails if a stop leaves a shipper that waits for its
    # restart where it is: exit status 0, and nothing is shipped (V8).
    async with node(tmp_path) as running:
        await running.until(lambda status: status["ready"])
        shipper = (await running.tell("/status"))[1]["children"][1]["pid"]
        os.kill(shipper, signal.SIGSTOP)
        for _ in range(20):
            assert (await running.ask())[0] == 200
        waiting, age = backlog((await running.tell("/metrics"))[1])
        assert waiting > 20 * 500
        await asyncio.sleep(0.3)  # it grows older by so much
        assert backlog((await running.tell("/metrics"))[1])[1] >= age + 0.3
        for died in range(5):  # at once each, so that the pause is 2 s in the end
            status = await running.until(lambda status: status["children"][1]["pid"])
            os.kill(status["children"][1]["pid"], signal.SIGKILL)
            await running.until(lambda status, n=died: status["children"][1]["restarts"] > n)
        assert await running.stop() == 0
    assert sum(b"sidecar.usage.v1" in record for record in running.records()) == 20


async def test_a_stop_while_kafka_is_away_says_what_is_left_and_is_status_1(tmp_path):
    # Fails if the exit status says "drained" with records in the journal.
    away = "kafka: { bootstrap_servers: '127.0.0.1:1' }\n"
    async with node(tmp_path, away, SIDECAR_DRAIN_SECONDS="1") as running:
        for _ in range(3):
            assert (await running.ask())[0] == 200
        await asyncio.sleep(1.2)  # nothing ships meanwhile, and the oldest record grows older
        waiting, age = backlog((await running.tell("/metrics"))[1])
        assert waiting > 1_500
        assert 1 < age < 30
        assert await running.stop() == 1
        assert "of the journal are not shipped" in (tmp_path / "node.log").read_text()
