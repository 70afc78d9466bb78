"""A YAML document is read once, with the line of every value; a key is said once; all faults are reported at once.

The scalars are those of YAML 1.2: `no` and `on` are words, 010 is not eight, 1:30 is not ninety. Aliases are expanded
within a bound, tags and merge keys are refused. Nothing here knows what a document means.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sidecar.config import units
from sidecar.config.patterns import RIGHT
from sidecar.core.errors import Fault, PolicyError

if TYPE_CHECKING:
    from pydantic.config import JsonDict
    from pydantic_core import ErrorDetails

MAX_FILE_BYTES: Final = 4 << 20
MAX_VALUES: Final = 200_000  # after aliases are expanded: a "billion laughs" stops here
MAX_DEPTH: Final = 32

Loc = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


class Place(NamedTuple):
    """Where a value was written: the file (or the environment variable) and its line, 0 where there is none."""

    file: str
    line: int


class Document(NamedTuple):
    """A document's plain data, and the place of each value by its path."""

    file: str
    data: Any
    places: dict[Loc, Place]

    def place(self, loc: Loc) -> Place:
        """The place of `loc`, or of the nearest thing around it that was written."""
        for end in range(len(loc), 0, -1):
            for path in _spellings(loc[:end]):
                if path in self.places:
                    return self.places[path]
        return self.places.get((), Place(self.file, 0))

    def fault(self, loc: Loc, what: str) -> Fault:
        """`what` is wrong at `loc`."""
        file, line = self.place(loc)
        return Fault(file, line, dotted(loc), what)


def _short_names(schema: JsonDict) -> None:
    """Let the JSON Schema take `timeout: 50ms` beside `timeout_ms: 50`."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return
    for name in list(properties):
        suffix = units.suffix_of(name)
        if suffix is not None:
            said = f"whole {units.SUFFIXES[suffix][2]}, with its unit"
            properties[name.removesuffix(suffix)] = {
                "anyOf": [{"type": ["string", "null"]}, {"const": 0}],
                "description": said,
            }


class Model(BaseModel):
    """The base of every document: unknown fields are faults, and quantities may be written with their unit."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        revalidate_instances="always",
        json_schema_extra=_short_names,
    )

    @model_validator(mode="before")
    @classmethod
    def _short_to_long(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        twice = [key for key in data if _long_name(cls, key) != key and _long_name(cls, key) in data]
        if twice:
            raise ValueError(f"'{twice[0]}' and '{_long_name(cls, twice[0])}' are the same setting: keep one")
        return {_long_name(cls, key): _carry(cls, key, value) for key, value in data.items()}

    @field_validator("*", mode="before")
    @classmethod
    def _quantities(cls, value: Any, info: ValidationInfo) -> Any:
        suffix = units.suffix_of(info.field_name or "")
        return value if suffix is None or value is None else units.quantity(value, suffix)


def read(path: Path, text: str | None = None) -> Document:
    """The file at `path` (or `text`, said to be from there). PolicyError where it is not one plain YAML document."""
    file = str(path)
    try:
        source = path.read_bytes().decode() if text is None else text
    except OSError as error:
        raise PolicyError([Fault(file, 0, "", f"cannot be read: {error.strerror or error}")]) from error
    except UnicodeDecodeError as error:
        raise PolicyError([Fault(file, 0, "", f"is not UTF-8 text: {error.reason} at byte {error.start}")]) from error
    if len(source) > MAX_FILE_BYTES:
        raise PolicyError([Fault(file, 0, "", f"is larger than {MAX_FILE_BYTES >> 20} MiB")])
    reader = _Reader(file)
    try:
        node = yaml.compose(source, Loader=yaml.SafeLoader)
        data = {} if node is None else reader.value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise PolicyError([Fault(file, mark.line + 1 if mark else 0, "", f"is not YAML: {error.problem}")]) from error
    except yaml.YAMLError as error:
        raise PolicyError([Fault(file, 0, "", f"is not YAML: {error}")]) from error
    except RecursionError:
        raise PolicyError([Fault(file, 0, "", f"is nested more than {MAX_DEPTH} deep")]) from None
    if reader.faults:
        raise PolicyError(reader.faults)
    return Document(file, data, reader.places)


def validate(model: type[M], document: Document, context: dict[str, Any] | None = None) -> M:
    """The document as a `model`. PolicyError with a fault for every value that is wrong."""
    try:
        return model.model_validate(document.data, context=context)
    except ValidationError as error:
        told = [detail for detail in error.errors(include_url=False) if not _follows(detail)]
        found = {_fault(model, document, detail): None for detail in told}
        raise PolicyError(sorted(found, key=lambda fault: (fault.file, fault.line))) from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown `name`: the nearest known one, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(names)}" if names else "none are defined"


def dotted(loc: Loc) -> str:
    """`("a", 0, "b")` as `a[0].b`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


class _Reader:
    """One walk over the nodes: values and places together."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[Loc, Place] = {}
        self.faults: list[Fault] = []
        self._left = MAX_VALUES

    def value(self, node: Node, loc: Loc) -> Any:
        self.places.setdefault(loc, Place(self.file, node.start_mark.line + 1))
        self._left -= 1
        if self._left < 0 or len(loc) > MAX_DEPTH:
            bound = f"more than {MAX_VALUES} values" if self._left < 0 else f"nested more than {MAX_DEPTH} deep"
            raise PolicyError([Fault(self.file, node.start_mark.line + 1, dotted(loc[:4]), f"is {bound}")])
        if node.tag not in _PLAIN_TAGS:
            what = f"tags such as {node.tag} are not supported: write a plain value"
            self.faults.append(Fault(self.file, node.start_mark.line + 1, dotted(loc), what))
            return None
        if isinstance(node, MappingNode):
            return self._mapping(node, loc)
        if isinstance(node, SequenceNode):
            return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: MappingNode, loc: Loc) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, item in node.value:
            name = key.value if isinstance(key, ScalarNode) else None
            line = key.start_mark.line + 1
            if name is None or name == "<<":
                what = "merge keys are not supported: write the fields out" if name else "a key must be a plain word"
                self.faults.append(Fault(self.file, line, dotted(loc), what))
            elif name in data:
                first = self.places[(*loc, name)].line
                what = f"is given twice (first on line {first}): keep one"
                self.faults.append(Fault(self.file, line, dotted((*loc, name)), what))
            else:
                self.places[(*loc, name)] = Place(self.file, line)
                data[name] = self.value(item, (*loc, name))
        return data


def _scalar(node: Node) -> Any:
    text: str = node.value
    plain = isinstance(node, ScalarNode) and node.style is None
    return next((make(text) for form, make in _SCALARS if form.fullmatch(text)), text) if plain else text


# A tag that the YAML 1.1 resolver found by itself; anything else was written by hand.
_PLAIN_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq")
)
_SCALARS: Final[tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...]] = (
    (re.compile(r"|~|null|Null|NULL"), lambda _: None),
    (re.compile(r"true|True|TRUE"), lambda _: True),
    (re.compile(r"false|False|FALSE"), lambda _: False),
    (re.compile(r"[-+]?(0|[1-9][0-9_]*)"), lambda text: int(text.replace("_", ""))),
    (re.compile(r"[-+]?[0-9]*\.[0-9]+([eE][-+]?[0-9]+)?"), float),
)


def _long_name(model: type[BaseModel], name: str) -> str:
    """The field that `name` means: itself, or itself with a unit."""
    if name in model.model_fields:
        return name
    return next((name + suffix for suffix in units.SUFFIXES if name + suffix in model.model_fields), name)


def _carry(model: type[BaseModel], name: str, value: Any) -> Any:
    """A bare number under a name without a unit is marked, so that its validation can ask for one."""
    bare = (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value.isdigit())
    return units.Unitless(value) if bare and value not in (0, "0") and _long_name(model, name) != name else value


def _spellings(loc: Loc) -> Iterable[Loc]:
    """`loc` as the model names it and as the document may have written it, without the unit."""
    yield loc
    last = loc[-1]
    suffix = units.suffix_of(last) if isinstance(last, str) else None
    if suffix is not None:
        yield (*loc[:-1], str(last).removesuffix(suffix))


_SAID: Final = {
    "missing": "is missing",
    "too_short": "is empty: give at least one",
    "model_type": "should be a mapping of fields to values",
    "dict_type": "should be a mapping of names to values",
    "tuple_type": "should be a list",
}


def _follows(detail: ErrorDetails) -> bool:
    """A list whose items are wrong is then too short as well: that is not a fault of its own."""
    return detail["type"] == "too_short" and len(detail["input"]) > 0


def _fault(model: type[BaseModel], document: Document, detail: ErrorDetails) -> Fault:
    loc, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    loc = tuple(part for part in loc if not str(part).startswith(("[key]", "<")))  # nothing that was written
    if kind == "extra_forbidden":
        later = getattr(_model_at(model, loc[:-1]), "later", {})
        if loc[-1] in later:
            return document.fault(loc, f"is not available yet: {later[loc[-1]]}")
        return document.fault(loc, f"is not known here; {did_you_mean(str(loc[-1]), _fields_at(model, loc[:-1]))}")
    if kind in _SAID:
        return document.fault(loc, _SAID[kind])
    if context.get("pattern") in RIGHT:
        return document.fault(loc, f"'{detail['input']}' is not right: write {RIGHT[context['pattern']]}")
    if kind == "value_error":
        return document.fault(loc, str(context.get("error", detail["msg"])))
    said = f", not {detail['input']!r}" if isinstance(detail["input"], str | int | float | None) else ""
    return document.fault(loc, detail["msg"].replace("Input should", "should") + said)


def _fields_at(model: Any, loc: Loc) -> list[str]:
    """The names that may stand at `loc`, with units left out as people write them."""
    model = _model_at(model, loc)
    names = model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else ()
    return [name.removesuffix(units.suffix_of(name) or "") for name in names]


def _model_at(model: Any, loc: Loc) -> Any:
    for part in loc:
        model = _step(_present(model), part)
    return _present(model)


def _present(model: Any) -> Any:
    """What is written as a mapping or list in `X | None` or `str | X`, without its annotations."""
    if get_origin(model) is Annotated:
        return _present(get_args(model)[0])
    if get_origin(model) not in (Union, types.UnionType):
        return model
    options = [_present(option) for option in get_args(model)]
    return next((option for option in options if option not in (type(None), str, int)), None)


def _step(model: Any, part: str | int) -> Any:
    """The annotation one step inside `model`."""
    origin, arguments = get_origin(model), get_args(model)
    if origin is not None:
        named = isinstance(origin, type) and issubclass(origin, Mapping)
        return arguments[1] if named else arguments[0]
    if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
        return model.model_fields[str(part)].annotation
    return None
