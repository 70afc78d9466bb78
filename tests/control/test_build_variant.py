from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from sidecar.control.build_variant import COMPILED, PURE, build_variant
from sidecar.gateway import exchange


def test_what_is_said_is_what_is_loaded():
    assert (build_variant() == COMPILED) is exchange.__file__.endswith(tuple(EXTENSION_SUFFIXES))


@pytest.mark.parametrize(("more", "said"), [((), PURE), ((f"exchange{EXTENSION_SUFFIXES[0]}",), COMPILED)])
def test_a_compiled_module_goes_before_its_source(tmp_path, more, said):
    for name in ("exchange.py", *more):
        (tmp_path / name).touch()
    assert build_variant(tmp_path) == said
