import pytest

from sidecar.config.settings import load_settings
from sidecar.core.errors import PolicyError
from sidecar.loading.header_secrets import given, paths, read_secrets
from tests.servers import certificates

YAML = """\
upstreams:
  api:
    urls: https://api.example
    headers:
      Authorization: "Bearer ${API_KEY}"
      X-Key: "${file:key}"
      X-Both: "${file:key}${API_KEY}"
"""


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "sidecar.yaml").write_text(YAML)
    (tmp_path / "key").write_text("hunter2\n")
    return load_settings(tmp_path / "sidecar.yaml", {})


def test_variables_and_files_are_read_and_files_are_watched(settings, tmp_path):
    key = str(tmp_path / "key")
    assert read_secrets(settings, {"API_KEY": "sk"}) == {"$API_KEY": "sk", key: "hunter2"}
    assert paths(settings) == [tmp_path / "key"]


def test_certificates_are_read_with_them(tmp_path):
    # Fails if either of the two is left out: a worker would start without it.
    made = certificates.make(tmp_path)
    (tmp_path / "sidecar.yaml").write_text(YAML + "    tls: { ca: ca.pem }\n")
    (tmp_path / "key").write_text("hunter2")
    settings = load_settings(tmp_path / "sidecar.yaml", {})
    read = read_secrets(settings, {"API_KEY": "sk"})
    assert set(read) == {"$API_KEY", str(tmp_path / "key"), str(made.authority)}


@pytest.mark.parametrize(
    ("env", "key", "said"),
    [
        ({}, "x", [("5", "Authorization", "the environment variable API_KEY is not set: set it, or write ${file:"),
                   ("7", "X-Both", "the environment variable API_KEY is not set")]),
        ({"API_KEY": ""}, "x", [("5", "Authorization", "the environment variable API_KEY is empty"),
                                ("7", "X-Both", "the environment variable API_KEY is empty")]),
        ({"API_KEY": "sk-1"}, None, [("6", "X-Key", "{key} cannot be read: No such file"),
                                     ("7", "X-Both", "{key} cannot be read: No such file")]),
        ({"API_KEY": "sk-1"}, " \n", [("6", "X-Key", "{key} is empty"), ("7", "X-Both", "{key} is empty")]),
        ({"API_KEY": "sk-1\n"}, "x", [("5", "Authorization", "is not printable ASCII without spaces at its ends"),
                                      ("7", "X-Both", "is not printable ASCII")]),
        ({"API_KEY": "sk-1"}, "a\r\nHost: evil", [("6", "X-Key", "is not printable ASCII"),
                                                  ("7", "X-Both", "is not printable ASCII")]),
    ],
)  # fmt: skip
def test_a_secret_that_is_missing_or_no_header_is_a_fault_at_its_line_which_does_not_show_it(
    settings, tmp_path, env, key, said
):
    # Fails if a line break passes: a file would add header fields of its own.
    path = tmp_path / "key"
    path.unlink() if key is None else path.write_text(key)
    with pytest.raises(PolicyError) as caught:
        read_secrets(settings, env)
    expected = [
        f"{tmp_path}/sidecar.yaml:{line}: upstreams.api.headers.{header}: {what.replace('{key}', str(path))}"
        for line, header, what in said
    ]
    lines = str(caught.value).splitlines()
    assert [line[: len(begin)] for line, begin in zip(lines, expected, strict=True)] == expected
    assert "sk-1" not in str(caught.value)


def test_a_child_takes_what_it_is_given_before_what_is_there(settings, monkeypatch):
    # Fails if a worker that is restarted reads a file that was edited since.
    monkeypatch.setenv("API_KEY", "sk")
    assert given({"pem": {"$API_KEY": "old"}}, settings) == {"$API_KEY": "old"}
    assert given({}, settings)["$API_KEY"] == "sk"


def test_a_token_file_of_kafka_that_is_missing_is_a_fault_of_its_setting(tmp_path):
    path = tmp_path / "sidecar.yaml"
    security = "{ protocol: SASL_SSL, mechanism: OAUTHBEARER, token_file: token }"
    path.write_text(f"kafka:\n  bootstrap_servers: h:1\n  security: {security}\n")
    settings = load_settings(path, {})
    with pytest.raises(PolicyError, match=rf"^{path}:3: kafka.security.token_file: {tmp_path}/token cannot be read"):
        read_secrets(settings)
    (tmp_path / "token").write_text("ey.J")
    assert read_secrets(settings) == {}
