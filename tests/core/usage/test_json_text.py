"""Mirrors sidecar/core/usage/json_text.py."""

import json
from time import perf_counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.usage.json_text import MAX_TWINS, MISSING, UNKNOWN, JsonText, fold, members_of, parse

# --- What other parsers find -----------------------------------------------------------------------------------------

# A document is written member by member, so that names can come twice, and its letters can hide in escapes.
LETTERS = st.sampled_from(["a", "A", "b", "i", "I", "\u0130", "\u0131", "s", "\u017f", "k", "\u212a"])
NAMES = st.text(LETTERS, min_size=1, max_size=2)
WRITTEN = st.tuples(NAMES, st.booleans()).map(
    lambda name: '"' + "".join(f"\\u{ord(c):04x}" if name[1] else c for c in name[0]) + '"'
)
DOCUMENTS = st.recursive(
    st.integers(0, 3).map(str) | st.sampled_from(['"a"', '"A"', "null", "[]"]),
    lambda inner: (
        st.lists(st.tuples(WRITTEN, inner), max_size=4).map(
            lambda pairs: "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"
        )
        | st.lists(inner, max_size=2).map(lambda items: "[" + ",".join(items) + "]")
    ),
    max_leaves=12,
)
PATHS = st.lists(NAMES | st.sampled_from(["0", "1"]), min_size=1, max_size=3)


class Pairs(list):
    """An object as all of its members."""


def readings(text, path):
    """What parsers find: of several members the first or the last, by the exact name or by one that looks alike."""
    for same in (str.__eq__, lambda key, name: key == name or fold(key) == fold(name)):
        for which in (0, -1):
            yield walk(json.loads(text, object_pairs_hook=Pairs), path, same, which)


def walk(here, path, same, which):
    for step in path:
        if isinstance(here, Pairs):
            found = [value for key, value in here if same(key, step)]
            here = found[which] if found else MISSING
        elif isinstance(here, list):
            here = here[int(step)] if step.isdigit() and int(step) < len(here) else MISSING
        else:
            return MISSING
    return here


# Fails if a name that hides in escapes is not looked for, if only exact twins count, if letters that look alike outside
# of ASCII are forgotten, or if one of several objects of the same name is taken for another.
@given(DOCUMENTS, PATHS)
@example('{"a":1,"a":2}', ["a"])
@example('{"a":1,"\\u0041":2}', ["a"])
@example('{"k":1,"\u212a":2}', ["k"])
@example('{"a":{"b":1},"a":{}}', ["a", "b"])
@example('{"b":{"a":1},"a":1}', ["a"])
@example('[{"a":1,"A":2}]', ["0", "a"])
@example('{"A":1}', ["a"])
def test_what_is_found_is_what_every_parser_finds(text, path):
    found = JsonText(text.encode()).at(path)
    theirs = [reading for reading in readings(text, path) if not isinstance(reading, Pairs | list)]
    if found is not UNKNOWN and not isinstance(found, dict | list):
        assert theirs == [found] * 4
    elif found is UNKNOWN:
        assert is_odd(text, path)


def is_odd(text, path):
    """Whether a step finds several members, or one in other letters: what holds the same today need not tomorrow."""
    here = json.loads(text, object_pairs_hook=Pairs)
    for step in path:
        if isinstance(here, Pairs):
            found = [(key, value) for key, value in here if fold(key) == fold(step)]
            if [key for key, _ in found] not in ([], [step]):
                return True
            here = found[0][1] if found else MISSING
        elif isinstance(here, list):
            here = here[int(step)] if step.isdigit() and int(step) < len(here) else MISSING
    return False


@pytest.mark.parametrize(
    "text",
    [
        '{"max_tokens":1,"MAX_TOKENS":5000}',
        '{"max_tokens":1,"max_tokens":5000}',
        '{"max_to\\u006bens":1,"max_tokens":5000}',
        '{"max_tokens":1,"max_to\u212aens":5000}',
        '{"max_tokens":1,"max_token\u017f":5000}',
        '{"max_tokens":1,"max_token\\u017f":5000}',
        '{"MAX_TOKENS":5000}',
        '{"max_tokens" :1, "x":{"max_tokens":2}, "Max_Tokens"\n:5}',
    ],
)
def test_a_name_that_parsers_take_differently_is_not_known(text):
    assert JsonText(text.encode()).at(("max_tokens",)) is UNKNOWN


@pytest.mark.parametrize(
    "text",
    [
        '{"n":7}',
        '{"tools":[{"n":1},{"N":2}],"n":7}',
        '{"x":"n","y":"\\"n\\":1","n":7}',
        '{"N_":1,"n":7,"nn":2}',
        '{"x":"\\u003cn\\u003e","n":7}',
        '{"x":"\u0131 \u212a","n":7}',
        "\ufeff" + '{"n":7}',
        '{"x":NaN,"n":7}',
        '{"x":"\\ud800","n":7}',
    ],
)
def test_a_name_that_stands_in_other_places_is_known(text):
    assert JsonText(text.encode()).at(("n",)) == 7


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_names_are_looked_at_in_every_encoding_that_is_read(encoding):
    assert JsonText('{"n":7}'.encode(encoding)).at(("n",)) == 7
    assert JsonText('{"n":7,"N":8}'.encode(encoding)).at(("n",)) is UNKNOWN


# Names whose letters have other escapes than \u, or are no ASCII, are always looked for in the second way.
@pytest.mark.parametrize("text", ['{"a\\/b":1,"a/b":2}', '{"a/b":1,"A/B":2}'])
def test_a_slash_in_a_name_can_be_escaped(text):
    assert JsonText(text.encode()).at(("a/b",)) is UNKNOWN
    assert JsonText(b'{"a\\/b":1}').at(("a/b",)) == 1


# --- What cannot be read ---------------------------------------------------------------------------------------------


# hostile F2, bugs 02: upstreams read these, and we do not.
@pytest.mark.parametrize(
    "body",
    [
        None,
        b'{"n":1} x',
        b'{"n":1}\x00',
        b'{"n":1,"x":"\xff"}',
        b'{"n":1,"x":' + b"9" * 5_000 + b"}",
        b'{"n":1,"x":' + b"[" * 1_100 + b"]" * 1_100 + b"}",
        b"{'n':1}",
        b'{"n":1,}',
        b'{"n":1/**/}',
        b'{"n":1,"x":"\n"}',
    ],
)
def test_what_is_no_json_is_not_known(body):
    found = JsonText(body)
    assert (found.value, found.at(("n",)), found.at(()), found.everything) == (UNKNOWN,) * 4


def test_an_empty_body_says_nothing():
    found = JsonText(b"")
    assert (found.value, found.at(("n",)), found.differs(MEMBERS)) == (MISSING, MISSING, False)


@pytest.mark.parametrize("body", [b'{"a":"\\ud800"}', b'{"a":NaN}', b"\xef\xbb\xbf{}"])
def test_what_upstreams_take_is_read_although_it_is_no_strict_json(body):
    assert isinstance(parse(body), dict)


MEMBERS = members_of({(): ("model", "config"), ("config",): ("maxTokens",)})


# Fails if names are looked for in the bytes alone, or in the parsed document alone.
def test_several_members_are_looked_for_at_once():
    for text in (
        '{"model":1,"config":{"maxTokens":2,"MODEL":3},"x":{"MODEL":3}}',
        "{}",
        "[]",
        '{"mod":1,"maxtokens":1}',
    ):
        assert not JsonText(text.encode()).differs(MEMBERS)
    for text in (
        '{"MODEL":1}',
        '{"model":1,"model":1}',
        '{"model":1,"\\u004dodel":1}',
        '{"config":{"maxTokens":1,"MaxTokens":2}}',
        '{"config":{"maxTokens":1,"maxTokens":2}}',
        '{"config":{},"Config":{}}',
        '{"config":{},"config":{}}',
        '{"model":1',
    ):
        assert JsonText(text.encode()).differs(MEMBERS)
    twice_elsewhere = b'{"model":"model","x":[{"config":{"maxTokens":1},"model":2}],"config":{"maxTokens":1}}'
    assert not JsonText(twice_elsewhere).differs(MEMBERS)


# Fails if a name that is a member of two objects may stand in the bytes once more than that.
def test_a_member_of_two_objects_comes_twice_in_neither():
    members = members_of({(): ("n", "config"), ("config",): ("n",)})
    assert not JsonText(b'{"n":1,"config":{"n":2}}').differs(members)
    for text in (b'{"n":1,"config":{"n":2,"n":3}}', b'{"n":1,"n":2,"config":{"n":3}}', b'{"config":{"n":2,"n":3}}'):
        assert JsonText(text).differs(members)


def test_a_text_of_ever_more_twins_is_not_known():
    for many, found in ((MAX_TWINS, 7), (MAX_TWINS + 1, UNKNOWN)):
        twins = b",".join([b'{"n":1,"N":2}'] * many)
        assert JsonText(b'{"x":[%b],"n":7}' % twins).at(("n",)) == found


# No body that a client can send takes more than a few times the parse of it.
@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join([b'"n":1'] * 100_000) + b"}",
        b"[" + b",".join([b'{"n":1,"N":2}'] * 50_000) + b"]",
        b'{"x":"' + b"\\u0061" * 100_000 + b'"}',
    ],
)
def test_a_body_full_of_twins_is_soon_done(body):
    began = perf_counter()
    text = JsonText(body)
    text.at(("n",))
    text.at(("0", "n"))
    assert perf_counter() - began < 5
