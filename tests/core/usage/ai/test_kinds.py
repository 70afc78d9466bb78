from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.usage.ai.kinds import INPUT, KINDS, MOST, OUTPUT, share, whole, with_sums

FIGURES = st.none() | st.integers(0, MOST)


def test_no_kind_is_named_twice():
    assert len(set(KINDS)) == len(KINDS)
    assert not {"input", "output_total"} & set(KINDS)


def test_a_figure_is_a_whole_number_and_nothing_else():
    assert [whole(value) for value in (0, 7, MOST)] == [0, 7, MOST]
    assert [whole(value) for value in (-1, 1.0, True, "7", None, [], MOST + 1)] == [None] * 7


# APISIX #13662, Kong #14535: totals left out input. Mutation: no min() in share.
@given(st.integers(0, MOST), st.lists(FIGURES, min_size=3, max_size=3))
def test_the_parts_and_the_rest_are_always_the_total(total, parts):
    found = share(total, "output", zip(("reasoning", "audio_output", "image_output"), parts, strict=True))
    assert sum(found.values()) == total
    assert min(found.values()) >= 0


def test_a_part_that_was_not_told_of_has_no_kind_and_a_zero_has_one():
    assert share(5, "output", (("reasoning", 0), ("audio_output", None))) == {"output": 5, "reasoning": 0}


@given(st.dictionaries(st.sampled_from(KINDS), st.integers(0, MOST)))
def test_the_sums_are_those_of_their_side(kinds):
    found = with_sums(kinds)
    assert found["input"] == sum(kinds.get(kind, 0) for kind in INPUT)
    assert found["output_total"] == sum(kinds.get(kind, 0) for kind in OUTPUT)
