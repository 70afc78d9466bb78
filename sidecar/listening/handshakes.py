"""TLS handshakes that clients began and that were refused: counted by reason, a few a minute logged.

The loop says nothing of them, so the handshake itself is watched: once a connection, never a request. Which peer it was
the handshake does not know; the loop keeps that to itself until it has succeeded.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from typing import Final

LOGGED_A_MINUTE: Final = 5
_MINUTE_US: Final = 60_000_000
_REASONS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": ("no_certificate", "the client has no certificate, tls.client_auth wants one"),
    "CERTIFICATE_VERIFY_FAILED": ("wrong_certificate", "the client's certificate is not trusted"),
    "UNSUPPORTED_PROTOCOL": ("version", "the client speaks no version of TLS from tls.min_version on"),
    "HTTP_REQUEST": ("not_tls", "the client does not speak TLS"),
    "WRONG_VERSION_NUMBER": ("not_tls", "the client does not speak TLS"),
}
log = logging.getLogger("sidecar.tls")


class Handshakes:
    """`count(name)` is called with `tls_refused|reason` for each refused handshake; `mono_us` is for the log's rate."""

    def __init__(self, count: Callable[[str], None], mono_us: Callable[[], int]) -> None:
        self._count = count
        self._mono_us = mono_us
        self._until_us = self._logged = self._unlogged = 0

    def watch(self, context: ssl.SSLContext) -> None:
        """Look at the handshakes of a server's context from now on."""
        handshakes = self

        class Watched(ssl.SSLObject):
            def do_handshake(self) -> None:
                try:
                    super().do_handshake()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    raise
                except ssl.SSLError as error:
                    handshakes.refused(error)
                    raise

        context.sslobject_class = Watched

    def refused(self, error: ssl.SSLError) -> None:
        """A handshake failed with `error`."""
        reason, why = _REASONS.get(error.reason or "", ("other", error.reason or str(error)))
        self._count(f"tls_refused|{reason}")
        now_us = self._mono_us()
        if now_us >= self._until_us:
            self._until_us, self._logged = now_us + _MINUTE_US, 0
        if self._logged == LOGGED_A_MINUTE:
            self._unlogged += 1
            return
        self._logged += 1
        verified = getattr(error, "verify_message", "")
        more = {"reason": reason, "unlogged": self._unlogged}
        self._unlogged = 0
        log.warning("TLS handshake refused: %s%s", why, f" ({verified})" if verified else "", extra={"fields": more})
