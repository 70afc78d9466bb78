"""Mirrors sidecar/core/http/vendor_errors.py."""

import anthropic
import httpx2
import openai
import pytest

from sidecar.core.http.problem import BAD_KEY, NO_KEY, NO_PLAN, Problem, problem_body
from sidecar.core.http.vendor_errors import with_vendor_error
from sidecar.edge.http1.heads import problem_answer

TOP_UP = Problem(402, "balance-exhausted", "the balance is used up", extra={"link": "https://pay.example"})


def limited(wait_s):
    return Problem(429, "quota-exceeded", "limit monthly is used up", headers=((b"Retry-After", b"%d" % wait_s),))


def raised(library, problem, vendor):
    """The exception of a client of the library when it gets a problem, and how often it asked."""
    answered = with_vendor_error(problem, vendor)
    asked = []

    def answer(request):
        asked.append(request)
        fields = [(name.decode(), value.decode()) for name, value in answered.headers]
        return httpx2.Response(answered.status, headers=fields, content=problem_body(answered, "01JD"))

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http:
        client = library(api_key="k", base_url="http://h", http_client=http, max_retries=2)
        with pytest.raises(Exception, match=problem.detail) as caught:
            client.post("/a", cast_to=object)
    return caught.value, len(asked)


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


# As google-genai 3.6 reads it: the library is not among the tests' dependencies.
def test_gemini_has_code_message_and_status():
    assert with_vendor_error(limited(5), "gemini").extra["error"] == {
        "code": 429,
        "message": "limit monthly is used up",
        "status": "RESOURCE_EXHAUSTED",
    }


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
