"""Mirrors sidecar/loading/exposure.py."""

import os

import pytest

from sidecar.config.settings import load_settings
from sidecar.loading.exposure import AS_ROOT, warnings

SETTINGS = """\
keys: { file: keys.yaml }
tls: { cert: tls.crt, key: tls.key }
upstreams:
  api: { urls: "http://h:1", headers: { X-Key: "${file:header}" } }
kafka: { bootstrap_servers: "h:1", security: { protocol: SASL_SSL, mechanism: OAUTHBEARER, token_file: token } }
"""
FILES = {
    "keys.yaml": "keys.file",
    "tls.key": "tls.key",
    "header": "headers of upstreams",
    "token": "kafka.security.token_file",
}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (tmp_path / "sidecar.yaml").write_text(SETTINGS)
    for name in (*FILES, "tls.crt"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o644 if name == "tls.crt" else 0o640)
    return load_settings(tmp_path / "sidecar.yaml", {})


def test_files_that_the_owner_and_a_group_can_read_and_certificates_give_no_warnings(settings):
    assert warnings(settings) == []


# Fails if one kind of secret file is left out.
@pytest.mark.parametrize(("name", "setting"), FILES.items())
def test_a_secret_that_others_can_read_is_named_with_the_command_that_ends_it(settings, tmp_path, name, setting):
    path = tmp_path / name
    path.chmod(0o644)
    assert warnings(settings) == [
        f"{setting}: {path} holds secrets, and all users of this machine can read it: chmod o= {path}"
    ]
    path.unlink()
    assert warnings(settings) == []


def test_root_is_a_warning(settings, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert warnings(settings) == [AS_ROOT]
