"""Mirrors sidecar/core/usage/body.py."""

import json
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.usage import MAX_CALLS, MAX_UNITS, Bodies, steps

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


def bodies(request=None, response=None):
    found = Bodies()
    for side, body in (("request", request), ("response", response)):
        found.take(side, body if body is None or isinstance(body, bytes) else json.dumps(body).encode())
    return found


def calls(body):
    return bodies(body).calls


# --- No bytes make it fail -------------------------------------------------------------------------------------------


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()), st.text(max_size=6))
@example(b"[" * 100_000, "0")
@example(b'{"a":' * 5_000, "a")
@example(b'{"a":1' + b"0" * 6_000 + b"}", "a")
@example(b'{"a":1e999}', "a")
@example(b'{"a":NaN}', "a")
@example(b'{"a":"\\ud800"}', "a")
@example(b'\xff\xfe{\x00"\x00a\x00"\x00:\x001\x00}\x00', "a")
@example(b'{"a":1,"a":2}', "a")
def test_no_bytes_make_reading_fail_and_every_answer_is_what_it_should_be(body, name):
    found = bodies(body, body)
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    for side, length in product(("request", "response"), (False, True)):
        number = found.number(side, pointer, length)
        assert number is None or (type(number) is int and 0 <= number <= MAX_UNITS)
        text = found.text(side, pointer)
        assert text is None or text.encode() is not None
    assert found.calls is None or all(method.encode() is not None for method in found.calls)
    assert found.known("request") in {True, False}


@given(JSON, st.data())
def test_a_pointer_leads_where_it_says(value, data):
    pointer, here = "", value
    while isinstance(here, dict | list) and here and data.draw(st.booleans()):
        step = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
        pointer += "/" + str(step).replace("~", "~0").replace("/", "~1")
        here = here[step]
    read = bodies(json.dumps(value).encode())
    found = read.text("request", pointer)
    if isinstance(here, str):
        assert found == here
    elif isinstance(here, bool) or here is None:
        assert found == json.dumps(here)
    elif isinstance(here, dict | list):
        assert found == ("{}" if isinstance(here, dict) else "[]")
        assert read.number("request", pointer, True) == (len(here) if isinstance(here, list) else None)
    else:
        assert float(found) == float(here)


@pytest.mark.parametrize(
    ("pointer", "text"),
    # RFC 6901 §5, on its own document.
    [
        ("", "{}"),
        ("/foo", "[]"),
        ("/foo/0", "bar"),
        ("/", "0"),
        ("/a~1b", "1"),
        ("/c%d", "2"),
        ("/e^f", "3"),
        ("/g|h", "4"),
        ("/i\\j", "5"),
        ('/k"l', "6"),
        ("/ ", "7"),
        ("/m~0n", "8"),
        ("/foo/00", None),
        ("/foo/-", None),
        ("/foo/2", None),
        ("/foo/0/0", None),
        ("/nope", None),
    ],
)
def test_the_examples_of_rfc_6901_are_read_as_it_says(pointer, text):
    document = {
        "foo": ["bar", "baz"],
        "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8,
    }  # fmt: skip
    assert bodies(document).text("request", pointer) == text


def test_a_tilde_is_unescaped_last():
    assert steps("/~01/~10") == ("~1", "/0")  # RFC 6901 §4: else ~01 would become a slash


@pytest.mark.parametrize("pointer", ["a", "/~", "/a~2", "#/a"])
def test_what_is_no_pointer_is_refused(pointer):
    with pytest.raises(ValueError, match="pointer"):
        steps(pointer)


# --- Numbers and texts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (b"12", 12),
        (b"0", 0),  # litellm #37992: an explicit 0 is a number
        (b"-0", 0),
        (b"12.0", 12),
        (b"1.2e1", 12),
        (b"9007199254740991", MAX_UNITS),
        (b"9007199254740992", None),
        (b"1e300", None),
        (b"123456789012345678901234567890", None),
        (b"-1", None),
        (b"12.5", None),
        (b'"12"', None),
        (b"true", None),  # Fails if bool passes for int.
        (b"null", None),
        (b"[]", None),
        (b"{}", None),
    ],
)
def test_a_number_is_whole_and_never_below_zero_and_never_a_text(written, number):
    assert bodies(b'{"a":%b}' % written).number("request", "/a") == number


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (b'"gold"', "gold"),
        (b"12", "12"),
        (b"12.0", "12"),
        (b"1.5", "1.5"),
        (b"true", "true"),
        (b"null", "null"),
        (b'["gold"]', "[]"),
        (b'{"gold":1}', "{}"),
        (b'"\\ud800x"', "?x"),
    ],
)
def test_a_scalar_is_compared_as_text(written, text):
    assert bodies(b'{"a":%b}' % written).text("request", "/a") == text


def test_the_length_of_an_array_is_a_number_and_that_of_nothing_else():
    found = bodies({"rows": [1, 2, 3], "none": [], "text": "abc", "object": {"a": 1}})
    lengths = [found.number("request", f"/{name}", True) for name in ("rows", "none", "text", "object")]
    assert lengths == [3, 0, None, None]


def test_each_side_is_read_by_itself():
    found = bodies({"a": 1}, {"a": 2})
    assert [found.number(side, "/a") for side in ("request", "response")] == [1, 2]


@pytest.mark.parametrize(
    ("body", "known"), [(b"{}", True), (b"", True), (b"null", True), (b"\xef\xbb\xbf[]", True), (b"<a>", False)]
)
def test_a_body_that_is_no_json_is_not_known_and_an_empty_one_is(body, known):
    assert bodies(body).known("request") is known


def test_what_was_too_large_or_cut_is_not_known():
    found = bodies(None, b"{}")
    assert (found.known("request"), found.known("response"), found.calls) == (False, True, None)
    assert (found.number("request", ""), found.text("request", "")) == (None, None)
    assert not Bodies().known("response")  # nor what has not come yet


@pytest.mark.parametrize("body", [b'{"a":"\\ud800"}', b'{"a":NaN}', b'\xff\xfe{\x00"\x00a\x00"\x00:\x001\x00}\x00'])
def test_what_many_parsers_take_is_read_although_it_is_no_strict_json(body):
    # A body that the upstream reads and we do not would be an unmetered one. Fails without the lenient parser.
    assert bodies(body).text("request", "/a") is not None


def test_a_body_is_parsed_once_and_again_after_a_rest(monkeypatch):
    parsed = []
    monkeypatch.setattr("sidecar.core.usage.json_text.orjson.loads", lambda body: parsed.append(body) or {"a": 7})
    found = bodies(b"{}")
    assert not parsed
    assert [found.number("request", "/a"), found.text("request", "/a"), found.calls] == [7, "7", ()]
    assert len(parsed) == 1
    found.rest()
    assert (found.calls, len(parsed)) == ((), 1)
    assert (found.number("request", "/a"), len(parsed)) == (7, 2)


# --- JSON-RPC --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "methods"),
    [
        ({"jsonrpc": "2.0", "id": 1, "method": "eth_call"}, ("eth_call",)),
        ([{"method": "a"}, {"method": "b"}, {"method": "a"}], ("a", "b", "a")),
        ([{"method": "a"}, 1, {"method": 2}, {"result": 3}], ("a", "", "", "")),
        ({"result": 3}, ()),
        ("text", ()),
        ([], ()),
        (b"", ()),
        (b"{", None),
        (None, None),
    ],
)
def test_the_calls_of_a_body_are_its_methods(body, methods):
    assert calls(body) == methods


def test_a_method_in_other_letters_is_one_more_call():
    # Go's encoding/json takes names whatever their case, and the last wins: metered as the cheap one, run as the other.
    # Fails if only the exact name is looked for.
    assert calls({"method": "eth_chainId", "METHOD": "eth_getLogs"}) == ("eth_chainId", "eth_getLogs")
    assert calls({"Method": "eth_getLogs"}) == ("eth_getLogs",)


# hostile F2: parsers that take the first member ran one, and the last was counted. Each is.
@pytest.mark.parametrize(
    ("body", "methods"),
    [
        (b'{"method":"debug_x","method":"eth_chainId"}', ("debug_x", "eth_chainId")),
        (b'{"method":"debug_x","\\u006dethod":"eth_chainId"}', ("debug_x", "eth_chainId")),
        ('{"method":"debug_x","me\u0074hod":1,"METHOD":"a"}'.encode(), ("debug_x", "a")),
        (b'[{"method":"a"},{"method":"b","Method":"c"}]', ("a", "b", "c")),
        (b'[{"method":"a","METHOD":1}]', ("a",)),
        (b'{"method":["debug_x"]}', ()),  # which JavaScript and PHP may look up as "debug_x"
        (b'{"method":5}', ()),  # Fails if a method that is no text is taken for none.
        (b'[{"method":["a"]},{"method":"b"}]', ("", "b")),
    ],
)
def test_a_call_with_several_methods_is_as_many_calls_and_not_for_certain(body, methods):
    found = bodies(body)
    assert (found.calls, found.lacks_calls) == (methods, True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"method":"a","params":[{"method":"b","METHOD":"c"},"method"]}',
        b'[{"method":"a"},{"method":"b"}]',
        b'{"Method":"a"}',
        b'{"method":null}',
    ],
)
def test_calls_that_every_server_takes_alike_are_certain(body):
    assert not bodies(body).lacks_calls
    assert bodies(None).lacks_calls


@pytest.mark.parametrize(
    ("body", "length", "lacks"),
    [
        (b"", False, False),
        (b"{}", False, False),
        (b'{"n":null}', False, False),
        (b'{"n":0}', False, False),
        (b'{"n":"5"}', False, True),  # an API may take it for 5
        (b'{"n":-1}', False, True),
        (b'{"n":1.5}', False, True),
        (b'{"n":1e300}', False, True),
        (b'{"n":true}', False, True),
        (b'{"n":1,"N":5000}', False, True),
        (b'{"N":5000}', False, True),
        (b'{"n":1} x', False, True),
        (None, False, True),
        (b'{"n":[]}', True, False),
        (b'{"n":"one"}', True, True),
    ],
)
def test_a_number_is_lacking_where_something_may_stand_there_that_is_none(body, length, lacks):
    assert bodies(body).lacks_number("request", "/n", length) is lacks


def test_of_an_answer_the_last_member_of_a_name_counts_and_others_do_not_confuse():
    assert bodies(None, b'{"n":1,"N":2,"n":3}').number("response", "/n") == 3


@pytest.mark.parametrize(("size", "known"), [(MAX_CALLS, True), (MAX_CALLS + 1, False)])
def test_a_batch_is_bounded(size, known):
    found = bodies([{"method": "a"}] * size)
    assert (found.calls is not None) is known
    assert found.number("request", "", True) == size  # an array of rows is no batch, and has its length
