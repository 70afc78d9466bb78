import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.usage.ai import documents
from sidecar.core.usage.ai.documents import MAX_DEPTH, MAX_DOCUMENT, TAIL, Document, Elements, parsed
from tests.core.usage.ai.answers import cut

TEXTS = st.text(st.sampled_from('ab"\\{}[],:\n é'), max_size=6)
VALUES = st.recursive(
    TEXTS | st.none() | st.integers(-9, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=4)
PLACES = st.lists(st.integers(0, 5000), max_size=8)
USAGE = b'"usage":{"prompt_tokens":8,"total_tokens":8}'


def elements(pieces):
    reader = Elements()
    return [element for piece in pieces for element in reader.feed(piece)], reader.ended, reader.unread


def value(pieces):
    document = Document()
    for piece in pieces:
        document.feed(piece)
    return document.value()


# Mutation: a quote behind a backslash ends a string; a backslash that ends the bytes is forgotten.
@given(OBJECTS, PLACES, st.sampled_from([None, 2]), st.booleans())
def test_the_objects_of_an_array_come_out_however_it_is_cut(objects, places, indent, ascii_only):
    array = json.dumps(objects, indent=indent, ensure_ascii=ascii_only).encode()
    assert elements(cut(array, places)) == (objects, True, 0)


@given(OBJECTS)
def test_the_objects_of_an_array_come_out_byte_by_byte(objects):
    array = json.dumps(objects).encode()
    assert elements([array[at : at + 1] for at in range(len(array))]) == (objects, True, 0)


@given(st.lists(st.sampled_from(list('[]{}",\\a: ')), max_size=30).map("".join), PLACES)
def test_what_is_no_json_reads_the_same_however_it_is_cut(text, places):
    array = b"[" + text.encode()
    assert elements(cut(array, places)) == elements([array])


# Mutation: what looks like an object is one, wherever it stands.
@pytest.mark.parametrize(
    ("pieces", "objects"),
    [
        ([b'["', b"{}", b'"]'], []),
        ([b'[{"a":', b"{}", b"}]"], [{"a": {}}]),
        ([b"[[", b"{}", b"]]"], [[{}]]),
        ([b"[", b"{},", b"{}", b",{}]"], [{}, {}, {}]),
    ],
)
def test_a_piece_that_looks_like_an_element_may_be_none(pieces, objects):
    assert elements(pieces) == (objects, True, 0)


def test_an_element_that_is_too_long_is_dropped_and_the_next_one_read(monkeypatch):
    monkeypatch.setattr(documents, "MAX_ELEMENT", 20)
    long = b'{"a":"' + b"x" * 20 + b'"}'
    for step in (1, 7, 100):
        array = b"[" + long + b',{"b":1}]'
        pieces = [array[at : at + step] for at in range(0, len(array), step)]
        assert elements(pieces) == ([{"b": 1}], True, len(long))


def test_a_document_is_what_it_says():
    assert value([b'{"a"', b":1}"]) == {"a": 1}
    assert value([b'{"a"']) is None


def long_document(tail):
    return b'{"object":"list","data":[' + b"0.25," * (MAX_DOCUMENT // 4) + b"0]," + tail


@pytest.mark.parametrize("step", [1 << 14, 99_991, 1 << 30])
def test_of_a_longer_document_the_usage_at_its_end_is_read(step):
    body = long_document(b'"model":"m",' + USAGE + b',"x":[{}]}')
    assert value([body[at : at + step] for at in range(0, len(body), step)]) == {
        "usage": {"prompt_tokens": 8, "total_tokens": 8}
    }


# Mutation: the last usage of all, at whatever depth.
def test_a_usage_that_the_model_wrote_itself_is_not_the_answers():
    forged = b'"args":{"usage":{"prompt_tokens":0,"total_tokens":0}}'
    assert value([long_document(USAGE + b"," + forged + b"}")]) == {"usage": {"prompt_tokens": 8, "total_tokens": 8}}
    assert value([long_document(forged + b"}")]) is None


def test_a_long_document_that_is_cut_has_no_usage():
    assert value([long_document(USAGE + b',"x":[')]) is None


def test_a_long_document_is_not_held():
    document = Document()
    for _ in range(200):
        document.feed(b"x" * 100_000)
    assert len(document._held) <= 2 * TAIL
    assert document.length == 20_000_000


# What the upstream understands is metered: Python's parser takes all of these.
@pytest.mark.parametrize("body", [b'{"a":"\\ud800"}', b'{"a":NaN}', '{"a":1}'.encode("utf-16"), b'\xef\xbb\xbf{"a":1}'])
def test_what_a_lenient_upstream_understands_is_read(body):
    assert list(parsed(body)) == ["a"]


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"1" * 5000, b"\xff\xfe", b"\x00\x00"])
def test_what_is_no_json_is_none(body):
    assert parsed(body) is None


# Mutation: no MAX_DEPTH: each bracket takes a microsecond, to no end. Fails if what was held of the element is lost.
def test_an_array_deeper_than_any_server_reads_is_not_read_on(monkeypatch):
    elements = Elements()
    elements.feed(b'[{"a":1},')
    elements.feed(b"[" * (MAX_DEPTH + 1))
    monkeypatch.setattr(Elements, "_turns", None)
    assert elements.feed(b"]" * (MAX_DEPTH + 1) + b',{"a":2}]') == []
    assert elements.unread == 2 * (MAX_DEPTH + 1) + len(b',{"a":2}]')


# Mutation: no bound of the brackets that are looked at.
def test_a_usage_is_not_looked_for_behind_thousands_of_brackets():
    document = Document()
    usage = b'"usage":{"total_tokens":1}'
    document.feed(b'{"a":"' + b"x" * MAX_DOCUMENT + b'",' + usage + b',"b":[' + b"[]," * 3_000 + b"0]}")
    assert document.value() is None
