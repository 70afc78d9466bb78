"""Clients that people use, as they come, through a whole node: every one of them holds the same conversation."""

from __future__ import annotations

import asyncio
import itertools
import json
import zlib

import pytest
import pytest_asyncio

from sidecar.core.identity import make_key
from tests.app.node import KEY
from tests.e2e.clients.adapters import CLIENTS
from tests.e2e.clients.origin import LARGE, STREAMED, TEXT, application
from tests.e2e.stage import WITH_KEY, program, served, sidecar, usage
from tests.servers.talk import until

# One node and one client for all that is said between them.
pytestmark = pytest.mark.asyncio(loop_scope="module")
POLICY = """\
plans:
  free:
    limits:
      - { id: slow, rate: 1/s, burst: 1, scope: key, routes: [limited] }
routes:
  - { id: limited, match: { path: /limited } }
  - { id: rest, match: { path: /** } }
"""
JSON = {"Content-Type": "application/json"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory):
    async with served(application()) as url, sidecar(tmp_path_factory.mktemp("node"), url, policy=POLICY) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=CLIENTS)
async def client(request):
    async with CLIENTS[request.param]() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def ask(node, client):
    async def one(method, path, body=None, *, fields=None, chunked=False):
        given = WITH_KEY | (fields or {})
        return await asyncio.wait_for(client.ask(method, node.where + path, given, body, chunked=chunked), 30)

    return one


NONCES = itertools.count(1)


def fresh(path):
    """A path that no other test asks for, so that its records can be told apart."""
    return f"{path}/{next(NONCES)}"


async def recorded(node, path, count=1):
    """The records of the requests to this path."""
    return await until(
        lambda: len(found := [one for one in usage(node) if one["path"] == path]) >= count and found, path
    )


async def test_get_and_json_both_ways(ask):
    answer = await ask("GET", "/echo?a=1&b=c%20d")
    told = json.loads(answer.body)
    assert (answer.status, told["method"], told["query"]) == (200, "GET", "a=1&b=c%20d")
    body = json.dumps({"name": "größer", "list": [1, 2, 3]}).encode()
    answer = await ask("POST", "/echo", body, fields=JSON)
    told = json.loads(answer.body)
    assert (told["method"], told["crc32"], told["fields"]["content-type"]) == (
        "POST", zlib.crc32(body), "application/json",
    )  # fmt: skip


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_other_methods(ask, method):
    body = b"abc" if method in ("PUT", "PATCH") else None
    answer = await ask(method, "/echo", body)
    told = json.loads(answer.body)
    assert (answer.status, told["method"], told["bytes"]) == (200, method, len(body or b""))


async def test_head_has_a_length_and_no_body(ask):
    answer = await ask("HEAD", "/large")
    assert (answer.status, answer.fields["content-length"], answer.body) == (200, str(len(LARGE)), b"")


async def test_204_has_neither(ask):
    answer = await ask("GET", "/empty")
    assert (answer.status, answer.body) == (204, b"")
    assert {"content-length", "transfer-encoding"}.isdisjoint(answer.fields)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_the_clients_to_follow(ask, status):
    answer = await ask("GET", f"/redirect/{status}")
    assert (answer.status, json.loads(answer.body)["method"]) == (200, "GET")


async def test_what_is_compressed_stays_so_until_the_client(ask, node):
    path = fresh("/compressed")
    answer = await ask("GET", path, fields={"Accept-Encoding": "gzip"})
    assert answer.body.decode() == TEXT
    (record,) = await recorded(node, path)
    assert record["bytes_out"] < len(TEXT) // 10


async def test_large_and_streamed_answers_arrive_whole(ask):
    assert (await ask("GET", "/large")).body == LARGE
    assert (await ask("GET", "/streamed")).body == b"".join(STREAMED)


@pytest.mark.parametrize("chunked", [False, True])
async def test_large_bodies_arrive_whole(ask, node, client, chunked):
    if chunked and "1.0" in str(getattr(client, "extra", "")):
        chunked = False  # HTTP/1.0 has no chunks
    path = fresh("/echo")
    answer = await ask("POST", path, LARGE, fields={"Content-Type": "application/octet-stream"}, chunked=chunked)
    told = json.loads(answer.body)
    assert (answer.status, told["bytes"], told["crc32"]) == (200, len(LARGE), zlib.crc32(LARGE))
    assert ("content-length" not in told["fields"]) == chunked
    (record,) = await recorded(node, path)
    assert record["bytes_in"] == len(LARGE)


async def test_an_upstreams_error_is_readable(ask):
    answer = await ask("POST", "/failed", b"{}", fields=JSON)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (500, "E42")


# Fails if a 401 is lost to a reset: the body that nobody asked for is still on its way.
@pytest.mark.parametrize("body", [None, b"small", LARGE], ids=["none", "small", "large"])
async def test_a_401_is_a_readable_problem(node, client, body):
    wrong = make_key(b"another20bytes_key!!")
    method = "GET" if body is None else "POST"
    answer = await client.ask(method, node.where + "/echo", {"X-Api-Key": wrong}, body)
    problem = json.loads(answer.body)
    assert (answer.status, problem["status"]) == (401, 401)
    assert answer.fields["content-type"] == "application/problem+json"
    assert answer.fields["cache-control"] == "no-store"
    assert wrong not in json.dumps(problem)
    assert "www-authenticate" in answer.fields


async def test_a_429_says_when_and_then_is_as_good_as_its_word(ask):
    answers = [await ask("POST", "/limited", b"{}") for _ in range(2)]
    while answers[-1].status != 429:  # a slow client has got its unit back by now
        answers.append(await ask("POST", "/limited", b"{}"))
        assert len(answers) < 20
    refused = answers[-1]
    problem = json.loads(refused.body)
    assert refused.fields["content-type"] == "application/problem+json"
    assert problem["violated-policies"] == ["slow"]
    assert "slow" in refused.fields["ratelimit"]
    await asyncio.sleep(int(refused.fields["retry-after"]))
    assert (await ask("POST", "/limited", b"{}")).status == 200


async def test_many_requests_one_after_the_other(ask, node):
    path = fresh("/echo")
    for number in range(30):
        body = b"%d" % number
        assert json.loads((await ask("POST", path, body)).body)["crc32"] == zlib.crc32(body)
    assert [record["bytes_in"] for record in await recorded(node, path, 30)] == [1] * 10 + [2] * 20


# Fails if a client that goes away in mid-stream leaves no record, or leaves the upstream at work.
async def test_a_client_that_leaves_in_mid_stream_leaves_its_record(node, client):
    path = fresh("/endless")
    await client.abandon(node.where + path, WITH_KEY, 40_000)
    (record,) = await recorded(node, path)
    assert (record["outcome"], record["client_disconnected"], record["status"]) == ("client_gone", True, 200)
    assert record["bytes_out"] >= 10_000
    assert record["billable"]


async def test_a_program_that_is_missing_fails_in_ci_and_is_skipped_loudly_elsewhere(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="curl is not on the PATH"):
        program("curl")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="NO CURL ON THE PATH"):
        program("curl")


# curl alone, for what only it can be asked to do.


@pytest_asyncio.fixture(loop_scope="module")
async def curl():
    async with CLIENTS["curl"]() as made:
        yield made


# Fails if the sidecar leaves the 100 to the upstream, or passes Expect on.
async def test_curl_waits_for_100_continue_and_gets_it_at_once(node, curl, tmp_path):
    (tmp_path / "large").write_bytes(LARGE[:2_000_000])
    words = ("--verbose", "--expect100-timeout", "20", "--data-binary", f"@{tmp_path / 'large'}")
    status, out, err = await curl.run(*words, "-H", f"X-Api-Key: {KEY}", "-w", "\n%{time_total}", node.where + "/echo")
    told, took = out.decode().rsplit("\n", 1)
    assert status == 0
    assert "> Expect: 100-continue" in err
    assert "< HTTP/1.1 100 Continue" in err
    assert json.loads(told)["bytes"] == 2_000_000
    assert "expect" not in json.loads(told)["fields"]
    assert float(took) < 10


# Fails if the body is asked for before the caller is known.
async def test_curl_sends_no_body_to_a_refusal(node, curl, tmp_path):
    (tmp_path / "large").write_bytes(LARGE[:2_000_000])
    words = ("--verbose", "--expect100-timeout", "20", "--data-binary", f"@{tmp_path / 'large'}")
    status, out, err = await curl.run(*words, "-w", "\n%{size_upload} %{http_code}", node.where + "/echo")
    assert status == 0, err
    assert out.decode().rsplit("\n", 1)[1] == "0 401"


async def test_curl_keeps_its_connection_through_every_kind_of_answer(node, curl):
    urls = [node.where + path for path in ("/echo", "/empty", "/large", "/streamed", "/failed")]
    words = [word for url in urls for word in ("-o", "/dev/null", url)]
    status, out, err = await curl.run("-H", f"X-Api-Key: {KEY}", "-w", "%{num_connects} ", *words)
    assert (status, out) == (0, b"1 0 0 0 0 "), err


# Fails if an answer without a length leaves the connection of an HTTP/1.0 client open: it would wait for ever.
async def test_curl_of_http_1_0_keeps_its_connection_where_the_length_is_known(node, curl):
    words = ("--http1.0", "-H", f"X-Api-Key: {KEY}", "-H", "Connection: keep-alive", "-w", "%{num_connects} ")
    urls = [node.where + path for path in ("/large", "/large", "/streamed", "/large")]
    status, out, err = await curl.run(*words, *[word for url in urls for word in ("-o", "/dev/null", url)])
    assert (status, out) == (0, b"1 0 0 1 "), err
