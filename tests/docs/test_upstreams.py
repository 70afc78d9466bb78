"""What docs/upstreams.md and the README show of upstreams can be loaded as it is."""

import re
from pathlib import Path

import pytest

from sidecar.config.settings import load_settings
from sidecar.config.upstreams import Upstream
from sidecar.loading.documents import load_policies
from sidecar.loading.header_secrets import read_secrets

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/upstreams.md").read_text()
README = (ROOT / "README.md").read_text()
KEYS = {"OPENAI_API_KEY": "a", "GEMINI_API_KEY": "b"}


def yaml_after(text, heading):
    return re.findall(r"```yaml\n(.*?)```", text.partition(heading)[2], re.DOTALL)


def test_the_example_of_the_page_is_valid(tmp_path):
    (secret := tmp_path / "anthropic").write_text("c")
    [example] = yaml_after(PAGE, "# Upstreams")
    (tmp_path / "sidecar.yaml").write_text(example.replace("/run/secrets/anthropic", str(secret)))
    settings = load_settings(tmp_path / "sidecar.yaml", {})
    assert set(read_secrets(settings, KEYS).values()) == {"a", "b", "c"}
    assert set(settings.upstreams) == {"default", "openai", "anthropic", "gemini"}


def test_the_second_example_of_the_readme_is_valid(tmp_path):
    settings_yaml, policy_yaml = yaml_after(README, "## In front of a vendor's API")[:2]
    (tmp_path / "sidecar.yaml").write_text(settings_yaml)
    (tmp_path / "policy.yaml").write_text(policy_yaml)
    settings = load_settings(tmp_path / "sidecar.yaml", {})
    assert read_secrets(settings, KEYS) == {"$OPENAI_API_KEY": "a"}
    policy = load_policies(settings).policy
    assert policy.match("POST", "/v1/chat/completions").usage == "openai"


@pytest.mark.parametrize("field", Upstream.model_fields)
def test_every_field_is_in_the_table(field):  # Fails if `remove_headers` is taken out of the page.
    assert f"\n| `{field}` | " in PAGE
