"""AI answers through a whole node, with the vendors' own clients: they notice nothing, and the records hold the tokens.

What a client is given directly and through the node is compared byte by byte; the upstream answers in the vendors'
published shapes, compressed for who takes it.
"""

import asyncio
import contextlib
import signal
import socket
import struct
from decimal import Decimal

import anthropic
import httpx
import openai
import orjson
import pytest

from tests.app.node import KEY
from tests.e2e.shop import Customer, shop
from tests.e2e.stage import WITH_KEY, records, served, sidecar, usage
from tests.servers.ai import CHAT_USAGE, TEXT, Vendors

pytestmark = pytest.mark.redis

SAID = "".join(TEXT)
POLICY = """\
meters:
  requests: { count: 1, when: { status: [2xx, 3xx, 4xx] } }
  input_tokens: { usage: input_uncached }
  cached_tokens: { usage: cache_read }
  cache_write_tokens: { usage: cache_write }
  output_tokens: { usage: output }
  reasoning_tokens: { usage: reasoning }
routes:
  - { id: chat, match: { methods: [POST], path: /v1/chat/completions }, usage: openai, estimate: { output: 500 } }
  - { id: responses, match: { methods: [POST], path: /v1/responses }, usage: openai }
  - { id: embeddings, match: { methods: [POST], path: /v1/embeddings }, usage: openai }
  - { id: messages, match: { methods: [POST], path: /v1/messages }, usage: anthropic }
  - { id: gemini, match: { methods: [POST], path: "/v1beta/**" }, usage: auto }
plans:
  free:
    limits:
      - { id: tokens, meter: output_tokens, quota: 1000000/month, reserve: 100 }
      - { id: slots, concurrency: 50 }
"""
CHAT = {"input_tokens": 200, "cached_tokens": 1000, "output_tokens": 50, "reasoning_tokens": 300}
RESPONSE = {"input_tokens": 200, "cached_tokens": 128, "output_tokens": 40, "reasoning_tokens": 12}
MESSAGE = {"input_tokens": 25, "cached_tokens": 900, "cache_write_tokens": 40, "output_tokens": 17}
EMBEDDING = {"input_tokens": 8}
GEMINI = {"input_tokens": 200, "cached_tokens": 64, "output_tokens": 30, "reasoning_tokens": 70}


class Stand:
    """A node before the vendors, and how to speak to either."""

    def __init__(self, vendors, running, url, redis):
        self.vendors, self.running, self.url, self.redis = vendors, running, url, redis

    def openai(self, kind=openai.OpenAI):
        return kind(api_key=KEY, base_url=f"{self.running.where}/v1", max_retries=0)

    def anthropic(self, kind=anthropic.Anthropic):
        return kind(api_key=KEY, base_url=self.running.where, max_retries=0)

    async def record(self):
        [record] = await records(self.running)
        return record

    def reserved(self):
        """What the quota of tokens holds, on Redis."""
        [key] = self.redis.cli.keys("sc:{c1}:q=tokens:*")
        return int(self.redis.cli.get(key))

    async def leave(self):
        """Ask for a slow stream, see its beginning, and reset the connection."""
        host, _, port = self.running.where.rpartition("/")[2].partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        body = orjson.dumps({"model": "slow", "messages": [], "stream": True})
        head = f"Host: api\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(f"POST /v1/chat/completions HTTP/1.1\r\n{head}".encode() + body)
        await reader.readuntil(b"Bonjour")
        writer.transport.abort()

    async def until_left(self):
        """Until the node has noticed that no client is there."""
        while "sidecar_open_connections 0" not in (await self.running.tell("/metrics"))[1].replace(".0", ""):
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def stand(folder, redis, policy=POLICY, **settings):
    vendors = Vendors()
    own = {"REDIS__URL": redis.url, "REDIS__TIMEOUT": "2s", **settings}
    async with served(vendors.application()) as url, sidecar(folder, url, policy=policy, **own) as running:
        yield Stand(vendors, running, url, redis)


def tokens(record):
    return {name: units for name, units in record["usage"].items() if name != "requests" and units}


# The official clients.


def chat(client, **more):
    return client.chat.completions.create(model="gpt-4.1", messages=[{"role": "user", "content": "Salut"}], **more)


def plain_chat(at):
    answer = chat(at.openai())
    assert (answer.choices[0].message.content, answer.usage.total_tokens) == (SAID, 1550)


def streamed_chat(at):
    chunks = list(chat(at.openai(), stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID  # fails on a chunk without choices
    assert [chunk.usage for chunk in chunks if chunk.usage is not None] == []


def counted_chat(at):
    chunks = list(chat(at.openai(), stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.model_dump(exclude_unset=True) == CHAT_USAGE


async def chat_async(at):
    async with at.openai(openai.AsyncOpenAI) as client:
        answer = await chat(client)
        assert answer.choices[0].message.content == SAID


async def streamed_chat_async(at):
    async with at.openai(openai.AsyncOpenAI) as client:
        stream = await chat(client, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == SAID


def plain_response(at):
    answer = at.openai().responses.create(model="gpt-4.1", input="Salut")
    assert (answer.output_text, answer.usage.input_tokens) == (SAID, 328)


def streamed_response(at):
    events = list(at.openai().responses.create(model="gpt-4.1", input="Salut", stream=True))
    assert (events[-1].type, events[-1].response.output_text) == ("response.completed", SAID)


def short_response(at):
    events = list(at.openai().responses.create(model="short", input="Salut", stream=True))
    assert events[-1].type == "response.incomplete"


def embedding(at):
    answer = at.openai().embeddings.create(model="text-embedding-3-small", input="Salut", encoding_format="float")
    assert answer.data[0].embedding == [0.5, -0.25, 0.125]


def say(client, **more):
    messages = [{"role": "user", "content": "Salut"}]
    return client.messages.create(model="claude-next", max_tokens=300, messages=messages, **more)


def plain_message(at):
    answer = say(at.anthropic())
    assert (answer.content[0].text, answer.usage.output_tokens) == (SAID, 17)


def streamed_message(at):
    events = list(say(at.anthropic(), stream=True))
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")


def gathered_message(at):
    messages = [{"role": "user", "content": "Salut"}]
    with at.anthropic().messages.stream(model="claude-next", max_tokens=300, messages=messages) as stream:
        assert stream.get_final_text() == SAID


async def message_async(at):
    async with at.anthropic(anthropic.AsyncAnthropic) as client:
        assert (await say(client)).content[0].text == SAID


async def streamed_message_async(at):
    async with at.anthropic(anthropic.AsyncAnthropic) as client:
        events = [event async for event in await say(client, stream=True)]
        assert events[-1].type == "message_stop"


CONVERSATIONS = [
    (plain_chat, CHAT, {"model": "gpt-4.1-2025-04-14", "service_tier": "default"}),
    (streamed_chat, CHAT, {"model": "gpt-4.1-2025-04-14", "service_tier": "default"}),
    (counted_chat, CHAT, {"model": "gpt-4.1-2025-04-14", "service_tier": "default"}),
    (chat_async, CHAT, {"model": "gpt-4.1-2025-04-14", "service_tier": "default"}),
    (streamed_chat_async, CHAT, {"model": "gpt-4.1-2025-04-14", "service_tier": "default"}),
    (plain_response, RESPONSE, {"model": "gpt-4.1-2025-04-14", "service_tier": "default"}),
    (streamed_response, RESPONSE, {"model": "gpt-4.1-2025-04-14", "service_tier": "default"}),
    (short_response, RESPONSE, {"model": "short-2025-04-14", "service_tier": "default"}),
    (embedding, EMBEDDING, {"model": "text-embedding-3-small"}),
    (plain_message, MESSAGE, {"model": "claude-next", "service_tier": "standard"}),
    (streamed_message, MESSAGE, {"model": "claude-next", "service_tier": "standard"}),
    (gathered_message, MESSAGE, {"model": "claude-next", "service_tier": "standard"}),
    (message_async, MESSAGE, {"model": "claude-next", "service_tier": "standard"}),
    (streamed_message_async, MESSAGE, {"model": "claude-next", "service_tier": "standard"}),
]


# APISIX #13662, Kong #14535: totals left out the input; streams had no completion tokens.
# Fails if the extra chunk of a stream is left in (the clients trip over it), or a kind is counted in another.
async def test_the_vendors_own_clients_notice_nothing_and_the_records_hold_the_right_kinds(tmp_path, redis_clean):
    async with stand(tmp_path, redis_clean) as at:
        for conversation, _, _ in CONVERSATIONS:
            if asyncio.iscoroutinefunction(conversation):
                await conversation(at)
            else:
                await asyncio.to_thread(conversation, at)
        found = await records(at.running, len(CONVERSATIONS))
        for record, (conversation, used, dims) in zip(found, CONVERSATIONS, strict=True):
            said = (tokens(record), record["dims"], record["quality"], record["billable"])
            assert said == (used, dims, "provider_reported", True), conversation.__name__
        assert at.reserved() == sum(used.get("output_tokens", 0) for _, used, _ in CONVERSATIONS)
        assert not any("authorization" in fields or "x-api-key" in fields for _, _, fields in at.vendors.seen)


async def test_an_official_client_raises_what_it_would_without_us(tmp_path, redis_clean):
    async with stand(tmp_path, redis_clean) as at:
        async with at.openai(openai.AsyncOpenAI) as client:
            with pytest.raises(openai.RateLimitError, match="Rate limit reached"):
                await client.chat.completions.create(model="refused", messages=[])
            with pytest.raises(openai.APIError, match="The server had an error"):
                async for _ in await client.chat.completions.create(model="overloaded", messages=[], stream=True):
                    pass
        async with at.anthropic(anthropic.AsyncAnthropic) as client:
            with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
                async for _ in await client.messages.create(model="overloaded", max_tokens=9, messages=[], stream=True):
                    pass
        refused, chat_broke, message_broke = await records(at.running, 3)
        assert (tokens(refused), refused["status"]) == ({}, 429)
        assert (chat_broke["quality"], message_broke["quality"]) == ("estimated", "estimated")
        assert tokens(chat_broke)["output_tokens"] > 0
        assert (tokens(message_broke)["input_tokens"], tokens(message_broke)["cached_tokens"]) == (25, 900)
        total = sum(record["usage"]["output_tokens"] for record in (refused, chat_broke, message_broke))
        assert at.reserved() == total


# Byte by byte.

ASKED = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Salut \u00e9"}]}
STREAMS = {**ASKED, "stream": True}
WIRES = [
    ("/v1/chat/completions", ASKED, CHAT),
    ("/v1/chat/completions", STREAMS, CHAT),
    ("/v1/chat/completions", {**STREAMS, "stream_options": {"include_usage": False}}, CHAT),
    ("/v1/chat/completions", {**STREAMS, "stream_options": {"include_usage": True}}, CHAT),
    ("/v1/chat/completions", {**STREAMS, "stream_options": None}, CHAT),
    ("/v1/responses", {**ASKED, "input": "x", "stream": True}, RESPONSE),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "x"}, EMBEDDING),
    ("/v1/messages", {**ASKED, "max_tokens": 9}, MESSAGE),
    ("/v1/messages", {**STREAMS, "max_tokens": 9}, MESSAGE),
    ("/v1beta/models/gemini-2.5-pro:generateContent", {"contents": []}, GEMINI),
    ("/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse", {"contents": []}, GEMINI),
    ("/v1beta/models/gemini-2.5-pro:streamGenerateContent", {"contents": []}, GEMINI),
]


async def bytes_of(client, url, body, encoding):
    """Everything of an answer that a client can see, but for what is a hop's own; the body as it was on the wire."""
    headers = {**WITH_KEY, "Content-Type": "application/json", "Accept-Encoding": encoding}
    async with client.stream("POST", url, content=orjson.dumps(body), headers=headers) as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
        kept = {name: answer.headers.get(name) for name in ("content-type", "x-vendor", "server")}
        return answer.status_code, kept, answer.headers.get("content-encoding"), raw


# Fails if an answer is decoded, encoded, cut or filled up on its way.
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_what_a_client_is_given_is_what_it_would_be_given_without_us(tmp_path, redis_clean, encoding):
    async with stand(tmp_path, redis_clean) as at, httpx.AsyncClient() as client:
        for path, body, _ in WIRES:
            direct = await bytes_of(client, at.url + path, body, encoding)
            through = await bytes_of(client, at.running.where + path, body, encoding)
            if encoding == "gzip" and through[2] is None:  # usage was asked for, so the answer came plain
                direct = await bytes_of(client, at.url + path, body, "identity")
            assert through == direct, (path, body)
        found = await records(at.running, len(WIRES))
        assert [tokens(record) for record in found] == [used for _, _, used in WIRES]
        assert {record["quality"] for record in found} == {"provider_reported"}


async def test_a_body_beyond_the_bound_is_served_and_estimated(tmp_path, redis_clean):
    async with stand(tmp_path, redis_clean) as at, httpx.AsyncClient() as client:
        picture = {**ASKED, "messages": [{"role": "user", "content": "A" * 1_500_000}]}
        status, *_, body = await bytes_of(client, f"{at.running.where}/v1/chat/completions", picture, "identity")
        assert (status, orjson.loads(body)["usage"]) == (200, CHAT_USAGE)
        assert tokens(await at.record()) == CHAT
        assert at.reserved() == CHAT["output_tokens"]


# litellm #14457, #13245: the client left in mid-stream, and no usage was known.
# Fails if the upstream's connection is closed with the client's.
@pytest.mark.parametrize("ends", [True, False])
async def test_an_answer_is_read_on_when_its_client_has_left(tmp_path, redis_clean, ends):
    policy = POLICY if ends else POLICY.replace("estimate:", "drain: 500ms, estimate:")
    async with stand(tmp_path, redis_clean, policy) as at:
        await at.leave()
        if ends:
            await at.until_left()
            at.vendors.go.set()
        record = await at.record()
        assert (record["client_disconnected"], record["outcome"], record["status"]) == (True, "client_gone", 200)
        assert record["quality"] == ("provider_reported" if ends else "estimated")
        assert record["usage"]["output_tokens"] == (CHAT["output_tokens"] if ends else 2)  # "Bonjour"
        assert at.reserved() == record["usage"]["output_tokens"]


# I12. Fails if a stop forgets an answer that nobody listens to any more.
async def test_a_drain_waits_for_what_is_read_on(tmp_path, redis_clean):
    async with stand(tmp_path, redis_clean) as at:
        await at.leave()
        await at.until_left()
        at.running.process.send_signal(signal.SIGTERM)
        while (await at.running.tell("/readyz"))[0] == 200:
            await asyncio.sleep(0.02)
        assert (usage(at.running), at.vendors.running) == ([], 1)
        at.vendors.go.set()
        assert await asyncio.wait_for(at.running.process.wait(), 30) == 0
        assert tokens(await at.record()) == CHAT


async def test_a_model_is_for_plans_that_have_its_feature(tmp_path, redis_clean):
    gated = POLICY.replace("estimate: { output: 500 }", 'models: { "gpt-4*": big }')
    gated += "  big: { limits: [], features: [big] }\n"
    async with stand(tmp_path, redis_clean, gated) as at, at.openai(openai.AsyncOpenAI) as client:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await chat(client)
        assert refused.value.response.json()["plans"] == ["big"]
        await client.chat.completions.create(model="small", messages=[])
        assert (await at.record())["dims"]["model"] == "small-2025-04-14"


PREPAID = (
    POLICY.partition("plans:")[0]
    + """\
plans:
  prepaid:
    currency: usd
    prices:
      input_tokens: { price: "2.50", per: 1000000 }
      cached_tokens: { price: "1.25", per: 1000000 }
      output_tokens: { price: "10", per: 1000000 }
      reasoning_tokens: { price: "10", per: 1000000 }
    limits:
      - { id: credit, balance: usd, link: "https://example.com/top-up" }
"""
)


# One chat is 200 x 2.50 + 1000 x 1.25 + 350 x 10 a million, and holds 500 x 10 while it lasts.
async def test_a_prepaid_balance_burns_to_the_digit_and_then_asks_for_more(tmp_path, redis_clean):
    ann = Customer("ann", "prepaid")
    async with shop(tmp_path, PREPAID, [ann], Vendors().application(), redis_clean.url) as at:
        await at.grant(ann, "0.02", "usd")
        async with openai.AsyncOpenAI(api_key=ann.key, base_url=f"{at.node.where}/v1", max_retries=0) as client:
            for _ in range(3):
                await chat(client)
            await at.records(3)
            assert Decimal((await at.wallet(ann, "usd"))["balance"]) == Decimal("0.02") - 3 * Decimal("0.00525")
            with pytest.raises(openai.APIStatusError) as refused:
                await chat(client)
        problem = refused.value.response.json()
        assert (refused.value.status_code, problem["link"]) == (402, "https://example.com/top-up")
        assert problem["type"].endswith("balance-exhausted")
