"""The text of a key file: its keys with their places, and the text with some of them changed or added.

A file whose entries all have the form in which the commands write them, one line each, is read by a pattern: 10,000
keys take 0.3 s, and as YAML four times as long. Every other file is read as YAML. Both give the same keys and faults.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from sidecar.core.errors import Fault, PolicyError
from sidecar.core.identity import KeyRecord, read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_Loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_TEXT, _BOOL, _DATE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"
_SHAPE: Final = "expected a key file: `keys:` and a list of `{ id: …, hash: …, customer: …, subject: …, plan: … }`"

# Within quotes only what JSON and YAML both read as it is: printable ASCII without quotes and escapes.
_FIELD: Final = r'[a-z_]+: (?:"[ !#-\[\]-~]*"|true|false)'
_LINE: Final = re.compile(r"  - (\{ (" + _FIELD + "(?:, " + _FIELD + r")*) \})")
_FIELDS: Final = re.compile(r'([a-z_]+): (?:"([^"]*)"|(true|false))')
_HEAD: Final = "keys:\n"


class _Entry(NamedTuple):
    """An entry: its line, the span of its text, its fields and their lines. `fault`: its shape is wrong."""

    line: int
    start: int
    end: int
    values: dict[str, Any]
    lines: dict[str, int]
    fault: str = ""


class _List(NamedTuple):
    """The list of keys: the span of its text, the column of its entries, and whether it is written in brackets."""

    start: int
    end: int
    column: int
    is_flow: bool


class KeyDocument:
    """The text of the key file at `file`. `records` are its keys in order. PolicyError: all of its faults."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._faults: list[Fault] = []
        self._list: _List | None = None
        self._entries = self._read_lines() or self._read_yaml()
        records = [self._record(number, entry) for number, entry in enumerate(self._entries)]
        self.records = [record for record in records if record is not None]
        if not self._faults:
            self._refuse_duplicates()
        if self._faults:
            raise PolicyError(self._faults)

    def with_records(self, records: Iterable[KeyRecord]) -> str:
        """The text with each of these keys in place of the one with the same id, or at the end."""
        places = {known.id: entry for known, entry in zip(self.records, self._entries, strict=True)}
        edits: list[tuple[int, int, str]] = []  # start and end of the text to replace
        added = []
        for record in records:
            if (place := places.get(record.id)) is not None:
                edits.append((place.start, place.end, _flow(record)))
            else:
                added.append(_flow(record))
        if added:
            edits.append(self._addition(added))
        parts, end = [], 0
        for start, stop, text in sorted(edits):
            parts += [self._text[end:start], text]
            end = stop
        return "".join([*parts, self._text[end:]])

    def _addition(self, texts: Sequence[str]) -> tuple[int, int, str]:
        """The edit that adds entries after the last one."""
        if self._list is None:
            return len(self._text), len(self._text), _HEAD + "".join([f"  - {text}\n" for text in texts])
        if not self._entries:
            start, end = len(self._text[: self._list.start].rstrip()), self._list.end
            end += len(self._text[end:]) - len(self._text[end:].lstrip())
            return start, end, "".join([f"\n  - {text}" for text in texts]) + "\n"
        last = self._entries[-1].end
        if self._list.is_flow:
            return last, last, "".join([f",\n  {text}" for text in texts])
        line_end = self._text.find("\n", last)
        end = len(self._text) if line_end < 0 else line_end
        indent = " " * self._list.column
        return end, end, "".join([f"\n{indent}- {text}" for text in texts]) + "\n" * (line_end < 0)

    def _read_lines(self) -> list[_Entry]:
        """The entries of a file in the commands' own form; [] for every other file."""
        if not self._text.startswith(_HEAD):
            return []
        entries: list[_Entry] = []
        offset = len(_HEAD)
        for number, line in enumerate(self._text[offset:].split("\n"), 2):
            match = _LINE.fullmatch(line)
            fields = _FIELDS.findall(match[2]) if match is not None else []
            values = {name: text if not flag else flag == "true" for name, text, flag in fields}
            if match is not None and len(values) == len(fields):
                start = offset + match.start(1)
                entries.append(_Entry(number, start, offset + match.end(1), values, dict.fromkeys(values, number)))
            elif line:
                return []
            offset += len(line) + 1
        self._list = _List(len(_HEAD) + 2, len(self._text), 2, is_flow=False)
        return entries

    def _read_yaml(self) -> list[_Entry]:
        node = self._find_list()
        if node is None:
            return []
        self._list = _List(node.start_mark.index, node.end_mark.index, node.start_mark.column, bool(node.flow_style))
        return [_entry(item) for item in node.value]

    def _find_list(self) -> Any:
        """The node of the list of keys; None in an empty file."""
        try:
            root = yaml.compose(self._text, _Loader)
        except yaml.MarkedYAMLError as error:
            # The parser's own message quotes the text around the place, hashes included.
            mark = error.problem_mark or error.context_mark
            self._fault(
                mark.line + 1 if mark else 0, "", "is not YAML from here on; check indents, quotes and brackets"
            )
            return None
        except yaml.YAMLError:
            self._fault(0, "", "is not YAML: it has characters that YAML does not allow")
            return None
        if root is None:
            return None
        pairs = root.value if isinstance(root, yaml.MappingNode) else []
        if len(pairs) != 1 or pairs[0][0].value != "keys" or not isinstance(pairs[0][1], yaml.SequenceNode):
            self._fault(root.start_mark.line + 1, "", _SHAPE)
            return None
        return pairs[0][1]

    def _record(self, number: int, entry: _Entry) -> KeyRecord | None:
        if entry.fault:
            self._fault(entry.line, f"keys[{number}]", entry.fault)
        if entry.fault == _SHAPE:
            return None
        record, faults = read_record(entry.values)
        for name, what in faults:
            field = f".{name}" if name in KeyRecord.__slots__ else ""  # an unknown name may be a misplaced secret
            self._fault(entry.lines.get(name, entry.line), f"keys[{number}]{field}", what)
        return record

    def _refuse_duplicates(self) -> None:
        seen: dict[str, int] = {}
        for number, (record, entry) in enumerate(zip(self.records, self._entries, strict=True)):
            for field, value in (("id", record.id), ("hash", record.hash)):
                first = seen.setdefault(f"{field} {value}", number)
                if first != number:
                    what = f"{field} is the same as that of keys[{first}]; each key needs its own"
                    self._fault(entry.line, f"keys[{number}]", what)

    def _fault(self, line: int, where: str, what: str) -> None:
        self._faults.append(Fault(self._file, line, where, what))


def _entry(node: Any) -> _Entry:
    line, start = node.start_mark.line + 1, node.start_mark.index
    if not isinstance(node, yaml.MappingNode):
        return _Entry(line, start, start, {}, {}, _SHAPE)
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    fault = ""
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        if name in values:
            line, fault = key.start_mark.line + 1, "has the same field twice"
        values[name] = _value(value)
        lines[name] = key.start_mark.line + 1
    return _Entry(line, start, _end(node), values, lines, fault)


def _value(node: Any) -> Any:
    """Text, a boolean, or None for anything else; dates stay text."""
    if not isinstance(node, yaml.ScalarNode):
        return None
    if node.tag == _BOOL:
        return {"true": True, "false": False}.get(node.value.lower())
    return node.value if node.tag in {_TEXT, _DATE} else None


def _end(node: Any) -> int:
    """The end of a node's own text; the end mark of a block collection is after the comments that follow it."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _flow(record: KeyRecord) -> str:
    """The entry on one line. JSON's scalars are valid YAML."""
    return "{ " + ", ".join(f"{name}: {json.dumps(value)}" for name, value in record.stored().items()) + " }"
