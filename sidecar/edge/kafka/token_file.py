"""The token of SASL OAUTHBEARER (RFC 7628) from a file, read for each login: a renewed token needs no signal."""

from __future__ import annotations

from pathlib import Path

from aiokafka.abc import AbstractTokenProvider


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """aiokafka's provider of tokens. The file is small and local, so a read does not block for long."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        """The current token. ConnectionError: the file cannot be read or is empty; aiokafka tries again."""
        try:
            token = self._path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is not ASCII"
            raise ConnectionError(f"kafka.security.token_file: {self._path}: {reason}") from None
        if not token:
            raise ConnectionError(f"kafka.security.token_file: {self._path} is empty")
        return token
