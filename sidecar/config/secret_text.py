"""Texts with references to secrets: `"Bearer ${API_KEY}"` to the environment, `"${file:/run/secrets/key}"` to a file.

A text keeps its references, and the values are given to `fill`: settings can be read, shown and copied without them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

HIDDEN: Final = "**********"
FILE: Final = "file:"
VARIABLE: Final = "$"  # what a source in the environment begins with; a path is absolute, or relative without it

_REFERENCE: Final = re.compile(r"(?<!\$)\$\{([^}]*)\}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOW: Final = "write ${NAME} for an environment variable, ${file:/run/secrets/key} for a file, and $${ for a plain ${"


class SecretText(NamedTuple):
    """`texts` with the values of `sources` between them: `$NAME` is a variable, all others are paths of files.

    No textual form of it shows the texts: people write secrets out too.
    """

    texts: tuple[str, ...]
    sources: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return HIDDEN

    def __str__(self) -> str:
        return HIDDEN

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it refers to."""
        return tuple(Path(source) for source in self.sources if not source.startswith(VARIABLE))

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with the values of its sources."""
        parts = [self.texts[0]]
        for source, text in zip(self.sources, self.texts[1:], strict=True):
            parts += (values[source], text)
        return "".join(parts)


def parse_secret_text(value: Any, base: Path | None = None) -> Any:
    """The text of a document; a number is its digits. ValueError never repeats it: it may be a secret."""
    if isinstance(value, SecretText):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("should be a text")  # noqa: TRY004 - pydantic reports values, not types
    texts = _REFERENCE.split(str(value))
    sources = [_source(reference, base) for reference in texts[1::2]]
    plain = texts[::2]
    if any("${" in text.replace("$${", "") for text in plain):
        raise ValueError(f"has a reference without an end: {_HOW}")
    return SecretText(tuple(text.replace("$${", "${") for text in plain), tuple(sources))


def _source(reference: str, base: Path | None) -> str:
    if reference.startswith(FILE) and len(reference) > len(FILE):
        path = Path(reference.removeprefix(FILE))
        return str(path if base is None else base / path)
    if not _NAME.fullmatch(reference):
        raise ValueError(f"has a reference that is neither a variable nor a file: {_HOW}")
    return VARIABLE + reference
