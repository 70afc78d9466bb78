"""Read a YAML document with the line of every value. Duplicate keys are faults; all faults are reported together.

The scalars are those of YAML 1.2: `no` and `on` are words, 010 is not eight, 1:30 is not ninety. Aliases are expanded
within a bound, tags and merge keys are refused. This module does not depend on the meaning of a document.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sidecar.config import units
from sidecar.core.errors import Fault, PolicyError, unreadable

MAX_FILE_BYTES: Final = 4 << 20
MAX_VALUES: Final = 200_000  # after aliases are expanded: a "billion laughs" stops here
MAX_DEPTH: Final = 32
MAX_NAMES: Final = 50  # listed in a message
MAX_DIGITS: Final = 100  # of a number; Python itself refuses to read more than 4,300

Loc = tuple[str | int, ...]
_BARE_IPV6: Final = re.compile(r"[\s,\[](\[[0-9A-Fa-f:.]+\]:\d+)")
_Base: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader  # the first takes a tenth of the time


class Position(NamedTuple):
    """The file (or the environment variable) and the line of a value; line 0: none."""

    file: str
    line: int


class Document(NamedTuple):
    """A document's plain data, and the position of each value by its path. `digest`: SHA-256 of its text, in hex."""

    file: str
    data: Any
    positions: dict[Loc, Position]
    digest: str = ""

    def position(self, loc: Loc) -> Position:
        """The position of `loc`, or of the nearest enclosing value that the document has."""
        for end in range(len(loc), 0, -1):
            for path in _spellings(loc[:end]):
                if path in self.positions:
                    return self.positions[path]
        return self.positions.get((), Position(self.file, 0))

    def fault(self, loc: Loc, what: str) -> Fault:
        """The fault `what` at `loc`."""
        file, line = self.position(loc)
        return Fault(file, line, dotted(self.written(loc)), what)

    def written(self, loc: Loc) -> Loc:
        """`loc` in the names of the document: `cap` where it has `cap: 1GiB`, and where it has neither spelling."""
        path: Loc = ()
        for part in loc:
            spellings = list(_spellings((*path, part)))
            path = next((each for each in spellings if each in self.positions), spellings[-1])
        return path


class _Loader(_Base):  # type: ignore[misc]
    """Composes nodes without the types of YAML 1.1: the tag of a value is the one that the document writes, or ""."""

    def resolve(self, _kind: type[Node], _value: str | None, _implicit: Any) -> str:
        return ""

    def descend_resolver(self, _node: Node | None, _index: Any) -> None:
        """Path resolvers are not used."""

    def ascend_resolver(self) -> None:
        """Path resolvers are not used."""


def read(path: Path, text: str | None = None) -> Document:
    """The file at `path` (or `text`, with that path in faults). PolicyError: it is not one plain YAML document."""
    file = str(path)
    try:
        source = path.read_bytes().decode() if text is None else text
    except OSError as error:
        raise PolicyError([Fault(file, 0, "", unreadable(error))]) from error
    except UnicodeDecodeError as error:
        raise PolicyError([Fault(file, 0, "", f"is not UTF-8 text: {error.reason} at byte {error.start}")]) from error
    if len(source) > MAX_FILE_BYTES:
        raise PolicyError([Fault(file, 0, "", f"is larger than {MAX_FILE_BYTES >> 20} MiB")])
    reader = _Reader(file)
    try:
        node = yaml.compose(source, Loader=_Loader)
        data = {} if node is None else reader.value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "nesting depth" in str(error.problem):  # libyaml's own bound, which is larger than ours
            raise PolicyError([Fault(file, 0, "", f"is nested more than {MAX_DEPTH} deep")]) from None
        line = min(mark.line, source.rstrip("\n").count("\n")) + 1 if mark else 0  # libyaml: the end is a line further
        hint = _hint("".join(source.splitlines()[line - 1 : line]), str(error.problem))
        raise PolicyError([Fault(file, line, "", f"is not YAML: {error.problem}{hint}")]) from error
    except yaml.YAMLError as error:
        raise PolicyError([Fault(file, 0, "", f"is not YAML: {error}")]) from error
    except RecursionError:
        raise PolicyError([Fault(file, 0, "", f"is nested more than {MAX_DEPTH} deep")]) from None
    if reader.faults:
        raise PolicyError(reader.faults)
    return Document(file, data, reader.positions, sha256(source.encode()).hexdigest())


def _hint(line: str, problem: str) -> str:
    """The likely fault of a line that is not YAML, as the end of a sentence; "" for an unknown one."""
    indent = line[: len(line) - len(line.lstrip())]
    bare = _BARE_IPV6.search(line)
    if "\t" in indent:
        return "; the line begins with a tab: indent with spaces"
    if bare:
        return f'; an IPv6 address is written in quotes: "{bare[1]}"'
    if "mapping values are not allowed" in problem or "block" in problem:
        return "; check the indents of this line and of those above, and the colons in it"
    return ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown `name`: the nearest known one, or the first of all."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    return f"known: {', '.join(names[:MAX_NAMES])}{more}" if names else "none are defined"


def dotted(loc: Loc) -> str:
    """`("a", 0, "b")` as `a[0].b`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


class _Reader:
    """One walk over the nodes: values and positions together."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.positions: dict[Loc, Position] = {}
        self.faults: list[Fault] = []
        self._left = MAX_VALUES

    def value(self, node: Node, loc: Loc) -> Any:
        if loc not in self.positions:
            self.positions[loc] = Position(self.file, node.start_mark.line + 1)
        self._left -= 1
        if self._left < 0 or len(loc) > MAX_DEPTH:
            bound = f"more than {MAX_VALUES} values" if self._left < 0 else f"nested more than {MAX_DEPTH} deep"
            raise PolicyError([Fault(self.file, node.start_mark.line + 1, dotted(loc[:4]), f"is {bound}")])
        if node.tag:
            what = f"tags such as {node.tag} are not supported: write a plain value"
            self.faults.append(Fault(self.file, node.start_mark.line + 1, dotted(loc), what))
            return None
        if isinstance(node, MappingNode):
            return self._mapping(node, loc)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
        value = _scalar(node)
        if value is _TOO_LONG:
            what = f"is a number of more than {MAX_DIGITS} digits"
            self.faults.append(Fault(self.file, node.start_mark.line + 1, dotted(loc), what))
            return None
        return value

    def _mapping(self, node: MappingNode, loc: Loc) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, item in node.value:
            name = key.value if isinstance(key, ScalarNode) else None
            line = key.start_mark.line + 1
            if name is None or name == "<<":
                what = "merge keys are not supported: write the fields out" if name else "a key must be a plain word"
                self.faults.append(Fault(self.file, line, dotted(loc), what))
            elif name in data:
                first = self.positions[(*loc, name)].line
                what = f"is given twice (first on line {first}): keep one"
                self.faults.append(Fault(self.file, line, dotted((*loc, name)), what))
            else:
                self.positions[(*loc, name)] = Position(self.file, line)
                data[name] = self.value(item, (*loc, name))
        return data


def _scalar(node: Node) -> Any:
    """The value of a scalar; `_TOO_LONG` for a number of too many digits."""
    text: str = node.value
    is_plain = isinstance(node, ScalarNode) and not node.style
    match = _SCALAR.fullmatch(text) if is_plain else None
    return _SCALARS[match.lastindex or 0](text) if match is not None else text


def _number(text: str) -> Any:
    return int(text.replace("_", "")) if len(text) <= MAX_DIGITS else _TOO_LONG


_TOO_LONG: Final = object()
_SCALAR: Final = re.compile(
    r"(|~|null|Null|NULL)|(true|True|TRUE)|(false|False|FALSE)"
    r"|([-+]?(?:0|[1-9][0-9_]*))|([-+]?[0-9]*\.[0-9]+(?:[eE][-+]?[0-9]+)?)"
)
_SCALARS: Final[tuple[Callable[[str], Any], ...]] = (  # by the number of the group that matched
    str, lambda _: None, lambda _: True, lambda _: False, _number, float,
)  # fmt: skip


def _spellings(loc: Loc) -> Iterable[Loc]:
    """`loc` as the model names it and as the document may have written it, without the unit."""
    yield loc
    last = loc[-1]
    suffix = units.suffix_of(last) if isinstance(last, str) else None
    if suffix is not None:
        yield (*loc[:-1], str(last).removesuffix(suffix))
