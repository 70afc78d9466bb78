"""Certificates and private keys: read and validated before a child starts, and again when a file changes.

The supervisor reads the files. Children receive the text of the last valid ones, at their start and with each reload.
So an invalid file changes nothing, also where a worker restarts after the edit. No copy is written to disk.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.core.errors import Fault, PolicyError, unreadable

if TYPE_CHECKING:
    from sidecar.config.document import Loc
    from sidecar.config.sections import ClientTls, Security, ServerTls
    from sidecar.config.settings import Settings

Pem = Mapping[str, str]
"""The text of each PEM file that the settings name, by its path; from a supervisor, also the secrets of headers."""

log = logging.getLogger("sidecar.certificates")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_AUTH = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class Use(NamedTuple):
    """Files that are used together, at `loc` of the settings; `authority` names the field of `ca`."""

    loc: Loc
    ca: Path | None
    cert: Path | None
    key: Path | None
    authority: str = "ca"

    def files(self) -> list[tuple[str, Path]]:
        """The fields that are set, with their paths."""
        fields = ((self.authority, self.ca), ("cert", self.cert), ("key", self.key))
        return [(name, path) for name, path in fields if path is not None]


def uses(settings: Settings) -> list[Use]:
    """Every section of the settings that names PEM files."""
    servers, tls = list[Use](), settings.tls
    if tls is not None:
        servers.append(Use(("tls",), tls.client_ca, tls.cert, tls.key, "client_ca"))
    clients: list[tuple[Loc, ClientTls | Security]] = [
        (("upstreams", name, "tls"), upstream.tls) for name, upstream in settings.upstreams.items()
    ]
    if settings.redis is not None:
        clients.append((("redis", "tls"), settings.redis.tls))
    if settings.kafka is not None:
        clients.append((("kafka", "security"), settings.kafka.security))
    return servers + [Use(loc, section.ca, section.cert, section.key) for loc, section in clients]


def paths(settings: Settings) -> list[Path]:
    """The paths of all PEM files, each once."""
    return list({path: None for use in uses(settings) for _, path in use.files()})


def read_pem(settings: Settings) -> dict[str, str]:
    """Read and validate all files. PolicyError: each file that is missing, not PEM, or not the other's key."""
    pem: dict[str, str] = {}
    faults: list[Fault] = []
    for use in uses(settings):
        faults += [settings.fault((*use.loc, name), what) for name, what in read_use(use, pem)]
    if faults:
        raise PolicyError(faults)
    return pem


def read_use(use: Use, pem: dict[str, str]) -> list[tuple[str, str]]:
    """Read the files of one use into `pem`. Returns (field, error) pairs."""
    return _read_files(use, pem) or _validate(use, pem)


def expiries(settings: Settings, pem: Pem) -> dict[str, int]:
    """When the certificates that we present expire, in s since the Unix epoch, by setting. A chain: its earliest end.

    A certificate that OpenSSL accepts and the stricter parser here does not (a `*` or `@` in a PrintableString) is
    left out.
    """
    from cryptography.x509 import InvalidVersion, load_pem_x509_certificates  # noqa: PLC0415 - takes 20 ms, only used here

    expiry_s = dict[str, int]()
    for use in uses(settings):
        if use.cert is None:
            continue
        try:
            chain = load_pem_x509_certificates(_certificates(pem[str(use.cert)]).encode())
            ends = [int(each.not_valid_after_utc.timestamp()) for each in chain]
        except (ValueError, InvalidVersion) as error:
            log.warning("certificates: %s is used, but its expiry date cannot be read: %s", use.cert, error)
            continue
        expiry_s[".".join((*map(str, use.loc), "cert"))] = min(ends)
    return expiry_s


def server_context(tls: ServerTls, pem: Pem) -> ssl.SSLContext:
    """The TLS context of the listener. ALPN offers only HTTP/1.1, the one protocol that it speaks."""
    context = _without_files(tls)
    _load_chain(context, pem[str(tls.cert)], pem[str(tls.key)])
    if tls.client_ca is not None:
        context.load_verify_locations(cadata=_certificates(pem[str(tls.client_ca)]))
    return context


def _without_files(tls: ServerTls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = _VERSIONS[tls.min_version]
    if tls.client_ca is not None:
        context.verify_mode = _AUTH[tls.client_auth]
        context.options |= ssl.OP_NO_TICKET  # a ticket could not be used: see _Unshared
        context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Unshared(ssl.SSLContext):
    """Starts each handshake with a new context, so that no TLS 1.2 session is resumed.

    OpenSSL caches sessions in the context that a handshake starts with. Python cannot turn that off, and the client
    certificate of a resumed session would not be verified again.
    """

    make: Callable[[], ssl.SSLContext]

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        own = self.make()
        own.sslobject_class = self.sslobject_class
        return own.wrap_bio(*args, **options)


class ServerContext:
    """The listener's context. `swap` replaces the certificates for later handshakes, without a new listener."""

    def __init__(self, tls: ServerTls, pem: Pem) -> None:
        self._tls = tls
        self._current = server_context(tls, pem)
        self.context = self._first_context()
        if tls.client_ca is not None:
            self.context = _Unshared(ssl.PROTOCOL_TLS_SERVER)
            self.context.make = self._first_context

    def _first_context(self) -> ssl.SSLContext:
        """The context that a handshake starts with; its SNI callback switches to the current one."""
        context = _without_files(self._tls)
        context.sni_callback = self._choose  # called in every handshake, also without a server name
        return context

    def swap(self, context: ssl.SSLContext) -> None:
        """Use `context` for new connections. Open connections are unchanged."""
        self._current = context

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current


def client_context(tls: ClientTls | Security, pem: Pem) -> ssl.SSLContext:
    """The TLS context of a client. It trusts the system's authorities or `ca`, and presents `cert` if that is set."""
    context = ssl.create_default_context(cadata=_certificates(pem[str(tls.ca)]) if tls.ca is not None else None)
    if tls.cert is not None:
        _load_chain(context, pem[str(tls.cert)], pem[str(tls.key)] if tls.key is not None else "")
    return context


def renew(context: ssl.SSLContext, tls: ClientTls | Security, pem: Pem) -> None:
    """Use the new certificates for the next connections of this context. The previous `ca` stays trusted as well."""
    if tls.ca is not None:
        context.load_verify_locations(cadata=_certificates(pem[str(tls.ca)]))
    if tls.cert is not None:
        _load_chain(context, pem[str(tls.cert)], pem[str(tls.key)] if tls.key is not None else "")


def _read_files(use: Use, pem: dict[str, str]) -> list[tuple[str, str]]:
    faults = []
    for name, path in use.files():
        try:
            pem[str(path)] = path.read_bytes().decode("latin-1")  # comments may be in any encoding
        except OSError as error:
            faults.append((name, f"{path} {unreadable(error)}"))
    return faults


def _validate(use: Use, pem: Pem) -> list[tuple[str, str]]:
    """The (field, error) pairs of files that could be read."""
    texts = {name: pem[str(path)] for name, path in use.files()}
    faults = [
        (name, f"{path} holds no certificate in PEM")
        for name, path in use.files()
        if name != "key" and not _CERTIFICATE.search(texts[name])
    ]
    if faults:
        return faults
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if use.authority in texts:
        try:
            context.load_verify_locations(cadata=_certificates(texts[use.authority]))
        except ssl.SSLError as error:
            faults.append((use.authority, f"{use.ca} holds no certificates that can be used: {error.reason}"))
    if "cert" in texts:
        faults += _validate_chain(context, use, texts["cert"], texts.get("key", ""))
    return faults


def _validate_chain(context: ssl.SSLContext, use: Use, cert: str, key: str) -> list[tuple[str, str]]:
    field, path, text = ("key", use.key, key) if use.key is not None else ("cert", use.cert, cert)
    if "PRIVATE KEY-----" not in text:
        return [(field, f"{path} holds no private key in PEM")]
    if "ENCRYPTED" in text:
        return [(field, f"{path} is encrypted: give it without a passphrase")]
    try:
        _load_chain(context, cert, key)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return [(field, f"{path} is not the private key of {use.cert}")]
        return [("cert", f"{use.cert} and {path} cannot be used: {error.reason or error}")]
    return []


def _certificates(text: str) -> str:
    return "\n".join(_CERTIFICATE.findall(text))


def _load_chain(context: ssl.SSLContext, cert: str, key: str) -> None:
    with _as_file(f"{cert}\n{key}") as path:
        context.load_cert_chain(path, password="")


@contextmanager
def _as_file(text: str) -> Iterator[str]:
    """A path that OpenSSL can read `text` from; it names memory (memfd) where the system has that."""
    if not hasattr(os, "memfd_create"):
        with tempfile.NamedTemporaryFile() as file:  # mode 0600
            file.write(text.encode("latin-1"))
            file.flush()
            yield file.name
        return
    fd = os.memfd_create("pem")
    try:
        os.write(fd, text.encode("latin-1"))
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)
