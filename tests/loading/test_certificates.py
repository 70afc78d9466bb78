import asyncio
import contextlib
import datetime as dt
import socket
import ssl
import subprocess

import pytest

from sidecar.config.sections import ClientTls
from sidecar.config.settings import load_settings
from sidecar.core.errors import PolicyError
from sidecar.loading.certificates import ServerContext, client_context, expiries, paths, read_pem, renew, server_context
from tests.servers import certificates
from tests.servers.connections import abort_connections

EVERYWHERE = """\
listen: 127.0.0.1:0
tls: {{ {files}, client_ca: ca.pem, client_auth: required }}
upstreams:
  api: {{ urls: ["https://h:1"], tls: {{ ca: ca.pem, {files} }} }}
redis: {{ url: "rediss://h:1", tls: {{ ca: ca.pem, {files} }} }}
kafka:
  bootstrap_servers: h:1
  security: {{ protocol: SSL, ca: ca.pem, {files} }}
"""


@pytest.fixture
def made(tmp_path):
    return certificates.make(tmp_path)


def settings_of(folder, text):
    (folder / "sidecar.yaml").write_text(text)
    return load_settings(folder / "sidecar.yaml", {})


def everywhere(folder, files="cert: server.pem, key: server.key"):
    return settings_of(folder, EVERYWHERE.format(files=files))


def test_files_of_every_place_are_read_and_each_is_watched_once(made, tmp_path):
    settings = everywhere(tmp_path)
    assert set(read_pem(settings)) == {str(path) for path in (made.authority, made.certificate, made.key)}
    assert paths(settings) == [made.authority, made.certificate, made.key]


@pytest.mark.parametrize(
    ("field", "text", "what"),
    [
        ("cert", None, "/server.pem cannot be read: No such file or directory"),
        ("key", None, "/server.key cannot be read: No such file or directory"),
        ("cert", "nonsense", "/server.pem holds no certificate in PEM"),
        ("key", "nonsense", "/server.key holds no private key in PEM"),
        ("key", "another", "/server.key is not the private key of "),
        ("key", "encrypted", "/server.key is encrypted: give it without a passphrase"),
        ("cert", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "/server.pem and "),
    ],
)
def test_a_wrong_pair_is_a_fault_at_its_line_wherever_it_is_named(made, tmp_path, field, text, what):
    # Fails if a section is forgotten in `uses`, or if OpenSSL's own words are all that is said.
    path = made.certificate if field == "cert" else made.key
    if text is None:
        path.unlink()
    elif text == "another":
        path.write_bytes(made.client_key.read_bytes())
    elif text == "encrypted":
        command = ["openssl", "pkey", "-in", made.client_key, "-aes256", "-passout", "pass:x", "-out", path]
        subprocess.run(command, check=True)
    else:
        path.write_text(text)
    with pytest.raises(PolicyError) as caught:
        read_pem(everywhere(tmp_path))
    lines = str(caught.value).splitlines()
    file = f"{tmp_path}/sidecar.yaml"
    places = [
        f"{file}:2: tls.{field}",
        f"{file}:4: upstreams.api.tls.{field}",
        f"{file}:5: redis.tls.{field}",
        f"{file}:8: kafka.security.{field}",
    ]
    assert [line.partition(": /")[0] for line in lines] == places
    assert all(what in line for line in lines)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (None, "cannot be read: No such file"),
        ("", "holds no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds no certificates that can be used"),
    ],
)
def test_a_wrong_authority_is_a_fault_at_its_line_wherever_it_is_named(made, tmp_path, text, what):
    made.authority.unlink() if text is None else made.authority.write_text(text)
    with pytest.raises(PolicyError) as caught:
        read_pem(everywhere(tmp_path))
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "tls.client_ca",
        "upstreams.api.tls.ca",
        "redis.tls.ca",
        "kafka.security.ca",
    ]
    assert all(what in line for line in lines)


def test_a_file_that_the_environment_names_is_a_fault_of_that_variable(tmp_path):
    settings = load_settings(None, {"SIDECAR_TLS__CERT": f"{tmp_path}/a", "SIDECAR_TLS__KEY": f"{tmp_path}/b"})
    with pytest.raises(PolicyError, match=r"^SIDECAR_TLS__CERT: tls.cert: .*/a cannot be read: No such file"):
        read_pem(settings)


def test_certificate_and_key_may_share_a_file_with_comments_of_any_encoding(made, tmp_path):
    both = "Zürich\n".encode("latin-1") + made.certificate.read_bytes() + made.key.read_bytes()
    (tmp_path / "both.pem").write_bytes(both)
    made.authority.write_bytes("Zürich\n".encode() + made.authority.read_bytes())
    settings = settings_of(tmp_path, 'upstreams: { a: { urls: ["https://h"], tls: { ca: ca.pem, cert: both.pem } } }\n')
    client_context(settings.upstreams["a"].tls, read_pem(settings))


def test_the_expiry_of_each_certificate_that_we_present_is_that_of_its_chain(tmp_path):
    # Fails if only the first certificate of a file is looked at.
    made, short = certificates.make(tmp_path), certificates.make(tmp_path / "short", days=3000)
    made.certificate.write_bytes(made.certificate.read_bytes() + short.authority.read_bytes())
    settings = everywhere(tmp_path)
    ends = int((dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=3000)).timestamp())
    names = ("tls.cert", "upstreams.api.tls.cert", "redis.tls.cert", "kafka.security.cert")
    assert expiries(settings, read_pem(settings)) == dict.fromkeys(names, ends)


def test_a_certificate_whose_expiry_cannot_be_read_is_used_all_the_same(made, tmp_path, caplog):
    # Fails if what cryptography refuses and OpenSSL takes is raised: at a reload that ended the node.
    whole = ssl.PEM_cert_to_DER_cert(made.certificate.read_text())
    named = whole.replace(b"\x0c\x09127.0.0.1", b"\x13\x09*.0.0.com", 1)  # a PrintableString may hold no asterisk
    assert named != whole
    made.certificate.write_text(ssl.DER_cert_to_PEM_cert(named))
    settings = everywhere(tmp_path)
    pem = read_pem(settings)
    server_context(settings.tls, pem)
    assert expiries(settings, pem) == {}
    assert "server.pem is used, but its expiry date cannot be read" in caplog.text


@contextlib.asynccontextmanager
async def listening(context):
    """A TLS server that says b"hi" to whoever comes in; gives its port."""

    async def serve(_reader, writer):
        writer.write(b"hi")
        with contextlib.suppress(OSError):
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield port
    await abort_connections(port)


async def shown(port, *, name="", trust=None):
    """The certificate that a client sees, in DER, once it has been served; with and without SNI."""
    context = trust or ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    try:
        assert await reader.read() == b"hi"
        return writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()  # closing TLS waits for the peer, and the loop may end before


def der(path):
    return ssl.PEM_cert_to_DER_cert(path.read_text())


@pytest.mark.parametrize("name", ["", "api.example"])
async def test_a_swapped_certificate_is_for_the_next_handshakes_with_a_name_and_without(tmp_path, name):
    # Fails if the context that listens keeps what it was made with.
    before, after = certificates.make(tmp_path / "before"), certificates.make(tmp_path / "after")
    first, second = (
        settings_of(folder, "tls: { cert: server.pem, key: server.key }\n")
        for folder in (tmp_path / "before", tmp_path / "after")
    )
    context = ServerContext(first.tls, read_pem(first))
    async with listening(context.context) as port:
        assert await shown(port, name=name) == der(before.certificate)
        context.swap(server_context(second.tls, read_pem(second)))
        assert await shown(port, name=name) == der(after.certificate)


def client(made, *, own):
    context = ssl.create_default_context(cafile=made.authority)
    if own is not None:
        context.load_cert_chain(own.client, own.client_key)
    return context


@pytest.mark.parametrize(
    ("auth", "none", "wrong", "right"),
    [("required", False, False, True), ("optional", True, False, True)],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_client_certificates_are_verified_as_the_settings_say(tmp_path, version, auth, none, wrong, right):
    # Fails if verify_mode is not set, or if the authorities of the context that was swapped in are not used.
    made, other = certificates.make(tmp_path), certificates.make(tmp_path / "other")
    text = f"tls: {{ cert: server.pem, key: server.key, client_ca: %s, client_auth: {auth} }}\n"
    old = settings_of(tmp_path, text % "other/ca.pem")
    context = ServerContext(old.tls, read_pem(old))
    new = settings_of(tmp_path, text % "ca.pem")
    context.swap(server_context(new.tls, read_pem(new)))

    async def served(own):
        trust = client(made, own=own)
        trust.maximum_version = version
        try:
            return await shown(port, trust=trust) is not None
        except (OSError, AssertionError):  # with TLS 1.3 the client learns of it by the first read
            return False

    async with listening(context.context) as port:
        assert [await served(own) for own in (None, other, made)] == [none, wrong, right]


# Fails if all handshakes begin with one context, which keeps sessions of TLS 1.2, or if tickets are given out there: a
# client that is not trusted any more would come in.
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_of_a_verified_client_is_not_resumed(tmp_path, version):
    made = certificates.make(tmp_path)
    text = "tls: { cert: server.pem, key: server.key, client_ca: ca.pem, client_auth: required }\n"
    settings = settings_of(tmp_path, text)
    trust = client(made, own=made)
    trust.maximum_version = version
    async with listening(ServerContext(settings.tls, read_pem(settings)).context) as port:
        session, _ = await asyncio.to_thread(greeted, trust, port, None)
        _, is_resumed = await asyncio.to_thread(greeted, trust, port, session)
    assert not is_resumed


def greeted(trust, port, session):
    """The connection of a client that was served: with TLS 1.3 a ticket comes behind the handshake."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    with trust.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as connection:
        assert connection.recv(9) == b"hi"
        return connection.session, connection.session_reused


async def test_an_older_version_than_the_least_is_refused(tmp_path):
    certificates.make(tmp_path)
    settings = settings_of(tmp_path, "tls: { cert: server.pem, key: server.key, min_version: 1.3 }\n")
    old = ssl.create_default_context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(ServerContext(settings.tls, read_pem(settings)).context) as port:
        await shown(port)
        with pytest.raises((OSError, AssertionError)):  # a reset may come before the alert
            await shown(port, trust=old)


def test_client_auth_and_its_authority_go_together(made, tmp_path):
    for text in ("client_ca: ca.pem", "client_auth: required"):
        with pytest.raises(PolicyError, match=r"sidecar\.yaml:1: tls.*: goes with `client_auth: required`"):
            settings_of(tmp_path, f"tls: {{ cert: server.pem, key: server.key, {text} }}\n")


async def test_a_client_in_use_trusts_and_presents_what_is_new(tmp_path):
    # Fails if `renew` forgets either: brokers that require a certificate would refuse the next connection.
    before, after = certificates.make(tmp_path / "before"), certificates.make(tmp_path / "after")
    files = [path.read_text() for path in (before.authority, before.client, before.client_key)]
    tls = ClientTls(ca="ca", cert="cert", key="key")
    context = client_context(tls, dict(zip(("ca", "cert", "key"), files, strict=True)))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=after.authority)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(after.certificate, after.key)
    async with listening(server) as port:
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", port, ssl=context)
        files = [path.read_text() for path in (after.authority, after.client, after.client_key)]
        renew(context, tls, dict(zip(("ca", "cert", "key"), files, strict=True)))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        assert await reader.read() == b"hi"
        writer.transport.abort()
