from importlib.machinery import EXTENSION_SUFFIXES

from sidecar.app.form import COMPILED, PURE, form
from sidecar.gateway import exchange


def test_what_is_said_is_what_is_loaded():
    assert (form() == COMPILED) is exchange.__file__.endswith(tuple(EXTENSION_SUFFIXES))


def test_a_compiled_module_goes_before_its_source(tmp_path):
    (tmp_path / "exchange.py").touch()
    assert form(tmp_path) == PURE
    (tmp_path / f"exchange{EXTENSION_SUFFIXES[0]}").touch()
    assert form(tmp_path) == COMPILED
