"""How many connections of clients the descriptors of a worker allow."""

import resource

import pytest

from sidecar.config.settings import load_settings
from sidecar.listening import descriptors

UPSTREAMS = """\
policies: p.yaml
keys: {{ file: keys.yaml }}
upstreams: {{ default: {{ urls: [{urls}], pool: {{ size: 100 }} }} }}
http: {{ max_connections: {most} }}
"""
BESIDE = descriptors.FILES + descriptors.SOCKETS


@pytest.fixture
def settings(tmp_path):
    def load(urls=1, most=0):
        text = UPSTREAMS.format(urls=", ".join(f"http://127.0.0.1:{9000 + each}" for each in range(urls)), most=most)
        (tmp_path / "sidecar.yaml").write_text(text)
        return load_settings(tmp_path / "sidecar.yaml", {})

    return load


@pytest.fixture(autouse=True)
def limited(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (1_000, 4_000))


# Fails if pools are left out: connections to upstreams would fail where clients have all descriptors.
def test_clients_have_the_descriptors_that_pools_and_files_do_not_need(settings):
    assert descriptors.max_connections(settings()) == 1_000 - 100 - BESIDE
    assert descriptors.max_connections(settings(urls=2)) == 1_000 - 200 - BESIDE
    assert descriptors.warnings(settings(urls=2)) == []


def test_large_pools_leave_half_of_the_descriptors_to_clients_with_a_warning(settings):
    assert descriptors.max_connections(settings(urls=9)) == 500
    [warning] = descriptors.warnings(settings(urls=9))
    assert warning.startswith(
        f"http.max_connections: 500 connections of clients, and {900 + BESIDE} descriptors for `pool.size` and files: "
        "a worker may open 1000. Raise the limit"
    )


def test_a_number_in_the_settings_is_taken_as_it_is_and_warned_of_where_it_is_too_large(settings):
    assert descriptors.max_connections(settings(most=7)) == 7
    assert descriptors.warnings(settings(most=7)) == []
    assert descriptors.max_connections(settings(most=950)) == 950
    assert len(descriptors.warnings(settings(most=950))) == 1


def test_without_a_limit_a_million_are_counted_on(settings, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert descriptors.max_connections(settings()) == (1 << 20) - 100 - BESIDE
