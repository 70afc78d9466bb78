"""Usage asked for on a client's behalf, and taken out of the answer again, so that the client notices nothing.

What is asked: `stream_options.include_usage`, the rest of the body byte for byte. What comes of it: one more chunk, of
a usage and no choices, which goes; and in all others a `"usage": null`, which goes as well. A usage beside choices
stays: there are servers that send it unasked, and clients that wait for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import orjson

from sidecar.core.usage.ai.documents import parsed
from sidecar.core.usage.ai.sse import data_of

TRIES: Final = 4  # places that look right; each costs a parse, and a body can be full of them
_OPTIONS: Final = re.compile(rb'"stream_options"\s*:\s*(\{[^{}]*\}|null)')
_ASKED: Final = b'{"stream_options":{"include_usage":true},'
_NAME: Final = b'"usage"'  # with its quotes, it cannot stand inside of a string
_NULL: Final = re.compile(_NAME + rb"[ \t]*:[ \t]*null")


def asking(body: bytes, fields: Mapping[str, Any]) -> bytes | None:
    """A body that asks for usage as well; None where it asks already, or cannot be made to.

    `fields` is what the body says; it has at least one member.
    """
    options = fields.get("stream_options", {})
    if options is None:
        options = {}
    if type(options) is not dict or options.get("include_usage") is True or json.detect_encoding(body) != "utf-8":
        return None
    if "stream_options" not in fields:
        return _ASKED + body[body.index(b"{") + 1 :]
    options = {**options, "include_usage": True}
    wanted = {**fields, "stream_options": options}
    for found in islice(_OPTIONS.finditer(body), TRIES):
        sent = body[: found.start(1)] + orjson.dumps(options) + body[found.end(1) :]
        if parsed(sent) == wanted:
            return sent
    return _written_anew(body, options)


def _written_anew(body: bytes, options: Mapping[str, Any]) -> bytes | None:
    """Another spelling of the same values, by the parser that keeps all digits of a number."""
    try:
        return json.dumps({**json.loads(body), "stream_options": options}, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None


def is_extra(event: Mapping[str, Any]) -> bool:
    """Whether an event came only because usage was asked for."""
    return not event.get("choices") and type(event.get("usage")) is dict


def without_null(event: bytes, value: Mapping[str, Any]) -> bytes:
    """The bytes of an event, whose data is `value`, without a `"usage": null` of its own."""
    begin = event.find(_NAME)
    alone = event.find(_NAME, begin + 1) < 0
    for found in islice(_NULL.finditer(event, max(begin, 0)), TRIES):
        kept = _without_member(event, found.start(), found.end())
        if alone or parsed(data_of(kept)) == {name: value[name] for name in value if name != "usage"}:
            return kept
    return event


def _without_member(event: bytes, begin: int, end: int) -> bytes:
    """The event without what stands from `begin` to `end`, and without the comma that parted it from the others."""
    before, after = event[:begin].rstrip(b" \t"), event[end:].lstrip(b" \t")
    if before.endswith(b","):
        return before[:-1] + event[end:]
    return event[:begin] + after.removeprefix(b",")
