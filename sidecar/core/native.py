"""What the compiler is told of a class (docs/adr/0005); to the interpreter it is nothing.

mypy's own words, by their names: it knows them by where they come from, and nobody has to install it to run us.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_said: bool) -> Any:
        """`allow_interpreted_subclasses`: classes that are not compiled may have it for a base, as doubles in tests."""
        return lambda cls: cls


__all__ = ["mypyc_attr"]
