"""Mirrors sidecar/config/settings.py."""

import pickle
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from sidecar.config.addresses import Address, Url
from sidecar.config.settings import load_settings, settings_schema
from sidecar.core.errors import PolicyError

WRITE_A_UNIT = "write for example 50ms, 10s or 5m, or put the unit into the name: …_ms: 50"
WHOLE = """\
listen: 127.0.0.1:8080
control: { listen: 127.0.0.1:8081 }
workers: 1
upstreams:
  default: { urls: ["http://127.0.0.1:9000"] }
policies: policies/
keys: { file: keys.yaml }                                    # or { redis: true }
redis: { url: "redis://127.0.0.1:6379/0" }                   # absent: in-memory counters
kafka: { bootstrap_servers: "127.0.0.1:9092" }               # absent: records go to sink.file
journal: { dir: data/journal, durability: os }
sink: { file: data/records.jsonl }
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "sidecar.yaml"
        path.write_text(text)
        return path

    return write


def faults(path, env=None):
    with pytest.raises(PolicyError) as caught:
        load_settings(path, env or {})
    return [str(fault).replace(f"{path}:", "") if path else str(fault) for fault in caught.value.faults]


def test_without_a_file_everything_is_embedded(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = load_settings(None, {})
    assert (settings.redis, settings.kafka, settings.workers) == (None, None, 1)
    assert settings.listen == (Address("127.0.0.1", 8080),)
    assert settings.control.listen == (Address("127.0.0.1", 8081),)
    assert settings.upstreams["default"].urls == (Url(tls=False, host="127.0.0.1", port=9000),)
    assert settings.keys.file == tmp_path / "keys.yaml"
    assert settings.sink.file == tmp_path / "data/records.jsonl"
    assert (settings.ratelimit_headers, settings.x_ratelimit_headers) == (True, False)
    assert (settings.checkpoint_seconds, settings.journal.on_full) == (5, "reject")


def test_the_whole_example_is_read(write):
    settings = load_settings(write(WHOLE), {})
    assert settings.redis.endpoint.hosts == (Address("127.0.0.1", 6379),)
    assert settings.kafka.bootstrap_servers == "127.0.0.1:9092"
    assert settings.kafka.topics.records == "usage.records"


def test_relative_paths_are_relative_to_the_file_defaults_included(write, tmp_path):
    # Fails if nested defaults are not validated with the file's folder (`revalidate_instances`).
    settings = load_settings(write("policies: p\ntls: {cert: /etc/c.pem, key: k.pem}\n"), {})
    assert settings.policies == tmp_path / "p"
    assert settings.journal.dir == tmp_path / "data/journal"
    assert (settings.tls.cert, settings.tls.key) == (Path("/etc/c.pem"), tmp_path / "k.pem")


def test_quantities_take_human_forms(write):
    settings = load_settings(
        write(
            "journal: {segment: 1MiB, interval: 0.2s}\ndrain: 1min\n"
            "upstreams: {a: {urls: http://a, timeouts: {total: 5s}}}"
        ),
        {},
    )
    assert (settings.journal.segment_bytes, settings.journal.interval_ms, settings.drain_seconds) == (1 << 20, 200, 60)
    assert settings.upstreams["a"].timeouts.total_ms == 5_000


def test_a_bare_number_where_a_unit_is_meant_is_a_fault(write):
    # Kong #14995
    assert faults(write("redis: {url: redis://h, timeout: 50}"))[0].startswith("1: redis.timeout: 50 of what? write")


def test_the_environment_wins_over_the_file(write):
    env = {
        "SIDECAR_REDIS__URL": "redis://other:1/2",
        "SIDECAR_WORKERS": "4",
        "SIDECAR_UPSTREAMS__DEFAULT__URLS": '["http://a:1", "http://b:2"]',
        "SIDECAR_TRUSTED_PROXIES": "10.0.0.0/8, ::1/128",
        "SIDECAR_REGION": "no",
        "SIDECAR_DRAIN": "5s",
        "SIDECAR_JOURNAL__CAP_BYTES": "1GiB",
        "SIDECAR_RATELIMIT_HEADERS": "false",
        "HOME": "/root",
    }
    settings = load_settings(write(WHOLE), env)
    assert settings.redis.endpoint.hosts == (Address("other", 1),)
    assert settings.workers == 4
    assert [url.host for url in settings.upstreams["default"].urls] == ["a", "b"]
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert settings.region == "no"
    assert (settings.drain_seconds, settings.journal.cap_bytes, settings.ratelimit_headers) == (5, 1 << 30, False)
    assert settings.journal.durability == "os"  # its neighbours in the file stay


def test_the_environment_alone_is_enough():
    assert load_settings(None, {"SIDECAR_REDIS__URL": "redis://h"}).redis.url == "redis://h"


def test_a_fault_from_the_environment_names_the_variable(write):
    env = {"SIDECAR_JOURNAL__DURABILITY": "osx", "SIDECAR_REDIS__TIMEOUT": "50", "SIDECAR_WORKER": "1"}
    assert faults(write(WHOLE), env) == [
        "SIDECAR_WORKER: no setting has this name; did you mean 'workers'? (SIDECAR_REDIS__URL sets redis.url)",
        "SIDECAR_JOURNAL__DURABILITY: journal.durability: should be 'os', 'interval' or 'always', not 'osx'",
        f"SIDECAR_REDIS__TIMEOUT: redis.timeout: 50 of what? {WRITE_A_UNIT}",
    ]


def test_a_list_in_the_environment_that_is_not_yaml_names_the_variable():
    with pytest.raises(PolicyError, match="SIDECAR_TRUSTED_PROXIES:1: is not YAML"):
        load_settings(None, {"SIDECAR_TRUSTED_PROXIES": "[1"})


def test_a_kubernetes_service_of_our_name_does_not_break_the_start():
    # Fails if service links are taken for settings.
    env = {
        "SIDECAR_SERVICE_HOST": "10.0.0.1",
        "SIDECAR_SERVICE_PORT": "80",
        "SIDECAR_SERVICE_PORT_HTTP": "80",
        "SIDECAR_PORT": "tcp://10.0.0.1:80",
        "SIDECAR_PORT_80_TCP": "tcp://10.0.0.1:80",
        "SIDECAR_PORT_80_TCP_ADDR": "10.0.0.1",
        "SIDECAR_CONTROL_SERVICE_HOST": "10.0.0.2",
        "SIDECAR_CONFIG": "/etc/sidecar.yaml",
    }
    assert load_settings(None, env).listen == (Address("127.0.0.1", 8080),)


def test_all_faults_of_a_file_are_told_at_once_with_their_lines(write):
    text = (
        "lisen: a:1\nworkers: many\nupstreams:\n  default:\n    urls: [ftp://x]\nkafka: {bootstrap_servers: broker}\n"
    )
    assert faults(write(text)) == [
        "1: lisen: is not known here; did you mean 'listen'?",
        "2: workers: should be a whole number, not 'many'",
        (
            "5: upstreams.default.urls[0]: 'ftp://x' is not an upstream's address: "
            "write http://host:port, https://host:port or unix:/path"
        ),
        "6: kafka.bootstrap_servers: 'broker' is not right: write host:port, several with commas",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "workers: 2",
            "1: workers: 2 workers have in-memory counters that they cannot share: set redis.url or workers: 1",
        ),
        ("keys: {redis: true}", "1: keys.redis: needs redis.url, or set keys.file instead"),
        (
            "redis: {url: redis://h}\nkeys: {redis: true, file: k.yaml}",
            "2: keys.file: is one of two: keep file, or redis: true",
        ),
        (
            "sink: {file: null}",
            "1: sink: records would go nowhere: set sink.file, sink.stdout: true or kafka.bootstrap_servers",
        ),
        (
            "listen: a:1\ncontrol: {listen: a:1}",
            "2: control.listen: a:1 is taken by `listen` (a:1): give the control listener another port",
        ),
        (
            "listen: [':1', ':2']\ncontrol: {listen: '127.0.0.1:2'}",
            "2: control.listen: 127.0.0.1:2 is taken by `listen` (:2): give the control listener another port",
        ),
        ("listen: ['127.0.0.1:1', ':1']", "1: listen: has 127.0.0.1:1 and :1, which overlap: keep one"),
        ("control: {listen: [':1', ':1']}", "1: control.listen: has :1 and :1, which overlap: keep one"),
        ("listen: []", "1: listen: is empty: give at least one"),
        ("listen: 8080", "1: listen: '8080' is not an address: write host:port, for example 127.0.0.1:8080"),
        ("listen:\n  - ':1'\n  - '::1:2'", "3: listen[1]: '::1:2' is not an address: write host:port"),
        (
            "journal: {cap: 64MiB}",
            "1: journal.cap: is less than two segments a worker: raise cap, or lower segment",
        ),
        (
            "workers: 3\nredis: {url: redis://h}\njournal: {cap: 320MiB}",  # fails if the workers are not counted
            "3: journal.cap: is less than two segments a worker: raise cap, or lower segment",
        ),
        (
            "kafka:\n  bootstrap_servers: a:1\n  security: {protocol: SASL_SSL}",
            "3: kafka.security.protocol: needs kafka.security.username and kafka.security.password",
        ),
        ("redis:\n  url: tcp://h", "2: redis.url: is not a Redis URL: write redis://host:6379/0"),
        ("upstreams:\n  a:\n    urls: http://a\n    tls: {key: k}", "4: upstreams.a.tls.key: needs tls.cert beside it"),
        ("upstreams: {}", "1: upstreams: is empty: give at least one"),
        ("- a", "1: is not a mapping"),
        ("region: eu west", "1: region: 'eu west' is not right: write 1 to 63 letters"),
    ],
)
def test_each_fault_says_where_it_is_and_what_would_be_right(write, text, said):
    assert faults(write(text))[0].startswith(said)


def test_two_listeners_may_both_let_the_system_choose_a_port(write):
    settings = load_settings(write("listen: 127.0.0.1:0\ncontrol: {listen: 127.0.0.1:0}"), {})
    assert settings.listen == settings.control.listen == (Address("127.0.0.1", 0),)


@pytest.mark.parametrize(
    ("text", "hosts"), [("[::]:1", ["::"]), ("[::1]:1, :2", ["::1", ""]), ("[fe80::1%lo]:1", ["fe80::1%lo"])]
)
def test_an_ipv6_address_in_the_environment_is_not_a_list(text, hosts):
    # Fails if every text that begins with a bracket is read as YAML.
    assert [each.host for each in load_settings(None, {"SIDECAR_LISTEN": text}).listen] == hosts


@pytest.mark.parametrize("text", [":1,[::1]:2", '[":1", "[::1]:2"]'])
def test_several_addresses_come_from_the_environment_with_commas_or_as_a_list(text):
    assert load_settings(None, {"SIDECAR_LISTEN": text}).listen == (Address("", 1), Address("::1", 2))


def test_the_node_s_name_is_always_a_name(monkeypatch):
    for host, node in (("gw 3.example", "gw-3.example"), ("", "node"), ("-x", "x")):
        monkeypatch.setattr("platform.node", lambda host=host: host)
        assert load_settings(None, {}).node == node


def test_settings_can_be_handed_to_a_child():
    settings = load_settings(None, {"SIDECAR_REDIS__URL": "redis://h"})
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - our own bytes


def test_the_schema_takes_the_example_and_refuses_a_misspelt_one():
    schema = settings_schema()
    Draft202012Validator.check_schema(schema)
    checker = Draft202012Validator(schema)
    assert list(checker.iter_errors(yaml.safe_load(WHOLE + "drain: 30s\n"))) == []
    assert list(checker.iter_errors({"lisen": "a:1"}))


@pytest.mark.parametrize(
    ("text", "destination", "has_file"),
    [
        ("", "file", True),
        ("sink: { stdout: true }", "stdout", False),
        ("sink: { stdout: true, file: r.jsonl }", "stdout", False),
        ("kafka: { bootstrap_servers: 'h:1' }\nsink: { stdout: true, file: r.jsonl }", "kafka", False),
    ],
)
def test_of_several_destinations_of_records_the_first_is_used(tmp_path, text, destination, has_file):
    (tmp_path / "sidecar.yaml").write_text(text)
    settings = load_settings(tmp_path / "sidecar.yaml" if text else None, {})
    assert (settings.destination, settings.record_file is not None) == (destination, has_file)
