from importlib.metadata import version

from sidecar.cli import versions
from sidecar.control.build_variant import build_variant


def test_llhttp_is_named_by_the_release_that_carries_it_and_never_guessed(monkeypatch):
    monkeypatch.setattr(versions, "version", lambda _: "0.8.3")
    assert versions.llhttp() == "9.4.1"
    monkeypatch.setattr(versions, "version", lambda _: "0.99.0")
    assert versions.llhttp() == ">= 9.4.1"


def test_the_line_names_every_part():
    line = versions.line()
    assert all(f"{part} {version(part)}" in line for part in versions.PARTS)
    assert f" ({build_variant()}, Python 3." in line
