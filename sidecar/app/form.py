"""Which form of the data path runs here: compiled, where the wheel was built so, else pure.

Asked of the import system, by the rule that it loads by, and nothing is imported for the answer.
"""

from __future__ import annotations

from importlib.machinery import ExtensionFileLoader, PathFinder
from pathlib import Path

COMPILED, PURE = "compiled", "pure"
_GATEWAY = Path(__file__).parents[1] / "gateway"


def form(folder: Path = _GATEWAY) -> str:
    """COMPILED or PURE: what `exchange` is in this folder. It speaks for all: what is compiled is one group."""
    spec = PathFinder.find_spec("exchange", [str(folder)])
    return COMPILED if spec is not None and isinstance(spec.loader, ExtensionFileLoader) else PURE
