"""What a child is told. Its life, from the first word to the exit status, is run by test_processes.py."""

import subprocess
import sys

import pytest

from sidecar.app.processes import start_of
from sidecar.config.models import Model
from sidecar.config.settings import load_settings
from sidecar.supervisor.child import PlainSettings, unpack_settings

# What only reads and judges documents, serves the control listener, ships, or draws tables.
UNWANTED = {"pydantic", "aiohttp", "aiokafka", "prometheus_client", "rich", "jsonschema"}
FULL = """
tls: { cert: a.pem, key: b.pem }
upstreams: { one: { urls: "https://a:1, http://b:2" } }
keys: { file: keys.yaml, pepper: salt }
redis: { url: "redis://user:word@127.0.0.1:6379/3", nodes: 2 }
kafka: { bootstrap_servers: "127.0.0.1:9092", security: { protocol: SASL_SSL, username: u, password: word } }
trusted_proxies: [10.0.0.0/8]
"""


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "sidecar.yaml").write_text(FULL)
    return load_settings(tmp_path / "sidecar.yaml", {})


def same(ours, theirs):
    """Every field and every property of a model has its like; what is no model is equal."""
    if isinstance(ours, Model):
        assert type(theirs) is PlainSettings
        names = [*type(ours).model_fields, *(name for name, it in vars(type(ours)).items() if isinstance(it, property))]
        for name in names:
            same(getattr(ours, name), getattr(theirs, name))
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            same(value, theirs[name])
    elif hasattr(ours, "get_secret_value"):
        assert ours.get_secret_value() == theirs.get_secret_value()
    else:
        assert ours == theirs


# Mutation: what models work out (`redis.endpoint`) is left behind.
def test_a_child_is_told_all_that_the_settings_say(settings):
    same(settings, unpack_settings(start_of(settings)))


def test_no_textual_form_of_what_it_is_told_shows_a_password(settings):
    found = unpack_settings(start_of(settings))
    for one in (found, found.keys, found.keys.pepper, found.redis, found.kafka.security):
        assert "word" not in f"{one} {one!r}".replace("password", "")
        assert "salt" not in f"{one} {one!r}"


@pytest.mark.parametrize("module", ["sidecar.app.worker", "sidecar.app.shipping"])
def test_a_child_has_nothing_in_memory_that_it_does_not_need(module):
    # A worker had 71 MiB with them, and has 44.
    unwanted = UNWANTED if module == "sidecar.app.worker" else UNWANTED - {"aiokafka"}
    code = f"import sys, sidecar.cli.children, {module}; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert unwanted & {name.partition(".")[0] for name in found.split()} == set()
