"""Mirrors sidecar/gateway/refusals.py."""

import logging

import pytest

from sidecar.core.errors import UpstreamError, UpstreamReason
from sidecar.core.http.cors import Cors
from sidecar.core.http.problem import Problem, too_large
from sidecar.core.identity import Identity
from sidecar.gateway.refusals import CALLERS_MAX, LINE_EVERY_US
from tests.gateway.scene import Scene
from tests.stage import quota

PAGE = "https://app.example"


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "sidecar.refusals")
    return lambda: [record for record in caplog.records if record.name == "sidecar.refusals"]


# Fails if a refusal is not counted, or its line holds the key.
def test_a_wrong_key_is_counted_and_logged_without_it(lines):
    scene = Scene()
    scene.ask(key="nobody-knows-this", target=b"/a?x=nobody-knows-this")
    assert scene.tally.counts["refused|key-unknown"] == 1
    (line,) = lines()
    assert line.fields == {"reason": "key-unknown", "status": 401, "method": "GET", "route": "api", "unlogged": 0}
    assert line.request == scene.exchange.id.decode()
    assert "nobody" not in str(vars(line))


def test_each_reason_has_its_own_count(lines):
    scene = Scene()
    scene.ask(key="")
    scene.ask(key="nobody-knows-this")
    assert scene.tally.counts["refused|key-missing"] == scene.tally.counts["refused|key-unknown"] == 1
    assert [line.fields["reason"] for line in lines()] == ["key-missing", "key-unknown"]


def test_the_caller_is_named_where_it_is_known(lines):
    scene = Scene()
    scene.journal.full = True
    scene.ask()
    assert lines()[0].levelno == logging.WARNING
    assert lines()[0].fields["reason"] == "journal-full"
    assert {"customer", "key", "plan"} <= lines()[0].fields.keys()


# Fails if a flood writes a line for each request.
def test_a_flood_has_one_line_in_ten_seconds_and_the_number_of_the_others(lines):
    scene = Scene()
    for _ in range(1_000):
        scene.context.refusals.head(too_large(1))
    scene.context.refusals.head(Problem(400, "bad-head", "x"))
    assert [line.fields["reason"] for line in lines()] == ["body-too-large", "bad-head"]
    scene.clock.turn(LINE_EVERY_US)
    scene.context.refusals.head(too_large(1))
    assert lines()[-1].fields["unlogged"] == 999
    assert scene.tally.counts["refused|body-too-large"] == 1_001


# Fails if one customer's refusals take the line of another's: "why was acme refused at 14:03?" had no answer.
def test_each_customer_has_lines_of_its_own_within_a_bound(lines):
    scene = Scene()
    scene.journal.full = True

    def ask(customer: str):
        scene.keys.register(customer, Identity(f"k_{customer}", "app", customer, "free"))
        before = len(lines())
        scene.ask(key=customer)
        return [(line.fields["customer"], line.fields["unlogged"]) for line in lines()[before:]]

    assert [ask("acme"), ask("acme"), ask("beta")] == [[("acme", 0)], [], [("beta", 0)]]
    others = [ask(f"c{number}") for number in range(2 * CALLERS_MAX)]
    assert len([each for each in others if each]) == CALLERS_MAX - 2 + 1  # and one that the rest share
    scene.clock.turn(LINE_EVERY_US)
    assert ask("acme") == [("acme", 1)]
    assert ask("new") == [("new", 0)]


def test_a_denial_by_a_limit_is_counted_and_has_its_record_in_place_of_a_line(lines):
    scene = Scene(quota(1))
    scene.ask()
    scene.ask()
    assert scene.exchange.status == 429
    assert scene.tally.counts["refused|quota-exceeded"] == 1
    assert len(scene.journal.of("denials")) == 1
    assert lines() == []


# emissary-ingress #2030, openlibrary #11140. Fails if a refusal leaves out what the browser needs to show it.
@pytest.mark.parametrize(("key", "status"), [("", 401), ("nobody-knows-this", 401), ("ann", 429)])
def test_a_page_of_an_allowed_origin_can_read_a_refusal(key, status):
    scene = Scene(quota(1), cors=Cors(frozenset({PAGE})))
    scene.ask()
    scene.ask(f"Origin: {PAGE}", key=key)
    fields = dict(scene.client.fields)
    assert scene.client.status == status
    assert (fields[b"Access-Control-Allow-Origin"], fields[b"Vary"]) == (PAGE.encode(), b"Origin")
    assert b"Retry-After" in fields[b"Access-Control-Expose-Headers"]
    assert (b"Retry-After" in fields) == (b"RateLimit" in fields) == (status == 429)


def test_a_page_of_another_origin_cannot():
    scene = Scene(cors=Cors(frozenset({PAGE})))
    scene.ask("Origin: https://evil.example", key="")
    assert b"Access-Control-Allow-Origin" not in dict(scene.client.fields)
    scene = Scene()
    scene.ask(f"Origin: {PAGE}", key="")
    assert b"Access-Control-Allow-Origin" not in dict(scene.client.fields)


# Fails if what upstreams allow is not learned, or is taken from a request that was made before it was known.
@pytest.mark.parametrize("allowed", [PAGE.encode(), b"*"])
def test_a_refusal_on_a_route_without_cors_may_be_read_by_the_page_that_the_upstream_lets_read(allowed):
    scene = Scene(quota(1))
    scene.ask(f"Origin: {PAGE}")
    scene.call.connect().respond(200, b"", (b"Access-Control-Allow-Origin", allowed))
    scene.ask(f"Origin: {PAGE}")
    fields = dict(scene.client.fields)
    assert (scene.client.status, fields[b"Access-Control-Allow-Origin"]) == (429, allowed)
    assert b"Retry-After" in fields[b"Access-Control-Expose-Headers"]
    for other in ("https://evil.example", ""):
        scene.ask(f"Origin: {other}")
        told = b"*" if allowed == b"*" and other else None
        assert dict(scene.client.fields).get(b"Access-Control-Allow-Origin") == told


def test_a_page_can_read_that_the_upstream_failed():
    scene = Scene(cors=Cors(frozenset({PAGE})))
    scene.ask(f"Origin: {PAGE}")
    scene.call.fail(UpstreamError(UpstreamReason.REFUSED, "x"))
    assert scene.client.status >= 500
    assert dict(scene.client.fields)[b"Access-Control-Allow-Origin"] == PAGE.encode()


def test_a_page_can_read_an_answer_of_an_upstream_without_cors_of_its_own():
    scene = Scene(quota(9), cors=Cors(frozenset({PAGE})))
    scene.ask(f"Origin: {PAGE}")
    scene.call.connect().respond()
    fields = dict(scene.client.fields)
    assert fields[b"Access-Control-Allow-Origin"] == PAGE.encode()
    assert b"RateLimit" in fields
    scene.ask(f"Origin: {PAGE}")
    scene.call.connect().respond(200, b"", (b"Access-Control-Allow-Origin", b"*"))
    assert [value for name, value in scene.client.fields if name == b"Access-Control-Allow-Origin"] == [b"*"]


def test_a_preflight_is_counted_and_has_no_line(lines):
    scene = Scene(cors=Cors(frozenset({PAGE})))
    scene.ask(f"Origin: {PAGE}", "Access-Control-Request-Method: GET", key="", method="OPTIONS")
    assert scene.tally.counts["refused|preflight"] == 1
    assert lines() == []


# Fails if a refusal on an AI route has the members of a problem alone.
def test_a_refusal_on_an_ai_route_has_the_error_of_its_vendor():
    scene = Scene(usage="openai")
    scene.ask(key="")
    assert (scene.members["error"]["code"], scene.members["status"]) == ("key-missing", 401)
    assert (b"x-should-retry", b"false") in scene.client.fields
    scene = Scene()
    scene.ask(key="")
    assert "error" not in scene.members
    assert b"x-should-retry" not in dict(scene.client.fields)
