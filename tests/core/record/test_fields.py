"""Mirrors sidecar/core/record/fields.py."""

import pytest

from sidecar.core.record.fields import FIELDS, KINDS, fields_of


def test_every_row_is_of_kinds_that_there_are_and_no_kind_has_a_field_twice():
    assert {kind for field in FIELDS for kind in field.kinds.split()} == set(KINDS)
    for kind in KINDS:
        names = [field.name for field in fields_of(kind)]
        assert len(names) == len(set(names)), kind


@pytest.mark.parametrize("kind", ["usage", "unattributed", "denial"])
def test_every_field_of_an_exchange_says_how_it_is_read(kind):
    assert [field.name for field in fields_of(kind) if field.read is None] == []


def test_no_meaning_breaks_the_table():
    assert [field.name for field in FIELDS if "|" in field.meaning or "\n" in field.meaning or not field.meaning] == []
