import json

import h11
import pytest

from sidecar.core.http import problem as problems
from sidecar.core.http.problem import Problem, phrase, problem_answer, problem_body, too_large

FIXED = [value for value in vars(problems).values() if isinstance(value, Problem)]


def read(raw, method=b"GET"):
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(raw)
    head = client.next_event()
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert client.trailing_data == (b"", False)
    return head, dict(head.headers), body


@pytest.mark.parametrize("problem", FIXED, ids=lambda problem: problem.slug)
def test_every_fixed_answer_is_a_whole_message_that_is_never_cached(problem):
    head, fields, body = read(problem_answer(problem, "01JD", close=False))
    assert head.status_code == problem.status
    assert fields[b"content-type"] == b"application/problem+json"
    assert fields[b"cache-control"] == b"no-store"
    assert fields[b"x-request-id"] == b"01JD"
    said = json.loads(body)
    assert said == {
        "type": f"urn:problem:sidecar:{problem.slug}",
        "title": phrase(problem.status).decode(),
        "status": problem.status,
        "detail": problem.detail,
        "instance": "urn:request:01JD",
    }


@pytest.mark.parametrize("problem", FIXED, ids=lambda problem: problem.slug)
def test_every_fixed_answer_that_asks_to_come_back_says_when_in_whole_seconds(problem):
    named = dict(problem.headers)
    assert (b"Retry-After" in named) == (problem.status == 503)
    assert named.get(b"Retry-After", b"1").isdigit()


def test_what_is_missing_is_told_with_the_scheme_that_mends_it():
    _, fields, _ = read(problem_answer(problems.NO_KEY, close=False))
    assert fields[b"www-authenticate"].startswith(b"Bearer ")


def test_the_answer_to_head_keeps_its_length_and_sends_no_body():
    whole = problem_answer(problems.NO_ROUTE, close=False)
    bare = problem_answer(problems.NO_ROUTE, close=False, bodyless=True)
    assert whole.startswith(bare)
    assert bare.endswith(b"\r\n\r\n")
    assert read(bare, b"HEAD")[1][b"content-length"] == b"%d" % (len(whole) - len(bare))


def test_a_last_answer_says_that_the_connection_closes():
    assert read(problem_answer(problems.NO_ROUTE, close=True))[1][b"connection"] == b"close"
    assert b"connection" not in read(problem_answer(problems.NO_ROUTE, close=False))[1]


def test_further_field_lines_are_carried():
    assert read(problem_answer(problems.NO_ROUTE, close=False, extra=b"RateLimit: x\r\n"))[1][b"ratelimit"] == b"x"


# unkey #7000
@pytest.mark.parametrize("slug", ["quota-exceeded", "temporary-reduced-capacity"])
def test_registered_types_are_named_by_their_registry(slug):
    assert json.loads(problem_body(Problem(429, slug, "x"), ""))["type"].startswith("https://iana.org/")


def test_further_members_are_told_and_an_unknown_request_has_no_instance():
    said = json.loads(problem_body(Problem(429, "x", "y", title="T", extra={"violated-policies": ["a"]}), ""))
    assert (said["title"], said["violated-policies"], "instance" in said) == ("T", ["a"], False)


def test_a_status_that_nobody_registered_has_no_phrase():
    assert (phrase(200), phrase(599)) == (b"OK", b"")


def test_what_is_too_large_is_told_with_the_bound_and_where_to_change_it():
    found = too_large(17)
    assert (found.status, "17" in found.detail, "max_body_bytes" in found.detail) == (413, True, True)
