"""Mirrors sidecar/keys/tables.py; tests/cli/test_key_files.py imports what it writes."""

import csv
import io
import json

import pytest

from sidecar.core.identity import DEFAULTS, KeyRecord
from sidecar.keys.tables import Row, as_csv, as_json, read_rows

ONE = KeyRecord("k_1", "sha256:" + "0" * 64, "a, b", "s", "free", name='"quoted"', test=True)
TWO = KeyRecord("k_2", "sha256:" + "1" * 64, "c", "s", "pro", zone="Asia/Tokyo")


def lines_of(text):
    rows, faults = read_rows("f", text)
    return [row.line for row in rows], [str(fault) for fault in faults]


def test_what_is_written_as_csv_is_read_back():
    header, *cells = csv.reader(io.StringIO(as_csv([ONE, TWO])))
    assert header == list(DEFAULTS)
    assert [len(row) for row in cells] == [len(header)] * 2
    (first, second), faults = read_rows("f", as_csv([ONE, TWO]))
    assert faults == []
    assert (first.line, second.line) == (2, 3)
    for row, record in ((first, ONE), (second, TWO)):
        assert {name: getattr(record, name) for name in DEFAULTS} == row.values


def test_what_is_written_as_json_is_read_back():
    assert json.loads(as_json([ONE, TWO])) == [ONE.stored(), TWO.stored()]
    assert read_rows("f", as_json([ONE, TWO]))[0] == [Row(2, ONE.stored()), Row(3, TWO.stored())]
    assert json.loads(as_json([])) == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("id,name\na,b\nc,d\n", [2, 3]),
        ("id,name\r\na,b\r\n\r\nc,d", [2, 4]),
        ('id,name\na,"b\nb"\nc,d\n', [2, 4]),
        ("id;name\na;b\n", [2]),
        ("id\tname\na\tb,c\n", [2]),
        ('[\n\n{"id": 1},\n  {"id":\n2}, {"id": 3}\n]', [3, 4, 5]),
        ('[{"id": 1}]', [1]),
        ('\n{"id": 1}\n\n{"id": 2}\n', [2, 4]),
    ],
)
def test_each_row_has_the_line_in_which_it_begins(text, lines):
    assert lines_of(text) == (lines, [])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("id,custmer\n", "f:1: column 2: its name in the header is unknown; did you mean 'customer'?"),
        ("id,plan,id\n", "f:1: column 3: 'id' is there twice"),
        ("id,plan\na\n", "f:2: has 1 cells, and the header has 2"),
        ('id,plan\n"a,b\n', "f:2: is not CSV: unexpected end of data"),
        ('[{"id": 1},\n{]', "f:2: column 2: is not JSON: Expecting property name enclosed in double quotes"),
        ('[{"id": 1}\n{"id": 2}]', "f:1: is not followed by a comma or a bracket"),
        ('[{"id": 1}, 7]', "f:1: is not an object: write"),
    ],
)
def test_a_fault_names_its_line_and_column(text, fault):
    assert any(each.startswith(fault) for each in lines_of(text)[1]), lines_of(text)


def test_empty_cells_are_defaults_and_those_of_required_columns_are_left_out():
    ((row,), _) = read_rows("f", "id,zone,test,expires\n,,,\n")
    assert row.values == {"zone": "UTC", "test": False, "expires": ""}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[{"id": "a"},\n', "f:2: ends inside its array: it was cut"),
        ('[{"id": "a"}', "f:1: is not followed by a comma or a bracket"),
        ("[", "f:1: ends inside its array: it was cut"),
        ('[{"id": "a"}]\n[{"id": "b"}]', "f:1: has text behind its array: give one array"),
        ('[{"id": "a"}] x', "f:1: has text behind its array: give one array"),
        ('[{"id": "a"},]', "f:1: is followed by a comma, and by no other key"),
        ("[" * 100_000, "f:1: is nested too deep, or has a number of too many digits"),
        ('[{"id": ' + "1" * 5_000 + "}]", "f:1: is nested too deep, or has a number of too many digits"),
    ],
    ids=lambda text: text[:20],
)
def test_json_that_is_cut_or_continued_is_a_fault(text, fault):
    # Fails if a part of the keys is imported without a word.
    assert fault in lines_of(text)[1]
