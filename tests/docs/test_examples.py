"""Every YAML example of the README and of docs/ loads as it is, and every command in them exists with its options."""

import re
from pathlib import Path

import click
import pytest

from sidecar.cli import cli
from sidecar.config.compile import load as load_policy
from sidecar.config.settings import Settings, load_settings
from sidecar.edge.keys.file_keys import KeyFile

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def found(pattern):
    """Each match of `pattern`, as a case that is named by its page and line."""
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
            yield pytest.param(match[1], id=f"{page.name}:{text.count(chr(10), 0, match.start()) + 1}")


EXAMPLES = list(found(r"^```yaml\n(.*?)^```"))
COMMANDS = [*found(r"^(?: {4}|[A-Z_]+=\S+ )?(sidecar [^\n]*)"), *found(r"`(sidecar [a-z][^`\n]*)`")]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_valid(example, tmp_path):  # Fails if `limits` of a policy is written outside its plan.
    (path := tmp_path / "example.yaml").write_text(example.replace("sha256:…", "sha256:" + 64 * "0"))
    names = set(re.findall(r"^(\w+):", example, re.MULTILINE))
    if names == {"keys"} and "- {" in example:
        assert KeyFile(path).records()
    elif names <= set(Settings.model_fields):
        load_settings(path, {})
    else:
        load_policy(path, {"default"})


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_exists_with_its_options(line):  # Fails if `--within` of `records find` is renamed.
    words = re.sub(r"\s#.*|[\[\]]|[|<>].*", "", line).split()[1:]
    command, context = cli, click.Context(cli)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        command = command.get_command(context, name)
        assert command is not None, name
    options = {name for option in command.get_params(context) for name in option.opts}
    assert {word for word in words if re.match("--?[a-z]", word)} <= options


def test_the_pages_are_read():
    assert len(EXAMPLES) > 20
    assert len(COMMANDS) > 60
