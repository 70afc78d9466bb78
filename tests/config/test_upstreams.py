"""Mirrors sidecar/config/upstreams.py."""

import pickle

import pytest

from sidecar.config.addresses import Url
from sidecar.config.settings import load_settings
from sidecar.config.upstreams import Pool, Upstream
from sidecar.core.errors import PolicyError


@pytest.fixture
def load(tmp_path):
    def load(upstream, env=None):
        (tmp_path / "sidecar.yaml").write_text(f"upstreams:\n  api:\n    urls: https://api.example/v1\n{upstream}")
        return load_settings(tmp_path / "sidecar.yaml", env or {})

    return load


def faults(load, upstream):
    with pytest.raises(PolicyError) as caught:
        load(upstream)
    return [str(fault).partition("sidecar.yaml:")[2] for fault in caught.value.faults]


def test_an_idle_upstream_connection_goes_before_common_servers_close_it():
    assert Pool().idle_ms < 5_000


def test_one_url_may_be_written_for_a_list_of_one():
    one = Url(tls=False, host="a", port=1)
    assert Upstream(urls="http://a:1").urls == Upstream(urls=["http://a:1"]).urls == (one,)


def test_an_upstream_says_as_whom_it_is_asked_and_what_it_gets(load):
    settings = load(
        '    host: API.example\n    headers: { Authorization: "Bearer ${KEY}" }\n    remove_headers: [Cookie]\n'
    )
    api = settings.upstreams["api"]
    assert api.urls == (Url(tls=True, host="api.example", port=443, base="/v1"),)
    assert (api.host, api.remove_headers) == ("api.example", ("Cookie",))
    assert api.headers["Authorization"].fill({"$KEY": "x"}) == "Bearer x"


@pytest.mark.parametrize("host", ["preserve", "upstream"])
def test_the_host_may_be_the_client_s_or_the_address_s_own(load, host):
    assert load(f"    host: {host}\n").upstreams["api"].host == host


# Fails if a value is shown by repr, str, JSON or a plain dump: settings end up in logs and error reports.
def test_no_form_of_the_settings_shows_what_is_in_a_header(load):
    settings = load('    headers: { Authorization: "Bearer sk-live-1" }\n')
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "live" not in shown
    text = settings.upstreams["api"].headers["Authorization"]
    assert pickle.loads(pickle.dumps(text)).fill({}) == "Bearer sk-live-1"  # noqa: S301 - of our own making


def test_a_header_from_the_environment_replaces_that_of_the_file(load):
    settings = load("    headers: { x-key: a }\n", {"SIDECAR_UPSTREAMS__API__HEADERS__X-KEY": "b"})
    assert settings.upstreams["api"].headers["x-key"].fill({}) == "b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("    host: https://api.example\n", "4: upstreams.api.host: should be `preserve`, `upstream` or a host name"),
        ("    headers: { Host: a }\n", "4: upstreams.api.headers.Host: Host cannot be set or removed: write `host:"),
        (
            "    headers: { A: ok, content-Length: 1 }\n",
            "4: upstreams.api.headers.content-Length: content-Length cannot be set",
        ),
        ("    headers:\n      Key: a\n      key: b\n", "6: upstreams.api.headers.key: key is named twice (as Key)"),
        (
            "    headers: { Key: a }\n    remove_headers: [key]\n",
            "5: upstreams.api.remove_headers[0]: key is named twice",
        ),
        ("    remove_headers: via\n", "4: upstreams.api.remove_headers[0]: via cannot be set"),
        ("    headers: { Key: }\n", "4: upstreams.api.headers.Key: should be a text"),
        ('    headers: { Key: "${sk-live-1}" }\n', "4: upstreams.api.headers.Key: has a reference that is neither"),
        ("    headers: { 'a b': c }\n", "4: upstreams.api.headers.a b: 'a b' is not right: write the name of a header"),
        (
            "    tls: { server_name: 'a b' }\n",
            "4: upstreams.api.tls.server_name: 'a b' is not right: write the name of",
        ),
    ],
)
def test_what_cannot_be_sent_is_a_fault_at_its_line(load, text, said):
    [fault] = faults(load, text)
    assert fault.startswith(said)
    assert "live" not in fault
