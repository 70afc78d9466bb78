"""Mirrors sidecar/config/sections.py."""

import pytest
from pydantic import ValidationError

from sidecar.config.addresses import Address
from sidecar.config.sections import Http, Kafka, Keys, Redis, Security


def test_the_http_bounds_are_those_that_a_metering_proxy_owes():
    http = Http()
    assert (http.head_bytes, http.fields, http.field_bytes, http.target_bytes) == (32_768, 100, 8_192, 8_192)
    assert (http.head_timeout_ms, http.idle_timeout_ms) == (10_000, 75_000)


def test_redis_is_not_waited_for_longer_than_fifty_milliseconds():
    assert Redis(url="redis://h").timeout_ms == 50  # envoyproxy/ratelimit #462


def test_secrets_do_not_show_in_what_is_printed():
    shown = repr((Redis(url="redis://:hunter2@h"), Keys(pepper="hunter2"), Security(password="hunter2")))
    assert "hunter2" not in shown


def test_a_redis_url_is_taken_apart():
    assert Redis(url="redis://h:1/2").endpoint.hosts == (Address("h", 1),)


# Fails if a setting of redis.tls is left out, or reaches a connection without TLS.
def test_tls_settings_are_part_of_the_endpoint_where_it_speaks_tls():
    tls = {"ca": "ca.pem", "cert": "own.pem", "key": "own.key", "verify": False}
    names = {"ssl_ca_certs": "ca.pem", "ssl_certfile": "own.pem", "ssl_keyfile": "own.key"}
    endpoint = Redis(url="rediss://h", tls=tls).endpoint
    assert dict(endpoint.ssl) == names | {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    assert Redis(url="rediss://h").endpoint.ssl == ()
    assert Redis(url="redis://h", tls=tls).endpoint.ssl == ()


def test_brokers_may_be_a_text_or_a_list():
    assert Kafka(bootstrap_servers=["a:1", "b:2"]).bootstrap_servers == "a:1,b:2"
    assert Kafka(bootstrap_servers="a:1,b:2").bootstrap_servers == "a:1,b:2"


@pytest.mark.parametrize("wrong", ["a", "a:1,", "", [], 5])
def test_brokers_without_ports_are_refused(wrong):
    with pytest.raises(ValidationError):
        Kafka(bootstrap_servers=wrong)
