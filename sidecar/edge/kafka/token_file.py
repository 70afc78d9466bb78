"""The token of SASL OAUTHBEARER (RFC 7628) from a file, read for each login: a renewed token needs no signal."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from aiokafka.abc import AbstractTokenProvider

from sidecar.edge.clock import SystemClock

_RENEW_SECONDS: Final = 60  # after which librdkafka asks again; the token itself may be valid for longer


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's provider of tokens. The file is small and local, so a read does not block for long."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        """The current token. ConnectionError: the file cannot be read or is empty; aiokafka tries again."""
        return self.read()

    def with_expiry(self, _config: str) -> tuple[str, float]:
        """The same for librdkafka, with the time (s since 1970) before which it asks again."""
        return self.read(), SystemClock().now_us() / 1e6 + _RENEW_SECONDS

    def read(self) -> str:
        """The current token. ConnectionError as above."""
        try:
            token = self._path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is not ASCII"
            raise ConnectionError(f"kafka.security.token_file: {self._path}: {reason}") from None
        if not token:
            raise ConnectionError(f"kafka.security.token_file: {self._path} is empty")
        return token
