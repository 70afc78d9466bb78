"""What a request asks of a model, as far as metering needs it. Nothing of the request is kept but these few values.

The body goes on as it came, byte for byte, but for one: a stream of completions that would not tell its usage is asked
to tell it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sidecar.core.usage.ai.documents import parsed
from sidecar.core.usage.ai.injection import asking
from sidecar.core.usage.ai.kinds import whole
from sidecar.core.usage.ai.seen import member, named
from sidecar.core.usage.ai.vendors import AUTO

MEDIUM: Final = 4 * 1024  # bytes that a picture or a sound in base64 counts as: about a thousand tokens


class Asked(NamedTuple):
    """What a request says.

    `adapter`: openai, anthropic, gemini, or auto while unknown. `model`: "" where it says none. `max_output`: tokens
    that the answer can have, of all its choices; None where the request sets no bound. `input_bytes`: what an estimate
    of the input stands on. `injected`: usage was asked for on the client's behalf, and what comes of it is taken out.
    """

    adapter: str
    model: str
    stream: bool
    max_output: int | None
    input_bytes: int
    injected: bool


# The end of a path, and whose it is. The first that fits counts.
_ENDPOINTS: Final = (
    ("/completions", "openai"),
    ("/responses", "openai"),
    ("/embeddings", "openai"),
    ("/v1/messages", "anthropic"),
    (":generateContent", "gemini"),
    (":streamGenerateContent", "gemini"),
    (":embedContent", "gemini"),
    (":batchEmbedContents", "gemini"),
    (":rawPredict", "anthropic"),
    (":streamRawPredict", "anthropic"),
)
_STREAMS: Final = (":streamGenerateContent", ":streamRawPredict")
_NO_OUTPUT: Final = ("/embeddings", ":embedContent", ":batchEmbedContents")

# Members of a request that only one vendor's have.
_FIELDS: Final = (
    ("gemini", ("contents",)),
    ("anthropic", ("anthropic_version", "stop_sequences", "system", "thinking")),
    ("openai", ("input", "max_completion_tokens", "prompt", "response_format", "stream_options")),
)
_BOUNDS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens")
_TIMES: Final = ("n", "best_of", "candidateCount", "candidate_count")
_PATH_MODEL: Final = re.compile(r"/deployments/([^/]+)/|/([^/:]+):[A-Za-z]+$")  # Azure's, Gemini's


def ask(adapter: str, path: str, body: bytes) -> tuple[Asked, bytes]:
    """Read a request's body; the second is the body to send: the same object unless usage had to be asked for.

    `path` is decoded and without its query. Of a body that is no JSON object only the path is known.
    """
    value = parsed(body)
    fields: Mapping[str, Any] = value if type(value) is dict else {}
    whose = _whose(path, fields) if adapter == AUTO else adapter
    asked = Asked(
        adapter=whose,
        model=_model(path, fields),
        stream=fields.get("stream") is True or path.endswith(_STREAMS),
        max_output=0 if path.endswith(_NO_OUTPUT) else _max_output(fields),
        input_bytes=_input_bytes(body),
        injected=False,
    )
    if not asked.stream or whose != "openai" or not _is_completion(adapter, path, fields):
        return asked, body
    sent = asking(body, fields)
    return (asked, body) if sent is None else (asked._replace(injected=True), sent)


def _whose(path: str, fields: Mapping[str, Any]) -> str:
    for end, adapter in _ENDPOINTS:
        if path.endswith(end):
            return adapter
    return next((adapter for adapter, names in _FIELDS if any(name in fields for name in names)), AUTO)


def _model(path: str, fields: Mapping[str, Any]) -> str:
    model = named(fields.get("model"))
    if not model and (found := _PATH_MODEL.search(path)):
        model = named(found[1] or found[2])
    return model.removeprefix("models/")


def _max_output(fields: Mapping[str, Any]) -> int | None:
    """The largest bound that is given, for each of the choices asked for."""
    settings = {**fields, **member(fields, "generation_config"), **member(fields, "generationConfig")}
    bounds = [bound for name in _BOUNDS if (bound := whole(settings.get(name))) is not None]
    times = [1, *(times for name in _TIMES if (times := whole(settings.get(name))))]
    return max(bounds) * max(times) if bounds else None


def _input_bytes(body: bytes) -> int:
    """The body's length, where long strings without a blank count as media: their tokens do not grow with them."""
    if len(body) <= MEDIUM:
        return len(body)
    media = (len(part) for part in body.split(b'"') if len(part) > MEDIUM and b" " not in part and part.isascii())
    return len(body) - sum(length - MEDIUM for length in media)


def _is_completion(adapter: str, path: str, fields: Mapping[str, Any]) -> bool:
    """Whether `stream_options` is known there: the Responses API refuses it."""
    if path.endswith("/completions"):
        return True
    return adapter == "openai" and "messages" in fields and "input" not in fields
