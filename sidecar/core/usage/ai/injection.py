"""Request usage on a client's behalf, and remove it from the answer again, so that the client notices nothing.

The request gets `stream_options.include_usage`; the rest of the body stays byte for byte. The answer then has one more
chunk, with a usage and no choices, and a `"usage": null` in all others; both are removed. A usage beside choices stays:
some servers always send it, and some clients wait for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from sidecar.core.usage.ai.documents import parsed
from sidecar.core.usage.ai.sse import data_of

TRIES: Final = 4  # candidates; each costs a parse, and a body can be full of them
_OPTIONS: Final = re.compile(rb'"stream_options"\s*:\s*(\{[^{}]*\}|null)')
_OPTIONS_MEMBER: Final = b'{"stream_options":{"include_usage":true},'
_NAME: Final = b'"usage"'  # with its quotes, it cannot be part of a string
_NULL: Final = re.compile(_NAME + rb"[ \t]*:[ \t]*null")


def with_usage(body: bytes, fields: Mapping[str, Any]) -> bytes | None:
    """The body with a request for usage; None where it has one already, or cannot be changed safely.

    `fields` is the value of the body; it has at least one member.
    """
    options = fields.get("stream_options", {})
    if options is None:
        options = {}
    if type(options) is not dict or options.get("include_usage") is True or json.detect_encoding(body) != "utf-8":
        return None
    if "stream_options" not in fields:
        return _OPTIONS_MEMBER + body[body.index(b"{") + 1 :]
    options = {**options, "include_usage": True}
    wanted = {**fields, "stream_options": options}
    for match in islice(_OPTIONS.finditer(body), TRIES):
        sent = body[: match.start(1)] + _with_include_usage(match[1]) + body[match.end(1) :]
        if parsed(sent) == wanted:
            return sent
    return _written_anew(body)


def _with_include_usage(options: bytes) -> bytes:
    """The options with `include_usage`; b"" where they cannot be written with all digits of their numbers."""
    try:
        wanted = {**(json.loads(options) or {}), "include_usage": True}
        return json.dumps(wanted, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        return b""


def _written_anew(body: bytes) -> bytes | None:
    """The same values written anew, by the parser that keeps all digits of a number."""
    try:
        fields = json.loads(body)
        options = {**(fields["stream_options"] or {}), "include_usage": True}
        return json.dumps({**fields, "stream_options": options}, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None


def is_extra(event: Mapping[str, Any]) -> bool:
    """Whether an event was sent only because usage was requested."""
    return not event.get("choices") and type(event.get("usage")) is dict


def without_null(event: bytes, value: Mapping[str, Any]) -> bytes:
    """The bytes of an event, whose data is `value`, without a `"usage": null` of its own."""
    begin = event.find(_NAME)
    single = event.find(_NAME, begin + 1) < 0
    for match in islice(_NULL.finditer(event, max(begin, 0)), TRIES):
        shorter = _without_member(event, match.start(), match.end())
        if single or parsed(data_of(shorter)) == {name: value[name] for name in value if name != "usage"}:
            return shorter
    return event


def _without_member(event: bytes, begin: int, end: int) -> bytes:
    """The event without the member from `begin` to `end`, and without the comma that separates it from the others."""
    before, after = event[:begin].rstrip(b" \t"), event[end:].lstrip(b" \t")
    if before.endswith(b","):
        return before[:-1] + event[end:]
    return event[:begin] + after.removeprefix(b",")
