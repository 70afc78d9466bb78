"""Logs: one line of JSON per event on stderr, or a plain line on a terminal. No line contains a credential.

The fields are a fixed list (time, level, logger, message, process, request, and what a caller passes as `fields`);
everything that looks like a credential is masked in the finished line, whichever field it came from.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson

# The value after an authentication scheme, the user part of a URL, the headers and query parameters that carry keys,
# and the keys that `sidecar keys` makes.
SECRETS = re.compile(
    r"(?i)(?P<scheme>\b(?:bearer|basic)\s+)[^\s\\\"',;]+"
    r"|(?P<url>[a-z][a-z0-9+.-]*://)[^\s/@\"']*@"
    r"|(?P<name>\b(?:x-api-key|api[_-]?key|password|secret|sasl_plain_password)\b[\\\"']*\s*[:=]\s*[\\\"']*)[^\s\\\"',;&]+"
    r"|\b(?P<made>[a-z]{2,8}_)[0-9a-z]{30,}\b"
)


def masked(text: str) -> str:
    """Replace everything that looks like a credential by `***`. The name before it stays."""
    return SECRETS.sub(_mask, text)


def _mask(match: re.Match[str]) -> str:
    kind = match.lastgroup or ""
    return f"{match[kind]}***{'@' if kind == 'url' else ''}"


class Formatter(logging.Formatter):
    """JSON for machines; for people `time level process message`, on a terminal."""

    def __init__(self, process: str, *, human: bool) -> None:
        super().__init__()
        self.process = process
        self.human = human

    def format(self, record: logging.LogRecord) -> str:
        """Render one event as one line."""
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        more: dict[str, Any] = getattr(record, "fields", {})
        if self.human:
            fields = " ".join(f"{name}={value}" for name, value in more.items())
            return masked(f"{when[11:23]} {record.levelname.lower():7} {self.process}: {message} {fields}".rstrip())
        line = {"time": when, "level": record.levelname.lower(), "logger": record.name, "process": self.process}
        if request := getattr(record, "request", ""):
            line["request"] = request
        return masked(_as_json(line | {"message": message} | more))


def _as_json(line: dict[str, Any]) -> str:
    """JSON by orjson, or by `json` for integers of more than 64 bits (epochs), which orjson rejects."""
    try:
        return orjson.dumps(line, default=str).decode()
    except TypeError:
        return json.dumps(line, default=str, separators=(",", ":"))


def setup(process: str, level: str = "info", *, text: bool = True, stream: TextIO | None = None) -> None:
    """Send all logs of this process to stderr, named `process`. `text`: plain lines if stderr is a terminal."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Formatter(process, human=text and stream.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("aiohttp.access", "aiokafka", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
