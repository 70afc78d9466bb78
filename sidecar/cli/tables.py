"""Tables on standard output, as all commands print them.

A table that is wider than the terminal is written field by field, since a terminal that folds its lines makes columns
unreadable. Nothing is left out: a shortened id cannot be used. In a pipe lines are whole, so that they can be searched.
A table of many rows can name one column that is shortened instead: `narrowed`.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_GAP: Final = "   "
_INDENT: Final = "  "
PAGE: Final = 80  # columns, where there is no terminal
_NAMES: Final = 20  # characters of the names of fields that are one below the other
_LEAST: Final = 8  # characters of a shortened cell


def terminal_width(*, err: bool = False) -> int | None:
    """The columns of the terminal, or of COLUMNS; None where standard output (`err`: error) is not a terminal."""
    return shutil.get_terminal_size().columns if (sys.stderr if err else sys.stdout).isatty() else None


def print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, title: str = "") -> None:
    """Print `rows`, with the names of their columns, in the width of the terminal. Without rows nothing is printed."""
    if not rows:
        return
    if title:
        click.echo(f"\n{title}")
    for line in table_lines(rows, columns, terminal_width()):
        click.echo(line)


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, title: str = "", kind: str = "") -> None:
    """Print a table of the columns in use on a terminal; in a pipe one line per row, `kind` first, parted by tabs."""
    if sys.stdout.isatty():
        used = [name for name in columns if any(row[name] != "" for row in rows)]
        print_table(rows, used, title=title)
        return
    for row in rows:
        click.echo("\t".join([kind] * bool(kind) + [printable(str(row[name])) for name in columns]))


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print a line for each field; on a terminal a long value goes on below, broken after a comma or space."""
    width = terminal_width()
    for name, value in fields.items():
        for line in field_lines(name, _cell(value), width):
            click.echo(line)


def field_lines(name: str, value: str, width: int | None) -> list[str]:
    """The lines of a field, none longer than `width` (None: no bound). Joined, their values are the value."""
    head = f"{_INDENT}{name:<{_NAMES}} "
    room = max(width - len(head), _LEAST) if width is not None else max(len(value), 1)
    lines = [""]
    for piece in re.findall(r"[^, ]*[, ]?", value):
        if lines[-1] and len(lines[-1]) + len(piece) > room:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1]) > room:
            lines[-1:] = [lines[-1][:room], lines[-1][room:]]
    return [(head if number == 0 else " " * len(head)) + line for number, line in enumerate(lines)]


def printable(text: str) -> str:
    """The text with its control characters as escapes: what clients and topics name must not command a terminal."""
    if text.isprintable():
        return text
    return "".join([each if each.isprintable() else each.encode("unicode_escape").decode() for each in text])


def print_text(text: str, *, err: bool = False) -> None:
    """Print prose in paragraphs of one line each, folded at the width of the terminal. `err`: on standard error.

    A word is never split: an option, a month or a name of a file is copied whole.
    """
    width = terminal_width(err=err)
    for line in text.split("\n"):
        is_folded = width is not None and len(line) > width
        click.echo(
            textwrap.fill(line, width or 0, break_on_hyphens=False, break_long_words=False) if is_folded else line,
            err=err,
        )


def table_lines(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], width: int | None) -> list[str]:
    """The lines of a table, none longer than `width`; field by field where the columns are wider. None: no bound."""
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    lines = [list(columns), *[[cell or "-" for cell in row] for row in cells]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    if width is None or len(_INDENT) + sum(widths) + len(_GAP) * (len(widths) - 1) <= width:
        return [_INDENT + _GAP.join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return [line for row in cells for line in _fields(zip(columns, row, strict=True), width)]


def narrowed(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], name: str) -> list[dict[str, Any]]:
    """The rows with the cells of the column `name` shortened, so that a line has the terminal's width or PAGE.

    A shortened cell has its beginning and its end, since versions differ there, and at least 8 characters.
    """
    others = [max(len(_cell(value)) for value in (each, *[row[each] for row in rows])) for each in columns]
    others[columns.index(name)] = len(_INDENT) + len(_GAP) * (len(columns) - 1)
    room = max((terminal_width() or PAGE) - sum(others), _LEAST)
    return [{**row, name: _shortened(_cell(row[name]), room)} for row in rows]


def _shortened(text: str, room: int) -> str:
    end = (room - 1) // 2
    return text if len(text) <= room else f"{text[: room - 1 - end]}…{text[-end:]}"


def _fields(row: Iterable[tuple[str, str]], width: int) -> list[str]:
    """The fields of a row that have a value, one after the other; a value is only split where no line holds it."""
    indent = 3 * _INDENT
    lines = [_INDENT]
    for field in [f"{name} {value}" for name, value in row if value]:
        first, *rest = textwrap.wrap(field, max(width - len(indent), 1), break_on_hyphens=False)
        gap = _GAP if lines[-1].strip() else ""
        if gap and (rest or len(lines[-1]) + len(gap) + len(first) > width):
            lines.append(indent)
            gap = ""
        lines[-1] += gap + first
        lines += [indent + piece for piece in rest]
    return lines


def _cell(value: Any) -> str:
    return printable(", ".join(value) if isinstance(value, list) else "-" if value is None else str(value))
