from sidecar.core.usage.ai.seen import MAX_NAME, Seen, at, member, members, named


def test_a_later_figure_replaces_an_earlier_one():
    seen = Seen("openai")
    seen.add({"prompt": 7, "completion": 1})
    seen.add({"completion": 0})
    assert seen.counts == {"prompt": 7, "completion": 0}


def test_figures_are_final_with_the_end_of_the_answer():
    seen = Seen("openai")
    seen.add({"prompt": 7})
    assert not seen.final
    seen.finished = True
    seen.add({"prompt": 8})
    assert seen.final


def test_an_answer_without_figures_has_no_final_ones():
    seen = Seen("openai")
    seen.finish()
    assert (seen.finished, seen.final) == (True, False)


def test_text_is_counted_in_bytes_and_what_is_no_text_is_not():
    seen = Seen("openai")
    for text in ("abc", "é", "\ud800", "", None, 7, ["abc"]):
        seen.say(text)
    assert seen.text == 3 + 2 + 3


def test_a_name_in_a_record_is_short_and_can_be_written():
    assert named("m" * 1000) == "m" * MAX_NAME
    assert named("\ud800é") == "?é"
    assert named(7) == named(None) == ""


# hostile F9: PostgreSQL's jsonb refuses NUL, terminals obey escapes. Fails if one of these characters is kept.
def test_a_name_in_a_record_is_printable():
    assert named("\0gpt\x1b[31m-4o\x7f\u202e\u2028 mini\r\n") == "gpt[31m-4o mini"
    assert named("\0") == ""
    assert named("modèle é") == "modèle é"


def test_a_name_that_is_none_leaves_the_one_before():
    seen = Seen("openai")
    seen.name("a", "flex")
    seen.name(None, 7)
    assert (seen.model, seen.tier) == ("a", "flex")


def test_members_of_another_type_are_not_there():
    assert member({"a": 1}, "a") == member([], "a") == member({}, "a") == {}
    assert list(members({"a": [1, {"b": 2}, None]}, "a")) == [{"b": 2}]
    assert list(members({"a": {}}, "a")) == list(members(7, "a")) == []
    assert at({"a": {"b": 0}}, ("a", "b")) == 0
    assert at({"a": 7}, ("a", "b")) is None
