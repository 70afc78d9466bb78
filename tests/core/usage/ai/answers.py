"""Answers in the vendors' published shapes, and the way to have one read."""

import json
from itertools import pairwise

from sidecar.core.usage.ai import AiRequest, Reader

SSE = b"text/event-stream; charset=utf-8"
JSON = b"application/json"


def dumped(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def event(value, name=""):
    head = b"event: %b\n" % name.encode() if name else b""
    return head + b"data: " + dumped(value) + b"\n\n"


def ai_request(adapter="openai", **fields):
    return AiRequest(
        **{"adapter": adapter, "model": "m-1", "stream": True, "max_output": None, "input_bytes": 40, "injected": False}
        | fields
    )


def cut(data, places):
    at = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[one:two] for one, two in pairwise(at)]


def passed(reader, pieces, *, complete=True):
    """What a client sees of the pieces, and the reading."""
    out = b"".join([reader.feed(piece) for piece in pieces])
    held, reading = reader.end(complete=complete)
    return out + held, reading


def reading_of(request, body, kind=JSON, *, status=200, coding=b"", complete=True, places=()):
    reader = Reader(request)
    reader.head(status, kind, coding)
    return passed(reader, cut(body, places), complete=complete)[1]


# OpenAI: platform.openai.com/docs/api-reference/chat/streaming, …/responses-streaming, …/embeddings.

CHAT_USAGE = {
    "prompt_tokens": 1117,
    "completion_tokens": 46,
    "total_tokens": 1163,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 30,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
CHAT_KINDS = {
    "input_uncached": 93,
    "cache_read": 1024,
    "audio_input": 0,
    "output": 16,
    "reasoning": 30,
    "audio_output": 0,
    "input": 1117,
    "output_total": 46,
}
CHAT = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion",
    "created": 1741569952,
    "model": "gpt-4.1-2025-04-14",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello!", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": CHAT_USAGE,
    "service_tier": "default",
}


def chunk(delta, finish=None, **more):
    return {
        "id": "chatcmpl-123",
        "object": "chat.completion.chunk",
        "created": 1694268190,
        "model": "gpt-4o-mini",
        "service_tier": "default",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
    } | more


DELTAS = ({"role": "assistant", "content": ""}, {"content": "Hello"}, {"content": ' "wörld"'})
EXTRA = chunk({}, choices=[], usage=CHAT_USAGE)
DONE = b"data: [DONE]\n\n"


def chat_stream(*, usage):
    """As it comes with usage asked for (every chunk has the member then) or without."""
    null = {"usage": None} if usage else {}
    chunks = [chunk(delta, **null) for delta in DELTAS] + [chunk({}, "stop", **null)]
    return b"".join(map(event, chunks)) + (event(EXTRA) if usage else b"") + DONE


RESPONSE_USAGE = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 6},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 123,
}
RESPONSE_KINDS = {
    "input_uncached": 30,
    "cache_read": 6,
    "output": 23,
    "reasoning": 64,
    "input": 36,
    "output_total": 87,
}


def response(status, usage=None, **more):
    return {
        "id": "resp_67ccd2bed1ec8190",
        "object": "response",
        "created_at": 1741476777,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": "o4-mini-2025-04-16",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "service_tier": "flex",
        "usage": usage,
    } | more


def response_stream(status="completed", usage=RESPONSE_USAGE):
    text = "Hi there!"
    events = [
        {"type": "response.created", "response": response("in_progress")},
        {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "delta": text[:2]},
        {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "delta": text[2:]},
        {"type": "response.output_text.done", "item_id": "msg_1", "output_index": 0, "text": text},
        {"type": f"response.{status}", "response": response(status, usage)},
    ]
    return b"".join(event(value, value["type"]) for value in events)


EMBEDDINGS = {
    "object": "list",
    "data": [{"object": "embedding", "embedding": [0.0023, -0.0093], "index": 0}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
EMBEDDINGS_KINDS = {"input_uncached": 8, "output": 0, "input": 8, "output_total": 0}

# Anthropic: docs.anthropic.com/en/api/messages, …/messages-streaming.

MESSAGE_USAGE = {
    "input_tokens": 2095,
    "cache_creation_input_tokens": 300,
    "cache_read_input_tokens": 1800,
    "cache_creation": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100},
    "output_tokens": 503,
    "server_tool_use": {"web_fetch_requests": 0, "web_search_requests": 0},
    "service_tier": "standard",
}
MESSAGE_KINDS = {
    "input_uncached": 2095,
    "cache_read": 1800,
    "cache_write": 200,
    "cache_write_long": 100,
    "output": 503,
    "input": 4195,
    "output_total": 503,
}
MESSAGE = {
    "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "Hi! My name is Claude."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": MESSAGE_USAGE,
}

_START = MESSAGE | {"content": [], "stop_reason": None, "usage": MESSAGE_USAGE | {"output_tokens": 1}}
_THOUGHT, _SAID = {"type": "thinking", "thinking": "", "signature": ""}, {"type": "text", "text": ""}
_CALLED = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
MESSAGE_EVENTS = [
    {"type": "message_start", "message": _START},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": _THOUGHT},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me see"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": _SAID},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": _CALLED},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
    {"type": "content_block_stop", "index": 2},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 503},
    },
    {"type": "message_stop"},
]


def message_stream(events=MESSAGE_EVENTS):
    return b"".join(event(value, value["type"]) for value in events)


# Gemini: ai.google.dev/api/generate-content.

GEMINI_USAGE = {
    "promptTokenCount": 1000,
    "cachedContentTokenCount": 600,
    "candidatesTokenCount": 6,
    "thoughtsTokenCount": 190,
    "toolUsePromptTokenCount": 50,
    "totalTokenCount": 1246,
    "promptTokensDetails": [
        {"modality": "TEXT", "tokenCount": 700},
        {"modality": "AUDIO", "tokenCount": 200},
        {"modality": "IMAGE", "tokenCount": 100},
    ],
    "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 450}, {"modality": "AUDIO", "tokenCount": 150}],
}
GEMINI_KINDS = {
    "input_uncached": 300,  # 250 of text that was not cached, and 50 of the tools
    "cache_read": 600,
    "audio_input": 50,
    "image_input": 100,
    "output": 6,
    "reasoning": 190,
    "input": 1050,
    "output_total": 196,
}


def candidate(text, finish=None, usage=GEMINI_USAGE):
    reason = {"finishReason": finish} if finish else {}
    return {
        "candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0} | reason],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-flash",
        "responseId": "x",
    }


EARLY = {"promptTokenCount": 1000, "totalTokenCount": 1000}
GEMINI = candidate("Hello", "STOP")
GEMINI_CHUNKS = [candidate("Hel", usage=EARLY), candidate('lo "]}', usage=EARLY), candidate("", "STOP")]


def gemini_stream(chunks=GEMINI_CHUNKS):
    return b"".join(b"data: " + dumped(value) + b"\r\n\r\n" for value in chunks)


def gemini_array(chunks=GEMINI_CHUNKS):
    return b"[" + b"\n,\r\n".join(json.dumps(value, indent=2).encode() for value in chunks) + b"\n]\n"
