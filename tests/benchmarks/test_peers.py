"""The peers do the work that is said of them: what holds no keys or no limits is found out, and streams are streams."""

import shutil

import pytest

from benchmarks.measure import Shape, measure
from benchmarks.peers import PEERS
from benchmarks.peers.form import Started, prove_limits
from benchmarks.stage import LOAD_CORE, RunFailed, Stage, get
from benchmarks.streams import CHUNKS, STREAM
from benchmarks.upstreams import CHAT_PATH, chunks_sent, open_streams, requests_seen, start_streams, start_upstream

BY_NAME = {peer.name: peer for peer in PEERS}
needs_tools = pytest.mark.skipif(
    not (shutil.which("nginx") and shutil.which("wrk") and shutil.which("taskset")), reason="needs nginx, wrk, taskset"
)


@pytest.fixture
def stage():
    with Stage() as stage:
        yield stage


def start(stage: Stage, name: str) -> Started:
    return BY_NAME[name].start(stage, start_upstream(stage, 16, LOAD_CORE))


@needs_tools
def test_a_form_that_knows_no_keys_is_found_out(stage) -> None:
    # Fails if only what is let through is looked at.
    with pytest.raises(RunFailed, match="not registered was answered 200"):
        prove_limits(start(stage, "nginx").port)


@needs_tools
def test_a_form_that_holds_no_limits_is_found_out(stage, monkeypatch) -> None:
    # Mutation: the key with small limits is not asked to the end of them.
    monkeypatch.setattr("benchmarks.peers.nginx.HOLD", 'if ($known = "") { return 401; }')
    with pytest.raises(RunFailed, match="small limits was answered"):
        prove_limits(start(stage, "nginx-limits").port)


@needs_tools
def test_nginx_with_its_own_limiter_is_measured_and_holds_its_limits() -> None:
    sample = measure(BY_NAME["nginx-limits"], Shape(rounds=1, seconds=1, warmup=0))
    assert sample.requests > 0


@needs_tools
def test_the_upstream_that_streams_sends_every_chunk_and_counts_them(stage) -> None:
    port = start_streams(stage, LOAD_CORE)
    status, body = get(port, CHAT_PATH, body="{}")
    assert status == 200
    assert body.count(b"data: ") == CHUNKS == len(STREAM)
    # Fails if what asks for the status counts as a stream, or a stream that is over stays on the wheel.
    assert (chunks_sent(port), requests_seen(port), open_streams(port)) == (CHUNKS, 1, 0)


@needs_tools
@pytest.mark.parametrize("size", [0, 1024, 5000, 1 << 20])
def test_the_upstream_answers_with_as_many_bytes_as_were_asked_for(stage, size) -> None:
    # Fails if what does not fit nginx's configuration is cut.
    assert len(get(start_upstream(stage, size, LOAD_CORE))[1]) == size


def test_names_of_forms_are_their_own_and_units_are_forms() -> None:
    assert len(BY_NAME) == len(PEERS)
    assert {peer.unit for peer in PEERS} <= set(BY_NAME)
