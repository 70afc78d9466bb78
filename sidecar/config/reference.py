"""The reference of all settings, docs/settings.md, from their model: nothing of it is written by hand.

A field's row has the description under it in the model, with its example behind "Example:". Without one the
example is the default with its unit, the opposite of a switch, or the last choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sidecar.config import units
from sidecar.config.settings import PREFIX, settings_schema

Json = dict[str, Any]

COLUMNS: Final = ("setting", "type", "default", "unit", "example", "environment variable", "meaning")
NAME: Final = "NAME"  # stands for the name of an entry, as in upstreams.NAME.urls
_PIPE: Final = "\\|"  # within a cell
_MARK: Final = "Example: "
_WORDS: Final = {
    "path": "path",
    "password": "secret",
    "object": "mapping",
    "string": "text",
    "boolean": "`true`, `false`",
    "integer": "integer",
}


class Row(NamedTuple):
    """One setting. `path` are the names from the top; `default` is None where it has none that is fixed."""

    path: tuple[str, ...]
    type: str
    default: str | None
    unit: str
    example: str
    meaning: str
    optional: bool

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return PREFIX + "__".join(self.path).upper()

    @property
    def written(self) -> str:
        """The last name as documents write it, without the unit."""
        return self.path[-1].removesuffix(units.suffix_of(self.path[-1]) or "")


class Section(NamedTuple):
    """The settings of one model. `path` is empty for those at the top."""

    path: tuple[str, ...]
    about: str
    rows: tuple[Row, ...]


def sections() -> Iterator[Section]:
    """Every section in the order of the model, each before those inside it."""
    schema = settings_schema()
    return _sections((), schema, schema["$defs"])


def settings_table() -> str:
    """The body of docs/settings.md, in Markdown: one table for each section."""
    return "\n\n".join(_table(section) for section in sections())


def _table(section: Section) -> str:
    head = f"## `{'.'.join(section.path)}`" if section.path else "## At the top"
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(cell.replace('|', _PIPE) for cell in _cells(row))} |" for row in section.rows]
    return "\n\n".join([head, section.about, *(["\n".join(lines)] if section.rows else [])])


def _cells(row: Row) -> tuple[str, ...]:
    absent = "-" if row.optional else "required"
    default = absent if row.default is None else f"`{row.default}`"
    name, example = f"`{'.'.join(row.path)}`", f"`{row.written}: {row.example}`"
    return name, row.type, default, row.unit, example, f"`{row.variable}`", row.meaning


def _sections(path: tuple[str, ...], schema: Json, defs: Json) -> Iterator[Section]:
    rows, inner = list[Row](), list[tuple[tuple[str, ...], Json]]()
    for name, field in schema["properties"].items():
        if _is_short(name, schema["properties"]):
            continue
        option = _resolved(field, defs)
        entry = _resolved(next(iter(option.get("patternProperties", {}).values()), {}), defs)
        if "properties" in option:
            inner.append(((*path, name), option))
        elif "properties" in entry:
            inner.append(((*path, name, NAME), entry))
        else:
            rows.append(_row((*path, name), field, name not in schema.get("required", ()), defs))
    yield Section(path, schema.get("description", ""), tuple(rows))
    for inner_path, model in inner:
        yield from _sections(inner_path, model, defs)


def _is_short(name: str, properties: Json) -> bool:
    """Whether `name` is another spelling of a field: `timeout` of `timeout_ms`."""
    return any(name + suffix in properties for suffix in units.SUFFIXES)


def _options(schema: Json, defs: Json) -> list[Json]:
    """The schemas that a value may be of, without null."""
    if "$ref" in schema:
        return _options(defs[schema["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in schema:
        return [option for each in schema["anyOf"] for option in _options(each, defs)]
    return [] if schema.get("type") == "null" else [schema]


def _resolved(schema: Json, defs: Json) -> Json:
    """The mapping that a value may be, or else its first option."""
    options = _options(schema, defs)
    return next((option for option in options if "properties" in option), options[0] if options else {})


def _row(path: tuple[str, ...], field: Json, optional: bool, defs: Json) -> Row:
    options = _options(field, defs)
    suffix = units.suffix_of(path[-1])
    default = _written(field["default"], suffix) if field.get("default") is not None else None
    meaning, _, example = field.get("description", "").replace("\n", " ").partition(_MARK)
    types = dict.fromkeys(_type(option, defs) for option in options)
    return Row(
        path,
        " or ".join(types),
        default,
        units.SUFFIXES[suffix][2] if suffix else "",
        example.strip("`") or _example(options[0], field.get("default"), default),
        meaning.strip(),
        optional,
    )


def _type(schema: Json, defs: Json) -> str:
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{each}`" for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        items = dict.fromkeys(_type(option, defs) for option in _options(schema.get("items", {}), defs))
        return f"list of {' or '.join(items)}"
    word = _WORDS.get(schema.get("format", ""), _WORDS.get(schema.get("type", ""), "any"))
    return word + _bounds(schema)


def _bounds(schema: Json) -> str:
    if schema.get("type") != "integer" or "maximum" not in schema:
        return ""
    high = schema["maximum"]
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    return f", {low} or more" if high == 2**53 - 1 else f", {low} to {high}"


def _written(value: Any, suffix: str | None) -> str:
    """A default as documents write it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and suffix is not None:
        return units.text(value, suffix)
    if isinstance(value, dict | list | tuple):
        return "{}" if isinstance(value, dict) and not value else str(list(value)).replace("'", "")
    return f'"{value}"' if isinstance(value, str) and value.replace(".", "").isdigit() else str(value)


def _example(option: Json, value: Any, default: str | None) -> str:
    if isinstance(value, bool):
        return str(not value).lower()
    if "enum" in option:
        return _written(option["enum"][-1], None)
    return default or ""
