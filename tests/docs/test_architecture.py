"""docs/architecture.md names files and functions: each of them exists, and no package is left out."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
CODE = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))
DIAGRAMS = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
WORDS = {word for text in [*CODE, *DIAGRAMS] for word in re.findall(r"[\w./-]+", text)}
FILE = re.compile(r"[\w-]+\.(py|md|json|jsonl|toml|lua|yaml)")
TOPICS = {"usage.records", "usage.denials", "usage.positions"}

PATHS = sorted(word for word in WORDS if re.match(r"(sidecar|tests|docs|policies)/", word) and "NAME" not in word)
MODULES = [path for path in PATHS if path.startswith("sidecar/") and path.endswith(".py")]
NAMES = sorted(
    word for word in WORDS - TOPICS if re.fullmatch(r"[a-z_0-9]+(\.\w+)+", word) and not FILE.fullmatch(word)
)


@cache
def defined(path):
    """The names that a module defines: `name`, and `Class.name` of classes."""
    names = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        for name in names_of(node):
            names.add(name)
            names |= {f"{name}.{member}" for each in getattr(node, "body", ()) for member in names_of(each)}
    return names


def names_of(node):
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def test_the_page_is_read():
    assert len(PATHS) > 50
    assert len(NAMES) > 50


@pytest.mark.parametrize("path", PATHS)
def test_every_path_exists(path):  # Fails if `sidecar/gateway/guard.py` is renamed.
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_function_exists_in_a_module_that_the_page_names(name):  # Fails if `end_faulty` is renamed.
    module, _, inside = name.partition(".")
    paths = [path for path in MODULES if Path(path).stem == module]
    assert paths, f"name the path of {module}.py on the page, or write {name} in another way"
    assert any(inside in defined(path) for path in paths), f"{paths} define no {inside}"


def test_every_package_is_in_the_layout():
    packages = {path.parent.relative_to(ROOT).as_posix() + "/" for path in (ROOT / "sidecar").glob("*/**/__init__.py")}
    listed = set(re.findall(r"^\| `(sidecar/[^`]+/)` \|", PAGE, re.MULTILINE))
    assert packages == listed
