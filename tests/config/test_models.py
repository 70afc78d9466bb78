"""Mirrors sidecar/config/models.py."""

import inspect
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Discriminator, Field, Tag

from sidecar.config.document import read
from sidecar.config.models import Model, validate
from sidecar.core.errors import PolicyError

WRITE_A_UNIT = "write for example 50ms, 10s or 5m, or put the unit into the name: …_ms: 5"


class Inner(Model):
    wait_ms: int = 1
    size_bytes: int | None = None
    name: str = "x"


class Named(Model):
    moved_fields: ClassVar = {"price": "write it under prices"}

    json_: Annotated[str, Field(alias="json")]
    pointer: Any = None


class Outer(Model):
    inner: Inner = Inner()
    many: dict[str, Inner] | None = None
    maybe: Inner | None = None
    row: Annotated[tuple[Inner, ...], Field(max_length=2)] = ()
    either: (
        Annotated[
            Annotated[Inner, Tag("<inner>")] | Annotated[Named, Tag("<named>")],
            Discriminator(lambda value: "<named>" if "json" in value else "<inner>"),
        ]
        | None
    ) = None


def document(text):
    return read(Path("p.yaml"), text)


def faults(text, model=Outer):
    with pytest.raises(PolicyError) as caught:
        validate(model, document(text))
    return [str(fault) for fault in caught.value.faults]


def test_all_faults_are_told_at_once_in_the_order_of_their_lines():
    said = faults("row:\n  - {nme: a}\n  - {name: [1]}\ninner: 3\nmany:\n  x: {wait: 5}\n")
    assert said == [
        "p.yaml:2: row[0].nme: is not known here; did you mean 'name'?",
        "p.yaml:3: row[1].name: should be a text",
        "p.yaml:4: inner: should be a mapping of fields to values",
        f"p.yaml:6: many.x.wait: 5 of what? {WRITE_A_UNIT}",
    ]


@pytest.mark.parametrize("where", ["inner: {", "maybe: {", "many: {x: {", "row: [{"])
def test_an_unknown_field_suggests_the_nearest_known_one_at_any_depth(where):
    closing = "".join({"{": "}", "[": "]"}[char] for char in reversed(where) if char in "{[")
    assert "did you mean 'wait'?" in faults(f"{where}wiat: 1s{closing}")[0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("inner: {qqqq: 1}", "inner.qqqq: is not known here; known: name, size, wait"),
        ("- a\n", "should be a mapping of fields to values"),
        ("row: [{}, {}, {}]", "row: has more than 2: leave some out"),
        # The fields of the form that was written are suggested.
        ("either: {json: a, pointr: b}", "either.pointr: is not known here; did you mean 'pointer'?"),
        ("either: {nme: b}", "either.nme: is not known here; did you mean 'name'?"),
        ("either: {json: a, x: b}", "either.x: is not known here; known: json, pointer"),
        ("either: {json: a, price: 5}", "either.price: does not belong here: write it under prices"),
    ],
)
def test_a_fault_says_what_would_be_right(text, fault):
    assert faults(text) == [f"p.yaml:1: {fault}"]


def test_a_quantity_may_be_written_with_its_unit_or_under_a_name_that_has_it():
    for text in ("wait: 2s", "wait_ms: 2000", "wait_ms: 2s", "wait: '2s'"):
        assert validate(Outer, document(f"inner: {{{text}}}")).inner.wait_ms == 2_000


def test_no_time_at_all_needs_no_unit():
    assert validate(Outer, document("inner: {wait: 0}")).inner.wait_ms == 0


def test_a_setting_under_both_its_names_is_refused():
    assert "are the same setting: keep one" in faults("inner: {wait: 1s, wait_ms: 5}")[0]


# Fails if pydantic looks for the texts at each start: reading the source of all models was a quarter of it.
def test_the_text_under_a_field_is_its_description_and_is_looked_for_with_the_schema(monkeypatch):
    read = []
    monkeypatch.setattr(inspect, "getsource", lambda each: read.append(each.__name__) or SOURCE)
    described = type("Described", (Model,), {"__annotations__": {"wait_ms": int, "name": str}})
    assert read == []
    assert described.model_json_schema()["properties"]["wait_ms"]["description"] == "How long."
    assert read == ["Described"]


SOURCE = '''
class Described(Model):
    """A model."""

    wait_ms: int
    """How long."""
    name: str
'''
