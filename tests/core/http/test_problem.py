import json

import pytest

from sidecar.core.errors import UpstreamError, UpstreamReason
from sidecar.core.http import problem as problems
from sidecar.core.http.problem import Problem, phrase, problem_body, too_large, too_long_to_read, upstream_problem

FIXED = [value for value in vars(problems).values() if isinstance(value, Problem)]


@pytest.mark.parametrize("problem", FIXED, ids=lambda problem: problem.slug)
def test_every_fixed_problem_says_what_it_is_and_of_which_request(problem):
    assert json.loads(problem_body(problem, "01JD")) == {
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


def test_a_key_that_is_missing_is_answered_with_the_scheme_that_mends_it():
    problem = problems.no_key(("in the header A", "in the query's parameter b"))
    assert dict(problem.headers)[b"WWW-Authenticate"].startswith(b"Bearer ")
    # Fails if only the first place is named.
    assert problem.detail == "this API needs a key: send it in the header A or in the query's parameter b"


# unkey #7000
@pytest.mark.parametrize("slug", ["quota-exceeded", "temporary-reduced-capacity"])
def test_registered_types_are_named_by_their_registry(slug):
    assert json.loads(problem_body(Problem(429, slug, "x"), ""))["type"].startswith("https://iana.org/")


def test_further_members_are_told_and_an_unknown_request_has_no_instance():
    said = json.loads(problem_body(Problem(429, "x", "y", title="T", extra={"violated-policies": ["a"]}), ""))
    assert (said["title"], said["violated-policies"], "instance" in said) == ("T", ["a"], False)


def test_a_status_that_nobody_registered_has_no_phrase():
    assert (phrase(200), phrase(599)) == (b"OK", b"")


def test_what_is_too_large_is_told_with_the_bound_alone():
    assert (too_large(17).status, too_large(17).detail) == (413, "the body is longer than 17 bytes")
    # Fails if an answer to a client names a setting, which it neither writes nor can change.
    problems = (too_large(17), too_long_to_read(17), *FIXED)
    assert not any("`" in found.detail for found in problems)


# Fails if a 429 or 503 for want of a connection has no Retry-After (mutation: `retry_after_s` of SHARE is 0).
@pytest.mark.parametrize("reason", UpstreamReason)
def test_where_this_node_had_no_connection_for_a_request_it_may_come_again_in_a_second(reason):
    problem = upstream_problem(UpstreamError(reason, "why"))
    assert (problem.status, problem.slug, problem.detail) == (reason.status, reason.slug, "why")
    assert problem.headers == (((b"Retry-After", b"1"),) if reason.status in {429, 503} else ())
