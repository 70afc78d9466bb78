import pytest

from sidecar.core.usage.ai.estimate import NOTHING, completed, estimates, tokens
from tests.core.usage.ai.answers import ai_request


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_four_bytes_are_a_token_and_a_begun_one_is_one(size, count):
    assert tokens(size) == count


# Mutation: `max_output or default_output`.
@pytest.mark.parametrize(("most", "output"), [(None, 1024), (100, 100), (0, 0), (10**6, 4096)])
def test_what_is_reserved_is_what_the_request_allows_up_to_a_ceiling(most, output):
    assert estimates(ai_request(max_output=most, input_bytes=41), default_output=1024, ceiling=4096) == {
        "input_uncached": 11,
        "output": output,
        "input": 11,
        "output_total": output,
    }


def test_the_default_is_under_the_ceiling_as_well():
    assert estimates(ai_request(), default_output=1024, ceiling=100)["output"] == 100


def test_what_is_missing_is_estimated_side_by_side():
    assert completed({"input_uncached": 7}, ai_request(), text_bytes=9, final=True) == (
        {"input_uncached": 7, "output": 3, "input": 7, "output_total": 3},
        "estimated",
    )
    assert completed({"output": 7}, ai_request(input_bytes=9), text_bytes=9, final=True) == (
        {"input_uncached": 3, "output": 7, "input": 3, "output_total": 7},
        "estimated",
    )


def test_an_estimate_is_never_more_than_the_request_allows():
    assert completed({}, ai_request(max_output=2), text_bytes=400, final=False)[0]["output"] == 2


def test_a_final_figure_is_not_raised():
    assert (
        completed({"input_uncached": 7, "output": 0}, ai_request(), text_bytes=400, final=True)[1]
        == "provider_reported"
    )
    assert completed(NOTHING, ai_request(), text_bytes=400, final=True)[0]["output_total"] == 0


def test_an_early_figure_is_raised_to_what_was_said_since_with_all_its_kinds():
    early = {"input_uncached": 7, "output": 1, "reasoning": 4}
    assert completed(early, ai_request(), text_bytes=40, final=False) == (
        {"input_uncached": 7, "output": 6, "reasoning": 4, "input": 7, "output_total": 10},
        "estimated",
    )
