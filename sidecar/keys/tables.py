"""API keys as CSV and JSON: rows with their lines from a text, and the text of registered keys.

A fault names line and column, and repeats no value: a key in the wrong column must not get into a log.
"""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sidecar.config.document import did_you_mean
from sidecar.core.errors import Fault
from sidecar.core.identity import DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sidecar.core.identity import KeyRecord

COLUMNS: Final = ("key", *DEFAULTS)
REQUIRED: Final = frozenset({"key", "id", "hash", "customer", "subject", "plan"})  # columns without a default
_FLAGS: Final[dict[str, Any]] = {"true": True, "false": False}
_BLANK: Final = re.compile(r"[ \t\r\n]*")


class Row(NamedTuple):
    """One key of a text: its line, and its values by column."""

    line: int
    values: dict[str, Any]


def read_rows(file: str, text: str) -> tuple[list[Row], list[Fault]]:
    """The rows of CSV with a header, of a JSON array of objects, or of one object a line; and the text's faults."""
    faults: list[Fault] = []
    is_json = text.lstrip()[:1] in {"[", "{"}
    rows = list((_json_rows if is_json else _csv_rows)(file, text, faults))
    if not rows and not faults:
        faults.append(Fault(file, 0, "", "has no keys: give a header (id,key,customer,plan) and a row for each key"))
    return rows, faults


def _csv_rows(file: str, text: str, faults: list[Fault]) -> Iterator[Row]:
    first = text.partition("\n")[0]
    delimiter = next((mark for mark in ",;\t" if mark in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    line = 1
    try:
        for cells in reader:
            if not columns:
                columns = [cell.strip() for cell in cells]
                faults += _header_faults(file, columns)
                if faults:
                    return
            elif len(cells) != len(columns):
                if cells:
                    what = f"has {len(cells)} cells, and the header has {len(columns)}"
                    faults.append(Fault(file, line, "", what))
            else:
                yield Row(line, _cells(columns, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        faults.append(Fault(file, line, "", f"is not CSV: {error}"))


def _header_faults(file: str, columns: Sequence[str]) -> Iterator[Fault]:
    for number, name in enumerate(columns, 1):
        if name not in COLUMNS:
            known = did_you_mean(name, COLUMNS)
            yield Fault(file, 1, f"column {number}", f"its name in the header is unknown; {known}")
        elif name in columns[: number - 1]:
            yield Fault(file, 1, f"column {number}", f"'{name}' is there twice")


def _cells(columns: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    """The values of a row. An empty cell is the default of its field, or (of a required one) left out."""
    values: dict[str, Any] = {}
    for name, cell in zip(columns, cells, strict=True):
        if cell:
            values[name] = _FLAGS.get(cell.lower(), cell) if name == "test" else cell
        elif name not in REQUIRED:
            values[name] = DEFAULTS[name]
    return values


def _json_rows(file: str, text: str, faults: list[Fault]) -> Iterator[Row]:
    """The objects of an array, or one after the other."""
    decode = json.JSONDecoder().raw_decode
    place = _after_blanks(text, 0)
    is_array = text[place] == "["
    place = _after_blanks(text, place + is_array)
    line, counted = 1, 0
    while place < len(text) and not (is_array and text[place] == "]"):
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, end = decode(text, place)
        except json.JSONDecodeError as error:
            faults.append(Fault(file, error.lineno, f"column {error.colno}", f"is not JSON: {error.msg}"))
            return
        except (RecursionError, ValueError):  # deeper, or a longer number, than is ever read
            faults.append(Fault(file, line, "", "is nested too deep, or has a number of too many digits"))
            return
        if isinstance(value, dict):
            yield Row(line, value)
        else:
            faults.append(Fault(file, line, "", 'is not an object: write {"key": …, "customer": …, "plan": …}'))
        place = _after_blanks(text, end)
        if is_array and text[place : place + 1] not in {",", "]"}:
            faults.append(Fault(file, line, "", "is not followed by a comma or a bracket"))
            return
        if is_array and text[place] == ",":
            place = _after_blanks(text, place + 1)
            if text[place : place + 1] == "]":
                faults.append(Fault(file, line, "", "is followed by a comma, and by no other key"))
                return
    if is_array and text[place:].strip() != "]":
        line += text.count("\n", counted, place)
        what = "has text behind its array: give one array" if place < len(text) else "ends inside its array: it was cut"
        faults.append(Fault(file, line, "", what))


def _after_blanks(text: str, start: int) -> int:
    match = _BLANK.match(text, start)
    return match.end() if match is not None else start


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def as_csv(records: Sequence[KeyRecord]) -> str:
    """All fields of the keys, with a header. The hash is there, the key itself is not stored anywhere."""
    return table([tuple(DEFAULTS), *(_written(record) for record in records)])


def _written(record: KeyRecord) -> list[str]:
    values = (getattr(record, name) for name in DEFAULTS)
    return [str(value).lower() if isinstance(value, bool) else value for value in values]


def as_json(records: Sequence[KeyRecord]) -> str:
    """A JSON array with one key a line, without fields that have their default."""
    return "[\n" + ",\n".join([json.dumps(record.stored()) for record in records]) + "\n]\n"
