"""A refused TLS handshake leaves a count with its reason, and a few lines a minute."""

import logging
import ssl

import pytest

from sidecar.listening.handshakes import LOGGED_A_MINUTE, Handshakes
from tests.servers import certificates


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("tls"))


class Play:
    def __init__(self, made):
        self.counted, self.now_us = [], 1
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=made.authority)
        self.server.load_cert_chain(made.certificate, made.key)
        self.server.verify_mode = ssl.CERT_REQUIRED
        Handshakes(self.counted.append, lambda: self.now_us).watch(self.server)
        self.client = ssl.create_default_context(cafile=made.authority)

    def shake(self, data=b""):
        """Let both sides go on until the server has done, or has failed. `data`: what a client without TLS sends."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = self.server.wrap_bio(to_server, to_client, server_side=True)
        client = self.client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
        to_server.write(data)
        for _ in range(5):
            for side in (client, server) if not data else (server,):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError:
                    return


# Fails if the context's objects are not watched, or if waiting for the other side is taken for a refusal.
def test_a_refused_handshake_is_counted_by_its_reason(made, caplog):
    play = Play(made)
    play.shake()
    play.shake(b"GET / HTTP/1.1\r\n\r\n")
    play.client.load_cert_chain(made.certificate, made.key)
    assert play.counted == ["tls_refused|no_certificate", "tls_refused|not_tls"]
    assert "the client has no certificate, tls.client_auth wants one" in caplog.text
    play.client.load_cert_chain(made.client, made.client_key)
    play.shake()
    assert len(play.counted) == 2


def test_a_few_a_minute_are_logged_and_the_rest_are_counted(made, caplog):
    play = Play(made)
    with caplog.at_level(logging.WARNING, "sidecar.tls"):
        for _ in range(LOGGED_A_MINUTE + 3):
            play.shake()
        assert (len(caplog.records), len(play.counted)) == (LOGGED_A_MINUTE, LOGGED_A_MINUTE + 3)
        for unlogged in (3, 0):
            play.now_us += 60_000_000
            play.shake()
            assert caplog.records[-1].fields == {"reason": "no_certificate", "unlogged": unlogged}
