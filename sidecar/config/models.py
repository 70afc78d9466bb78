"""The base model of documents: unknown fields are faults, quantities may carry their unit, faults name their line.

All faults are reported together. A model's `moved_fields` maps a field that people expect in it, although it belongs in
another place, to the advice for it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Tag, ValidationError, ValidationInfo, field_validator, model_validator

from sidecar.config import units
from sidecar.config.document import Document, Loc, did_you_mean
from sidecar.config.patterns import RIGHT
from sidecar.core.errors import Fault, PolicyError

if TYPE_CHECKING:
    from pydantic.config import JsonDict
    from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)


PLAIN_DEFAULTS: Final = ConfigDict(validate_default=False)
"""For parts of which a policy has thousands, and whose defaults need no conversion: validation takes half the time."""


def _for_people(schema: JsonDict, model: type[BaseModel]) -> None:
    """Let the JSON Schema of `model` describe its fields, and take `timeout: 50ms` beside `timeout_ms: 50`."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return
    for name, text in _attribute_docstrings(model).items():
        field = properties.get(model.model_fields[name].alias or name)
        if isinstance(field, dict):
            field.setdefault("description", text)
    for name in list(properties):
        suffix = units.suffix_of(name)
        if suffix is not None:
            description = f"whole {units.SUFFIXES[suffix][2]}, with its unit"
            properties[name.removesuffix(suffix)] = {
                "anyOf": [{"type": ["string", "null"]}, {"const": 0}],
                "description": description,
            }


def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The text under each field, by its name.

    pydantic's `use_attribute_docstrings` reads the source of every model at each start, which is a quarter of it.
    """
    texts: dict[str, str] = {}
    for each in model.__mro__[::-1]:
        if issubclass(each, Model) and each is not Model:
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
            for field, below in pairwise(getattr(definition, "body", ())):
                match field, below:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                        texts[name] = inspect.cleandoc(text)
    return {name: text for name, text in texts.items() if name in model.model_fields}


class Model(BaseModel):
    """The base of every document: unknown fields are faults, and quantities may be written with their unit."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        defer_build=True,  # a model is built as a part of its document, and not by itself before
        revalidate_instances="always",
        json_schema_extra=_for_people,
    )

    @model_validator(mode="before")
    @classmethod
    def _short_to_long(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.keys() <= cls.__pydantic_fields__.keys():
            return data
        twice = [key for key in data if _long_name(cls, key) != key and _long_name(cls, key) in data]
        if twice:
            raise ValueError(f"'{twice[0]}' and '{_long_name(cls, twice[0])}' are the same setting: keep one")
        return {_long_name(cls, key): _marked(cls, key, value) for key, value in data.items()}

    @field_validator("*", mode="before")
    @classmethod
    def _quantities(cls, value: Any, info: ValidationInfo) -> Any:
        suffix = units.suffix_of(info.field_name or "")
        return value if suffix is None or value is None else units.quantity(value, suffix)


def validate(model: type[M], document: Document, context: dict[str, Any] | None = None) -> M:
    """The document as a `model`. PolicyError with a fault for every value that is wrong."""
    try:
        return model.model_validate(document.data, context=context)
    except ValidationError as error:
        details = [detail for detail in error.errors(include_url=False) if not _follows(detail)]
        faults = {_fault(model, document, detail): None for detail in details}
        raise PolicyError(sorted(faults, key=lambda fault: (fault.file, fault.line))) from None


def _long_name(model: type[BaseModel], name: str) -> str:
    """The field that `name` means: itself, or itself with a unit."""
    if name in model.model_fields:
        return name
    return next((name + suffix for suffix in units.SUFFIXES if name + suffix in model.model_fields), name)


def _marked(model: type[BaseModel], name: str, value: Any) -> Any:
    """A bare number under a name without a unit is marked, so that its validation can ask for one."""
    bare = (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value.isdigit())
    return units.Unitless(value) if bare and value not in (0, "0") and _long_name(model, name) != name else value


_MESSAGES: Final = {
    "missing": "is missing",
    "too_short": "is empty: give at least one",
    "model_type": "should be a mapping of fields to values",
    "dict_type": "should be a mapping of names to values",
    "tuple_type": "should be a list",
    "too_long": "has more than {max_length}: leave some out",
}

_TYPES: Final = {
    "int_parsing": "should be a whole number",
    "int_type": "should be a whole number",
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
    "string_type": "should be a text",
}


def _follows(detail: ErrorDetails) -> bool:
    """A list whose items are wrong is then too short as well: that is not a fault of its own."""
    return detail["type"] == "too_short" and len(detail["input"]) > 0


def _fault(model: type[BaseModel], document: Document, detail: ErrorDetails) -> Fault:
    path, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    loc = tuple(part for part in path if not str(part).startswith(("[key]", "<")))  # nothing that was written
    if kind == "extra_forbidden":
        return document.fault(loc, _no_field(_model_at(model, path[:-1]), str(loc[-1])))
    if kind in _MESSAGES:
        return document.fault(loc, _MESSAGES[kind].format(**context))
    if context.get("pattern") in RIGHT:
        return document.fault(loc, f"'{detail['input']}' is not right: write {RIGHT[context['pattern']]}")
    if kind == "value_error":
        return document.fault(loc, str(context.get("error", detail["msg"])))
    given = f", not {detail['input']!r}" if isinstance(detail["input"], str | int | float | None) else ""
    return document.fault(loc, _TYPES.get(kind, detail["msg"].replace("Input should", "should")) + given)


def _no_field(model: Any, name: str) -> str:
    """The fault of a field that `model` does not have: where it belongs, or the nearest name."""
    moved_fields: dict[str, str] = getattr(model, "moved_fields", {})
    if name in moved_fields:
        return f"does not belong here: {moved_fields[name]}"
    return f"is not known here; {did_you_mean(name, _fields_of(model))}"


def _fields_of(model: Any) -> list[str]:
    """The names of a model's fields as people write them, with units left out."""
    fields = model.model_fields if isinstance(model, type) and issubclass(model, BaseModel) else {}
    return [field.alias or name.removesuffix(units.suffix_of(name) or "") for name, field in fields.items()]


def _model_at(model: Any, path: Loc) -> Any:
    for part in path:
        tagged = isinstance(part, str) and part.startswith("<")
        model = _tagged(model, Tag(str(part))) if tagged else _step(_present(model), part)
    return _present(model)


def _tagged(annotation: Any, tag: Tag) -> Any:
    """The option of a union that bears `tag`, as pydantic names it in the path of a fault."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated and tag in arguments[1:]:
        return annotation
    return next((match for option in arguments if (match := _tagged(option, tag)) is not None), None)


def _present(model: Any) -> Any:
    """The option that is a mapping or list in `X | None` or `str | X`, without its annotations."""
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
    if isinstance(model, type) and issubclass(model, BaseModel):
        return next((f.annotation for name, f in model.model_fields.items() if part in (name, f.alias)), None)
    return None
