"""Read the values of an AI request that metering needs. No other part of the request is retained.

The body is passed on byte for byte, with one exception: for a stream of completions that would not report its usage,
usage is requested.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sidecar.core.usage.ai.injection import with_usage
from sidecar.core.usage.ai.kinds import whole
from sidecar.core.usage.ai.seen import member, named
from sidecar.core.usage.ai.vendors import AUTO, VENDORS
from sidecar.core.usage.json_text import UNKNOWN, JsonText, members_of

MEDIUM: Final = 4 * 1024  # assumed bytes of a base64 picture or sound: about a thousand tokens


class AiRequest(NamedTuple):
    """The metered values of a request.

    `adapter`: the vendor's name, or auto while unknown. `model`: "" where it names none. `max_output`: the most
    tokens of the answer, over all choices; None where the request sets no bound. `input_bytes`: the basis of an
    estimate of the input. `injected`: usage was requested on the client's behalf, and is removed from the answer.
    `differs`: the body is neither JSON nor an upload, or parsers may differ on it: then none of its values is used.
    """

    adapter: str
    model: str
    stream: bool
    max_output: int | None
    input_bytes: int
    injected: bool
    differs: bool = False


_ALL: Final = tuple(VENDORS.values())
_BY_MEMBERS: Final = _ALL[::-1]  # OpenAI's are the least specific: compatible servers take them
_STREAMS: Final = tuple([end for vendor in _ALL for end in vendor.streams])
_SILENT: Final = tuple([end for vendor in _ALL for end in vendor.silent])
_BOUNDS: Final = tuple(dict.fromkeys([name for vendor in _ALL for name in vendor.bounds]))
_TIMES: Final = tuple(dict.fromkeys([name for vendor in _ALL for name in vendor.times]))
_SETTINGS: Final = tuple(dict.fromkeys([name for vendor in _ALL for name in vendor.settings]))
_KINDS: Final = {"model": str, "stream": bool, **dict.fromkeys((*_BOUNDS, *_TIMES), int)}
_MODEL_IN_PATH: Final = re.compile("|".join([vendor.model_in_path for vendor in _ALL if vendor.model_in_path]))
_MEMBERS: Final = members_of(
    {
        (): ("model", "stream", "stream_options", *_SETTINGS, *_BOUNDS, *_TIMES),
        ("stream_options",): ("include_usage",),
        **{(name,): (*_BOUNDS, *_TIMES) for name in _SETTINGS},
    }
)


def parse_request(adapter: str, path: str, text: JsonText, *, upload: bool = False) -> tuple[AiRequest, bytes]:
    """Read a request's body; the second value is the body to send: the same object unless usage had to be requested.

    `path` is decoded and without its query. Where the body is not a JSON object, or parsers may differ on it, only the
    path is used. `upload`: the body is of a type that is never JSON.
    """
    body, value = text.body or b"", text.value
    differs = _differs(text, value, upload)
    fields: Mapping[str, Any] = value if type(value) is dict and not differs else {}
    vendor = _vendor_of(path, fields) if adapter == AUTO else adapter
    request = AiRequest(
        adapter=vendor,
        model=_model(path, fields),
        stream=fields.get("stream") is True or path.endswith(_STREAMS),
        max_output=0 if path.endswith(_SILENT) else _max_output(fields),
        input_bytes=_input_bytes(body),
        injected=False,
        differs=differs,
    )
    if not request.stream or vendor != "openai" or not _is_completion(adapter, path, fields):
        return request, body
    sent = with_usage(body, fields)
    return (request, body) if sent is None else (request._replace(injected=True), sent)


def _differs(text: JsonText, value: Any, upload: bool) -> bool:
    """Servers may accept more than JSON: comments, another encoding, a form. An unread body counts as none of them."""
    if value is UNKNOWN:
        return text.body is not None and not upload
    return isinstance(value, dict) and (_is_coerced(value) or text.differs(_MEMBERS))


def _is_coerced(fields: Mapping[str, Any]) -> bool:
    """Whether a member has another type than it should, such as "5000": some servers convert it."""
    for name, value in fields.items():
        kind = _KINDS.get(name)
        if kind is not None and value is not None and type(value) is not kind:
            return True
        if name in _SETTINGS and _is_coerced(member(fields, name)):
            return True
    return False


def _vendor_of(path: str, fields: Mapping[str, Any]) -> str:
    for vendor in _ALL:
        if path.endswith(vendor.endpoints):
            return vendor.name
    return next((each.name for each in _BY_MEMBERS if any(name in fields for name in each.request_members)), AUTO)


def _model(path: str, fields: Mapping[str, Any]) -> str:
    """The model in the path takes precedence over that in the body."""
    match = _MODEL_IN_PATH.search(path)
    model = named(match[match.lastindex or 0]) if match else named(fields.get("model"))
    return model.removeprefix("models/")


def _max_output(fields: Mapping[str, Any]) -> int | None:
    """The largest given bound, times the number of requested choices."""
    settings = dict(fields)
    for name in _SETTINGS:
        settings |= member(fields, name)
    bounds = [bound for name in _BOUNDS if name in settings and (bound := whole(settings[name])) is not None]
    times = [1, *[times for name in _TIMES if name in settings and (times := whole(settings[name]))]]
    return max(bounds) * max(times) if bounds else None


def _input_bytes(body: bytes) -> int:
    """The body's length; long strings without a blank count as media of MEDIUM bytes, whatever their length."""
    if len(body) <= MEDIUM:
        return len(body)
    media = (len(part) for part in body.split(b'"') if len(part) > MEDIUM and b" " not in part and part.isascii())
    return len(body) - sum(length - MEDIUM for length in media)


def _is_completion(adapter: str, path: str, fields: Mapping[str, Any]) -> bool:
    """Whether the endpoint knows `stream_options`; the Responses API refuses it."""
    if path.endswith("/completions"):
        return True
    return adapter == "openai" and "messages" in fields and "input" not in fields
