"""The version of the sidecar, and whether the data path that runs here is compiled or pure Python.

For the variant, the import system is asked, by the rule by which it loads modules; nothing is imported for the answer.
"""

from __future__ import annotations

from importlib.machinery import ExtensionFileLoader, PathFinder
from importlib.metadata import version
from pathlib import Path
from typing import Final

VERSION: Final = version("metering-sidecar")
COMPILED, PURE = "compiled", "pure"
_GATEWAY = Path(__file__).parents[1] / "gateway"


def build_variant(folder: Path = _GATEWAY) -> str:
    """COMPILED or PURE: how `exchange` in this folder is loaded. All modules are compiled together, or none."""
    spec = PathFinder.find_spec("exchange", [str(folder)])
    return COMPILED if spec is not None and isinstance(spec.loader, ExtensionFileLoader) else PURE
