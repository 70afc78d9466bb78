"""Which wheel is measured: that of the sources as they are."""

import pytest

from benchmarks import compiled

SOURCES = ["hatch_build.py", "sidecar/gateway/exchange.py", "sidecar/edge/redis/lua/reserve.lua"]


@pytest.fixture
def tree(tmp_path):
    for name in (*SOURCES, "tests/test_it.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("name", SOURCES)
def test_one_byte_of_what_the_wheel_is_made_of_is_another_state(tree, name):
    before = compiled.state(tree)
    (tree / name).write_text(name + " ")
    assert compiled.state(tree) != before


def test_a_module_that_moved_is_another_state(tree):
    before = compiled.state(tree)
    (tree / "sidecar/gateway/exchange.py").rename(tree / "sidecar/gateway/exchanged.py")
    assert compiled.state(tree) != before


def test_what_is_not_in_the_wheel_makes_no_other_state(tree):
    before = compiled.state(tree)
    (tree / "tests/test_it.py").write_text("changed")
    (tree / "sidecar/__pycache__").mkdir()
    (tree / "sidecar/__pycache__/exchange.pyc").touch()
    assert compiled.state(tree) == before


@pytest.mark.parametrize(
    ("lacking", "said"),
    [("cc", "no C compiler on this machine: apt-get install gcc"), ("Python.h", "apt-get install python3-dev")],
)
def test_what_a_compiler_needs_and_is_not_there_is_named_with_its_package(monkeypatch, lacking, said):
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None if name == lacking else f"/bin/{name}")
    monkeypatch.setattr(compiled, "_version", lambda _: "")
    assert said in compiled.missing.__wrapped__()
