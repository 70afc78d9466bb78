"""An upstream that answers in the shapes that AI vendors publish: OpenAI's, Anthropic's and Gemini's, streamed or not.

It thinks nothing and always says the same, so that two answers can be compared byte by byte. What the model is called
decides how an answer ends: "slow" waits before its last event until it is let go, "short" runs into its bound,
"overloaded" breaks off with an error event, "refused" is a 429. Answers are compressed for who takes gzip.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

TEXT = ("Bonjour", ", le ", "monde ", "entier", "!")

CHAT_USAGE = {
    "prompt_tokens": 1200, "completion_tokens": 350, "total_tokens": 1550,
    "prompt_tokens_details": {"cached_tokens": 1000, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 300, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
    },
}  # fmt: skip
RESPONSE_USAGE = {
    "input_tokens": 328, "input_tokens_details": {"cached_tokens": 128},
    "output_tokens": 52, "output_tokens_details": {"reasoning_tokens": 12}, "total_tokens": 380,
}  # fmt: skip
MESSAGE_USAGE = {
    "input_tokens": 25, "cache_creation_input_tokens": 40, "cache_read_input_tokens": 900, "output_tokens": 17,
    "service_tier": "standard",
}  # fmt: skip
GEMINI_USAGE = {
    "promptTokenCount": 264, "cachedContentTokenCount": 64, "candidatesTokenCount": 30, "thoughtsTokenCount": 70,
    "totalTokenCount": 364,
}  # fmt: skip

Event = tuple[str, Mapping[str, Any]]


class Vendors:
    """The upstream. `seen` are the bodies and header fields that came, `running` streams that have not ended.

    `go` lets the slow ones say their last event.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes, dict[str, str]]] = []
        self.running = 0
        self.go = asyncio.Event()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/responses", self._responses)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_post("/{version:v1|v1beta}/models/{model}:{verb}", self._gemini)
        return app

    async def _asked(self, request: web.Request) -> dict[str, Any]:
        body = await request.read()
        fields = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((request.path_qs, body, fields))
        found: dict[str, Any] = json.loads(body)
        return found

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await self._asked(request)
        if asked["model"] == "refused":
            return _refused(
                {"error": {"message": "Rate limit reached", "type": "tokens", "code": "rate_limit_exceeded"}}
            )
        if not asked.get("stream"):
            return await _whole(request, _completion(asked))
        counted = bool((asked.get("stream_options") or {}).get("include_usage"))
        events: list[Event] = [("", chunk) for chunk in _chunks(asked, counted=counted)]
        return await self._stream(request, asked["model"], events, last=b"data: [DONE]\n\n")

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        asked = await self._asked(request)
        ending = "incomplete" if asked["model"] == "short" else "completed"
        if not asked.get("stream"):
            return await _whole(request, _response(asked, ending))
        events: list[Event] = [
            (name, {"type": name, "sequence_number": number, **members})
            for number, (name, members) in enumerate(_response_events(asked, ending))
        ]
        return await self._stream(request, asked["model"], events)

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        asked = await self._asked(request)
        vectors = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25, 0.125]}]
        usage = {"prompt_tokens": 8, "total_tokens": 8}
        return await _whole(request, {"object": "list", "data": vectors, "model": asked["model"], "usage": usage})

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        asked = await self._asked(request)
        if not asked.get("stream"):
            return await _whole(request, _message(asked))
        events: list[Event] = [(str(event["type"]), event) for event in _message_events(asked)]
        return await self._stream(request, asked["model"], events)

    async def _gemini(self, request: web.Request) -> web.StreamResponse:
        await self._asked(request)
        model = request.match_info["model"]
        parts = list(_candidates(model))
        if request.match_info["verb"] == "generateContent":
            return await _whole(request, _candidate(model, "".join(TEXT), GEMINI_USAGE, "STOP"))
        if request.query.get("alt") == "sse":
            return await self._stream(request, model, [("", part) for part in parts])
        text = b"[" + b",\r\n".join(_json(part) for part in parts) + b"]"
        pieces = [text[at : at + 50] for at in range(0, len(text), 50)]
        return await self._pieces(request, "application/json", pieces, model)

    async def _stream(
        self, request: web.Request, model: str, events: list[Event], last: bytes = b""
    ) -> web.StreamResponse:
        pieces = [
            (f"event: {name}\n".encode() if name else b"") + b"data: %b\n\n" % _json(event) for name, event in events
        ]
        if last:
            pieces.append(last)
        return await self._pieces(request, "text/event-stream; charset=utf-8", pieces, model)

    async def _pieces(
        self, request: web.Request, content_type: str, pieces: list[bytes], model: str
    ) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": content_type, "X-Vendor": "yes"})
        answer.enable_chunked_encoding()
        _compress(request, answer)
        await answer.prepare(request)
        self.running += 1
        try:
            for number, piece in enumerate(pieces):
                if model == "slow" and number == 2:
                    await self.go.wait()
                await answer.write(piece)
                await asyncio.sleep(0)
            await answer.write_eof()
        finally:
            self.running -= 1
        return answer


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _compress(request: web.Request, answer: web.StreamResponse) -> None:
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        answer.enable_compression(web.ContentCoding.gzip)


async def _whole(request: web.Request, value: Mapping[str, Any]) -> web.StreamResponse:
    answer = web.Response(body=_json(value), content_type="application/json", headers={"X-Vendor": "yes"})
    _compress(request, answer)
    return answer


def _refused(value: Mapping[str, Any]) -> web.Response:
    return web.Response(status=429, body=_json(value), content_type="application/json")


# OpenAI.


def _completion(asked: Mapping[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": "".join(TEXT), "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    named = {"id": "chatcmpl-B9MBs8Cj", "object": "chat.completion", "created": 1741570283, "model": _dated(asked)}
    return {**named, "choices": [choice], "usage": CHAT_USAGE, "service_tier": "default", "system_fingerprint": "fp_1"}


def _dated(asked: Mapping[str, Any]) -> str:
    return f"{asked['model']}-2025-04-14"


def _chunks(asked: Mapping[str, Any], *, counted: bool) -> Iterable[dict[str, Any]]:
    named = {
        "id": "chatcmpl-B9MHDbsl", "object": "chat.completion.chunk", "created": 1741570284, "model": _dated(asked),
        "service_tier": "default", "system_fingerprint": "fp_1",
    }  # fmt: skip
    extra = {"usage": None} if counted else {}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{"content": text} for text in TEXT]
    for delta in deltas:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        yield {**named, "choices": [choice], **extra}
    yield {**named, "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}], **extra}
    if asked["model"] == "overloaded":
        yield {"error": {"message": "The server had an error", "type": "server_error", "param": None, "code": None}}
    elif counted:
        yield {**named, "choices": [], "usage": CHAT_USAGE}


def _response(asked: Mapping[str, Any], status: str) -> dict[str, Any]:
    done = status != "in_progress"
    content = [{"type": "output_text", "text": "".join(TEXT), "annotations": []}]
    message = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": content}
    return {
        "id": "resp_67ccd", "object": "response", "created_at": 1741476777, "status": status, "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None, "max_output_tokens": None, "model": _dated(asked), "output": [message] if done else [],
        "parallel_tool_calls": True, "previous_response_id": None, "reasoning": {"effort": None, "summary": None},
        "service_tier": "default" if done else "auto", "store": True, "temperature": 1.0,
        "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0,
        "truncation": "disabled", "usage": RESPONSE_USAGE if done else None, "metadata": {},
    }  # fmt: skip


def _response_events(asked: Mapping[str, Any], ending: str) -> Iterable[Event]:
    item = {"type": "message", "id": "msg_1", "status": "in_progress", "role": "assistant", "content": []}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": []}
    whole = {"type": "output_text", "text": "".join(TEXT), "annotations": []}
    yield "response.created", {"response": _response(asked, "in_progress")}
    yield "response.in_progress", {"response": _response(asked, "in_progress")}
    yield "response.output_item.added", {"output_index": 0, "item": item}
    yield "response.content_part.added", {**at, "part": empty}
    for text in TEXT:
        yield "response.output_text.delta", {**at, "delta": text, "logprobs": []}
    yield "response.output_text.done", {**at, "text": "".join(TEXT), "logprobs": []}
    yield "response.content_part.done", {**at, "part": whole}
    done = {**item, "status": "completed", "content": [whole]}
    yield "response.output_item.done", {"output_index": 0, "item": done}
    yield f"response.{ending}", {"response": _response(asked, ending)}


# Anthropic.


def _message(asked: Mapping[str, Any], **other: Any) -> dict[str, Any]:
    return {
        "id": "msg_013Zva2C", "type": "message", "role": "assistant", "model": asked["model"],
        "content": [{"type": "text", "text": "".join(TEXT)}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": MESSAGE_USAGE, **other,
    }  # fmt: skip


def _message_events(asked: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    begun = _message(asked, content=[], stop_reason=None, usage={**MESSAGE_USAGE, "output_tokens": 1})
    yield {"type": "message_start", "message": begun}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    yield {"type": "ping"}
    for text in TEXT:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    if asked["model"] == "overloaded":
        yield {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        return
    yield {"type": "content_block_stop", "index": 0}
    ending = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": ending, "usage": {"output_tokens": MESSAGE_USAGE["output_tokens"]}}
    yield {"type": "message_stop"}


# Gemini.


def _candidate(model: str, text: str, usage: Mapping[str, int], reason: str = "") -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": f"{model}-002", "responseId": "r1"}


def _candidates(model: str) -> Iterable[dict[str, Any]]:
    known = {"promptTokenCount": 264, "cachedContentTokenCount": 64, "totalTokenCount": 264}
    for text in TEXT[:-1]:
        yield _candidate(model, text, known)
    yield _candidate(model, TEXT[-1], GEMINI_USAGE, "STOP")
