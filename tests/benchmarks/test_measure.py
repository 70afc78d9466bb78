"""The harness measures: a short run over nginx alone, and what makes a run worthless."""

import shutil
import subprocess
import sys
import time

import pytest

from benchmarks import load, openloop
from benchmarks.latency import quantile
from benchmarks.measure import Results, Sample, Shape, measure, measure_all
from benchmarks.peers import PEERS, Peer, Started, start_upstream
from benchmarks.stage import LOAD_CORE, RunFailed, Stage, cpu_us, free_port, get, tree

NGINX = PEERS[0]
SHORT = Shape(rounds=1, seconds=1, warmup=0)
needs_tools = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("wrk") and shutil.which("taskset")), reason="needs nginx, wrk, taskset"
)


ANSWERING = """
daemon off; worker_processes 1; pid {dir}/answering.pid; error_log stderr error; events {{}}
http {{ access_log off; server {{ listen 127.0.0.1:{port}; location / {{ return {status} "x"; }} }} }}
"""


@needs_tools
def test_one_round_over_nginx_measures_between_one_and_a_thousand_us_a_request_and_nginx_is_its_own_unit() -> None:
    results = measure_all([NGINX], SHORT, lambda _: None)
    assert results.left_out == {}
    # Fails if ticks are not turned into µs, or only the master (which serves nothing) is counted.
    assert 1_000 < results.cpu_ns("nginx")[0] < 1_000_000
    assert results.ratios("nginx") == [1.0]


@needs_tools
def test_an_answer_that_is_no_2xx_fails_the_run() -> None:
    def start(stage: Stage, _upstream: int) -> Started:
        port = free_port()
        config = stage.write("refuse.conf", ANSWERING.format(port=port, dir=stage.dir, status=429))
        pid = stage.start("refuse", ["nginx", "-e", "stderr", "-p", str(stage.dir), "-c", str(config)], 0)
        stage.until("it to refuse", lambda: get(port)[0] == 429)
        return Started(port, lambda: {"proxy": tree(pid)})

    refusing = Peer("refusing", "refuses", lambda: "", lambda: "", start)
    # Fails if wrk's status errors are not read: a proxy that refuses is the fastest of all.
    with pytest.raises(RunFailed, match="had no 2xx"):
        measure(refusing, SHORT)


@needs_tools
def test_a_proxy_that_answers_without_its_upstream_fails_the_run() -> None:
    def start(stage: Stage, _upstream: int) -> Started:
        port = free_port()
        config = stage.write("cheat.conf", ANSWERING.format(port=port, dir=stage.dir, status=200))
        pid = stage.start("cheat", ["nginx", "-e", "stderr", "-p", str(stage.dir), "-c", str(config)], 0)
        stage.until_answers("cheat", port)
        return Started(port, lambda: {"proxy": tree(pid)})

    cheat = Peer("cheat", "answers by itself", lambda: "", lambda: "", start)
    # Fails if the upstream's own count is not compared.
    with pytest.raises(RunFailed, match="the upstream saw"):
        measure(cheat, SHORT)


@needs_tools
@pytest.mark.parametrize(
    ("parts", "why"),
    [
        # Fails if the pids are not asked for again: a worker that was started anew would look cheap.
        (lambda real: {"proxy": [*real["proxy"], time.monotonic_ns()]}, "came or went"),
        # Fails if an idle part passes: a shipper that is down would look free.
        (lambda real: {**real, "shipper": [1 << 30]}, "shipper: no CPU"),
    ],
)
def test_a_process_that_went_and_a_part_that_was_idle_fail_the_run(parts, why) -> None:
    def start(stage: Stage, upstream: int) -> Started:
        real = NGINX.start(stage, upstream)
        return Started(real.port, lambda: parts(real.parts()))

    with pytest.raises(RunFailed, match=why):
        measure(Peer("x", "x", lambda: "", lambda: "", start), SHORT)


@needs_tools
def test_leaving_the_stage_ends_every_process_and_removes_the_folder() -> None:
    with Stage() as stage:
        port = start_upstream(stage, 120, LOAD_CORE)
        folder = stage.dir
    # Fails if only the first process is signalled, or none.
    assert get(port)[0] == 0
    assert not folder.exists()


def test_a_peer_that_is_not_here_is_named_and_left_out() -> None:
    absent = Peer("absent", "absent", lambda: "not on this machine: apt-get install absent", lambda: "", _never)
    assert measure_all([absent], SHORT, lambda _: None).left_out == {
        "absent": "not on this machine: apt-get install absent"
    }


def _never(_stage: Stage, _upstream: int) -> Started:
    raise AssertionError("a missing peer was started")


def test_the_time_of_a_child_that_was_reaped_is_counted() -> None:
    burn = "import time\nend = time.process_time() + .2\nwhile time.process_time() < end: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        # Fails if cutime and cstime are left out.
        assert cpu_us(tree(process.pid)) >= 200_000
        process.communicate(b"\n")


def test_a_ratio_is_taken_within_its_round() -> None:
    def took(us: int) -> Sample:
        return Sample(requests=1, duration_us=1, cpu_us={"proxy": us}, facts={})

    results = Results(Shape(), {"nginx": "nginx", "x": "x"})
    results.samples = {"nginx": {0: took(10), 1: took(20)}, "x": {0: took(30), 1: took(40)}}
    assert results.ratios("x") == [3.0, 2.0]


@pytest.mark.parametrize(("share", "value"), [(5000, 500), (9900, 990), (9990, 999), (10000, 1000)])
def test_a_quantile_is_the_smallest_value_that_the_share_does_not_exceed(share: int, value: int) -> None:
    assert quantile(range(1, 1001), share) == value


def test_the_open_loop_counts_a_stall_against_every_request_that_it_delayed() -> None:
    stall = "import time; time.sleep(.2)"
    server = f"""
import socket
listening = socket.create_server(("127.0.0.1", 0)); print(listening.getsockname()[1], flush=True)
peer, _ = listening.accept()
for n in range(100):
    peer.recv(4096)
    if n == 0: {stall}
    peer.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
"""
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        caller = openloop.Caller(int(process.stdout.readline()))
        found = openloop.run(openloop.REQUEST % b"k", [caller], 100, 1)
        caller.sock.close()
    # Fails if a latency counts from when the request was sent: then one of a hundred is slow.
    assert sum(ns > 50_000_000 for ns in found) >= 10


def test_the_open_loop_can_count_failures_and_go_on() -> None:
    server = """
import socket
listening = socket.create_server(("127.0.0.1", 0)); print(listening.getsockname()[1], flush=True)
peer, _ = listening.accept()
for n in range(20):
    peer.recv(4096)
    if n == 5:
        peer.close(); peer, _ = listening.accept()
    else:
        peer.send(b"HTTP/1.1 %d OK\\r\\nContent-Length: 0\\r\\n\\r\\n" % (503 if n == 3 else 200))
        if n == 3:
            peer, _ = listening.accept()
"""
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        idle = [openloop.Caller(int(process.stdout.readline()))]
        failures: list[str] = ["one of the warm-up"]
        answered = openloop.run(openloop.REQUEST % b"k", idle, 20, 1, failures)
        idle[0].sock.close()
    # Fails if a failure ends the run, or if the connection is not replaced: then each later request fails.
    assert len(answered) == 18
    assert failures[1:] == ["answered b'HTTP/1.1 503 OK'", "the connection was closed in the middle of the run"]


@needs_tools
def test_the_load_stops_when_its_time_is_up() -> None:
    with Stage() as stage:
        port = start_upstream(stage, 120, LOAD_CORE)
        begun = time.monotonic()
        served = load.wrk(stage, port, 1)
    assert served.requests > 0
    assert time.monotonic() - begun < 10
