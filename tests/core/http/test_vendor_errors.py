"""Mirrors sidecar/core/http/vendor_errors.py."""

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import errors, types

from sidecar.core.http.problem import BAD_KEY, NO_PLAN, Problem, no_key, problem_body
from sidecar.core.http.vendor_errors import with_vendor_error
from sidecar.edge.http1.heads import problem_answer

NO_KEY = no_key(("in the header X-Api-Key",))
TOP_UP = Problem(402, "balance-exhausted", "the balance is used up", extra={"link": "https://pay.example"})


def limited(wait_s):
    return Problem(429, "quota-exceeded", "limit monthly is used up", headers=((b"Retry-After", b"%d" % wait_s),))


def answering(problem, vendor):
    """A transport that answers with the problem, and the list of the requests that came."""
    answer = with_vendor_error(problem, vendor)
    requests = []

    def respond(request):
        requests.append(request)
        fields = [(name.decode(), value.decode()) for name, value in answer.headers]
        return httpx2.Response(answer.status, headers=fields, content=problem_body(answer, "01JD"))

    return httpx2.MockTransport(respond), requests


def raised(library, problem, vendor):
    """The exception of a client of the library when it gets a problem, and how often it asked."""
    transport, requests = answering(problem, vendor)
    with httpx2.Client(transport=transport) as http:
        client = library(api_key="k", base_url="http://h", http_client=http, max_retries=2)
        with pytest.raises(Exception, match=problem.detail) as caught:
            client.post("/a", cast_to=object)
    return caught.value, len(requests)


# Fails if `x-should-retry` is left out: Anthropic's client then sleeps for the rest of the month.
@pytest.mark.parametrize(
    ("library", "vendor"), [(openai.OpenAI, "openai"), (openai.OpenAI, "auto"), (anthropic.Anthropic, "anthropic")]
)
@pytest.mark.parametrize("problem", [NO_KEY, BAD_KEY, NO_PLAN, TOP_UP, limited(99_522)])
def test_the_libraries_show_the_reason_at_once(library, vendor, problem):
    error, asked = raised(library, problem, vendor)
    assert (error.status_code, asked) == (problem.status, 1)


def test_the_libraries_show_where_to_top_up():
    error, _ = raised(openai.OpenAI, TOP_UP, "openai")
    assert str(error) == "Error code: 402 - the balance is used up; see https://pay.example"
    assert (error.code, error.type) == ("balance-exhausted", "insufficient_quota")


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        (NO_KEY, "UNAUTHENTICATED"),
        (BAD_KEY, "UNAUTHENTICATED"),
        (NO_PLAN, "PERMISSION_DENIED"),
        (TOP_UP, "FAILED_PRECONDITION"),
        (limited(5), "RESOURCE_EXHAUSTED"),
        (limited(99_522), "RESOURCE_EXHAUSTED"),
    ],
)
def test_googles_library_shows_the_reason_at_once(problem, name):  # Fails if `message` of `error` is left out.
    transport, requests = answering(problem, "gemini")
    options = types.HttpOptions(base_url="http://h", client_args={"transport": transport})
    with genai.Client(api_key="k", http_options=options) as client, pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model="gemini-2.5-pro", contents="Hello")
    error = caught.value
    assert (error.code, error.details["error"]["code"], len(requests)) == (problem.status, problem.status, 1)
    assert error.message.startswith(problem.detail)
    assert error.details["error"]["status"] == name


@pytest.mark.parametrize(("wait_s", "told"), [(1, False), (60, False), (61, True)])
def test_a_wait_of_a_minute_is_left_to_the_library(wait_s, told):
    assert ((b"x-should-retry", b"false") in with_vendor_error(limited(wait_s), "openai").headers) == told


@pytest.mark.parametrize("vendor", ["openai", "anthropic", "gemini", "auto"])
def test_the_members_of_the_problem_stay(vendor):
    answer = problem_answer(with_vendor_error(TOP_UP, vendor), close=True)
    assert b'"type":"urn:problem:sidecar:balance-exhausted"' in answer
    assert b'"link":"https://pay.example"' in answer


# Fails if 402 is left out: a library of another language may try again.
@pytest.mark.parametrize(
    ("problem", "told"), [(NO_KEY, True), (NO_PLAN, True), (TOP_UP, True), (Problem(503, "x", "y"), False)]
)
def test_what_no_wait_can_change_is_not_tried_again(problem, told):
    assert ((b"x-should-retry", b"false") in with_vendor_error(problem, "gemini").headers) == told
