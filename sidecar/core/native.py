"""Attributes of classes for the compiler, mypyc (docs/adr/0005). The interpreter ignores them.

mypyc recognises `mypy_extensions.mypyc_attr` by its module. It is imported for type checking only, so the package need
not be installed to run the sidecar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_attributes: bool) -> Any:
        """`allow_interpreted_subclasses`: the class may be the base of classes that are not compiled, as in tests."""
        return lambda cls: cls


__all__ = ["mypyc_attr"]
