"""The lock files: all that pyproject.toml asks for is pinned, with hashes, and nothing says from where it comes."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("run", "build", "dev")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(lock):
    """(requirement, its hashes) of a lock file; a requirement may stand there several times, with other markers."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    parts = [re.split(r"\s+--hash=", line.strip()) for line in lines]
    return [(Requirement(pin), hashes) for pin, *hashes in parts]


def asked(lock):
    groups = PROJECT["dependency-groups"]
    names = {"run": (), "build": ("build",), "dev": ("build", "dev")}[lock]
    texts = [text for name in names for text in groups[name] if isinstance(text, str)]
    return [Requirement(text) for text in (*texts, *(PROJECT["project"]["dependencies"] if lock != "build" else ()))]


@pytest.mark.parametrize("lock", LOCKS)
def test_each_pin_is_one_version_with_hashes_of_sha_256(lock):
    for pin, hashes in pins(lock):
        assert [each.operator for each in pin.specifier] == ["=="], pin
        assert hashes, pin
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), pin


@pytest.mark.parametrize("lock", LOCKS)
def test_what_the_project_asks_for_is_pinned_to_a_version_that_it_allows(lock):
    # Fails if a bound in pyproject.toml is raised, or a dependency added, without `make lock`.
    held = {}
    for pin, _ in pins(lock):
        held.setdefault(canonicalize_name(pin.name), []).append(next(iter(pin.specifier)).version)
    for wanted in asked(lock):
        versions = held.get(canonicalize_name(wanted.name), [])
        assert versions, f"{wanted} is not in requirements/{lock}.txt: make lock"
        assert all(wanted.specifier.contains(version, prereleases=True) for version in versions), (wanted, versions)


def test_the_three_files_pin_the_same_versions():
    everything = {(pin.name, str(pin.specifier)) for pin, _ in pins("dev")}
    for lock in ("run", "build"):
        assert {(pin.name, str(pin.specifier)) for pin, _ in pins(lock)} <= everything


@pytest.mark.parametrize("lock", LOCKS)
def test_no_registry_is_named(lock):
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    assert re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", text) is None


def test_the_compiler_that_the_build_hook_names_is_the_one_that_is_pinned():
    held = {pin.name: pin.specifier for pin, _ in pins("build")}
    for text in runpy.run_path(str(ROOT / "hatch_build.py"))["NEEDS"]:
        needed = Requirement(text)
        assert needed.specifier.contains(next(iter(held[needed.name])).version), needed
