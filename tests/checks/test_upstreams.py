import socket

import pytest

from sidecar.checks import upstreams
from sidecar.checks.upstreams import report, unreachable, warnings
from sidecar.config.settings import load_settings


def settings_of(tmp_path, *lines):
    (tmp_path / "sidecar.yaml").write_text("\n".join(["upstreams:", *lines, ""]))
    return load_settings(tmp_path / "sidecar.yaml", {})


def test_headers_are_named_and_never_shown(tmp_path):
    # Fails if a value gets into the report, written out or not.
    lines = ['  api: { urls: "https://a/v1", host: upstream, headers: { A: sk-live-1 }, remove_headers: [B] }']
    settings = settings_of(tmp_path, *lines)
    assert report(settings) == [
        {"id": "api", "urls": ["https://a:443/v1"], "host": "upstream", "sets": ["A"], "removes": ["B"]}
    ]


@pytest.mark.parametrize(
    ("upstream", "said"),
    [
        ("{ urls: 'https://api.example' }", "upstream api: https://api.example:443 gets the Host field of the client"),
        ("{ urls: 'https://api.example', host: preserve }", None),
        ("{ urls: 'https://api.example', host: upstream }", None),
        ("{ urls: 'https://10.0.0.1' }", None),
        ("{ urls: 'http://api.example' }", None),
        (
            "{ urls: 'http://api.example', headers: { A: '${B}' } }",
            "upstream api: the secrets in its headers go to http",
        ),
        ("{ urls: 'http://api:9000', headers: { A: '${B}' } }", None),
        ("{ urls: 'http://10.1.2.3', headers: { A: '${B}' } }", None),
        ("{ urls: 'http://8.8.8.8', headers: { A: '${B}' } }", "upstream api: the secrets in its headers go to http"),
        ("{ urls: 'http://api.example', headers: { X-Version: '2' } }", None),
    ],
)
def test_what_is_rarely_meant_is_a_warning(tmp_path, monkeypatch, upstream, said):
    monkeypatch.setattr(upstreams, "system_authorities", lambda: True)
    lines = warnings(settings_of(tmp_path, f"  api: {upstream}"))
    assert [line[: len(said or "")] for line in lines] == ([] if said is None else [said])


@pytest.mark.parametrize(
    ("upstream", "warns"),
    [
        ("{ urls: 'https://api.example', host: upstream }", True),
        ("{ urls: 'https://api.example', host: upstream, tls: { ca: ca.pem } }", False),
        ("{ urls: 'https://api.example', host: upstream, tls: { verify: false } }", False),
        ("{ urls: 'http://api.example' }", False),
    ],
)
def test_a_machine_without_authorities_is_a_warning_where_they_are_needed(tmp_path, monkeypatch, upstream, warns):
    monkeypatch.setattr(upstreams, "system_authorities", lambda: False)
    assert [line[:13] for line in warnings(settings_of(tmp_path, f"  api: {upstream}"))] == ["upstreams api"] * warns


# Fails if an upstream that is away is first noticed by its clients.
async def test_an_address_that_takes_no_connection_is_a_warning_with_its_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        file = tmp_path / "sidecar.yaml"
        file.write_text(
            "upstreams:\n"
            f'  default: {{ urls: ["http://127.0.0.1:{port}", "http://127.0.0.1:1"] }}\n'
            f'  other: {{ urls: ["unix:{tmp_path}/none.sock"] }}\n'
        )
        settings = load_settings(file, {})
        found = await unreachable(settings)
    remedy, missing = "start it, or correct the address", "no such file or directory"
    assert found == [
        f"{file}:2: upstreams.default.urls[1]: http://127.0.0.1:1 takes no connection (connection refused): {remedy}",
        f"{file}:3: upstreams.other.urls[0]: unix:{tmp_path}/none.sock takes no connection ({missing}): {remedy}",
    ]
