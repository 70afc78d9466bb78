"""What the wheels hold. .ci/compiled shows that the compiled one keeps its promises, by the data path's own tests."""

import ast
import os
import re
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOK = ROOT / "hatch_build.py"
# Where each module is on the way of a request until somebody says why it need not be compiled.
HOT = ("core/http", "core/limits", "core/record", "edge/journal", "edge/leases", "gateway")


@pytest.fixture(scope="module")
def hook():
    return runpy.run_path(str(HOOK))


def modules():
    found = [path for folder in HOT for path in (ROOT / "sidecar" / folder).glob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found if path.name != "__init__.py")


@pytest.mark.parametrize("module", modules())
def test_a_module_on_the_way_of_a_request_is_compiled_or_it_is_said_why_not(hook, module):
    assert (module in hook["COMPILED"]) != (module in hook["LEFT_OUT"])


def test_the_lists_name_what_is_there(hook):
    assert [name for name in (*hook["COMPILED"], *hook["LEFT_OUT"]) if not (ROOT / name).exists()] == []


def test_what_mypyc_takes_no_dataclass_in_has_none(hook):
    # mypyc 2.4 makes a class with `slots=True` twice, and the compiled methods belong to the first.
    dataclass = re.compile(r"^@dataclass\(.*slots=True", re.MULTILINE)
    assert [name for name in hook["COMPILED"] if dataclass.search((ROOT / name).read_text())] == []


def test_bytes_are_cut_by_their_bounds_where_it_is_compiled(hook):
    # mypyc 2.4 takes a slice that was made before, as in `frame[ID]`, for a number: what a full disk owed was lost.
    made = re.compile(r"\bslice\(")
    assert [name for name in hook["COMPILED"] if made.search((ROOT / name).read_text())] == []


def test_a_named_tuple_names_no_type_that_is_not_there_yet(hook):
    # mypyc 2.4 looks at the types of the fields when it makes one: where their module was not loaded, that is a crash.
    def missing(tree):
        blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        unseen = {alias.name for block in blocks for node in block.body for alias in getattr(node, "names", ())}
        tuples = [
            node
            for node in tree.body
            if isinstance(node, ast.ClassDef) and "NamedTuple" in map(ast.unparse, node.bases)
        ]
        fields = [field.annotation for each in tuples for field in each.body if isinstance(field, ast.AnnAssign)]
        return unseen & {name.id for field in fields for name in ast.walk(field) if isinstance(name, ast.Name)}

    found = {name: missing(ast.parse((ROOT / name).read_text())) for name in hook["COMPILED"]}
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize(("said", "meant"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_it_is_compiled_only_where_it_is_asked_for(hook, monkeypatch, said, meant):
    monkeypatch.delenv("SIDECAR_COMPILE", raising=False)
    if said is not None:
        monkeypatch.setenv("SIDECAR_COMPILE", said)
    assert hook["is_requested"]() is meant


def test_a_word_that_is_neither_yes_nor_no_is_refused(hook, monkeypatch):
    monkeypatch.setenv("SIDECAR_COMPILE", "yes")
    with pytest.raises(ValueError, match="SIDECAR_COMPILE=yes: set 1"):
        hook["is_requested"]()


def test_a_wheel_that_nobody_asked_to_compile_is_pure(tmp_path):
    clean = {name: value for name, value in os.environ.items() if name != "SIDECAR_COMPILE"}
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    words = ["wheel", "--quiet", *offline, "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, env=clean, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    held = zipfile.ZipFile(wheel).namelist()
    assert [name for name in held if name.endswith(".so")] == []
    assert {"sidecar/gateway/exchange.py", "sidecar/edge/redis/lua/reserve.lua"} <= set(held)
