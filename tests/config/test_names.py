"""Mirrors sidecar/config/names.py."""

from pathlib import Path

from sidecar.config.document import read
from sidecar.config.names import At, unknown

DOCUMENT = read(Path("p.yaml"), "plans:\n  p:\n    limits:\n      - {id: a}\n")


def test_a_fault_stands_at_the_line_of_the_field_or_of_what_is_around_it():
    at = At(DOCUMENT, ("plans", "p"))
    assert str(at.fault("is wrong", "limits", 0, "rate")) == "p.yaml:4: plans.p.limits[0].rate: is wrong"
    assert str(at.at("limits")) == "p.yaml:3"


def test_an_unknown_name_is_told_with_the_nearest_known_one():
    at = At(DOCUMENT, ("plans",))
    assert [fault.what for fault in unknown(at, "requets", ["requests"])] == [
        "'requets' is not defined; did you mean 'requests'?"
    ]
    assert list(unknown(at, "requests", iter(["requests"]))) == []
