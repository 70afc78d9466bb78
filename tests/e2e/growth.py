"""An origin and a crowd of clients, each a process of its own, for tests of a worker's memory over many requests.

    python -m tests.e2e.growth origin PORT
    python -m tests.e2e.growth clients PORT KEY REQUESTS VARIETY

VARIETY bounds the paths, bodies and unknown keys that are made up, so that caches of them fill early; 0: no bound. What
a chat asks for is always another number of tokens.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys

import uvloop

CONNECTIONS = 16
CHUNK = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Bonjour"}}]}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}\n\n'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Origin(asyncio.Protocol):
    """Chats are streamed, all else is a few bytes under a head that is always another."""

    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n") + 4) > 3:
            head = self.buffer[:end].lower()
            _, found, rest = head.partition(b"content-length:")
            length = int(rest.split(b"\r\n")[0]) if found else 0
            if len(self.buffer) < end + length:
                return
            self.buffer = self.buffer[end + length :]
            self.transport.write(chat() if b"/chat/" in head.split(b"\r\n")[0] else plain())


def chat():
    prompt, completion = random.randrange(5_000), random.randrange(900)
    events = [CHUNK] * 5 + [USAGE % (prompt, completion, prompt + completion), b"data: [DONE]\n\n"]
    return STREAM + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


def plain():
    body = b"x" * random.randrange(10, 400)
    return b"HTTP/1.1 200 OK\r\nX-Number: %d\r\nContent-Length: %d\r\n\r\n%b" % (
        random.getrandbits(30),
        len(body),
        body,
    )


async def origin(port):
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def get(key, number):
    return b"GET /api/a HTTP/1.1\r\nHost: h\r\nX-Api-Key: %b\r\n\r\n" % key


def elsewhere(key, number):
    return b"GET /api/%d/x HTTP/1.1\r\nHost: h\r\nX-Api-Key: %b\r\n\r\n" % (number, key)


def unknown(_key, number):
    return b"GET /api/a HTTP/1.1\r\nHost: h\r\nX-Api-Key: nobody-%d\r\n\r\n" % number


def post(key, number):
    body = b'{"n":%d,"text":"%b"}' % (number, b"y" * random.randrange(2_000))
    return b"POST /api/%d HTTP/1.1\r\nHost: h\r\nX-Api-Key: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        number, key, len(body), body,
    )  # fmt: skip


def asks_chat(key, number):
    content = "z" * random.randrange(2_000) + str(number)
    asked = {"model": "gpt-4o", "stream": True, "max_tokens": random.randrange(1, 4_000)}
    body = json.dumps(asked | {"messages": [{"role": "user", "content": content}]}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nX-Api-Key: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        key, len(body), body,
    )  # fmt: skip


KINDS = (get, elsewhere, unknown, post, asks_chat)


class Crowd:
    """`left` requests of all kinds in equal parts; one in twenty comes on a connection of its own."""

    def __init__(self, port, key, requests, variety):
        self.port, self.key, self.left = port, key.encode(), requests
        self.numbers = variety or 1 << 62
        self.statuses = {}

    async def run(self):
        await asyncio.gather(*(self._one() for _ in range(CONNECTIONS)))

    async def _one(self):
        reader = writer = None
        while self.left > 0:
            self.left -= 1
            if writer is None or random.random() < 0.05:
                if writer is not None:
                    writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(random.choice(KINDS)(self.key, random.randrange(self.numbers)))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            self.statuses[head[9:12].decode()] = self.statuses.get(head[9:12].decode(), 0) + 1
            _, found, rest = head.partition(b"content-length:")
            if found:
                await reader.readexactly(int(rest.split(b"\r\n")[0]))
            elif b"chunked" in head:
                await reader.readuntil(b"0\r\n\r\n")
            if b"connection: close" in head:
                writer.close()
                writer = None
        if writer is not None:
            writer.close()


async def clients(port, key, requests, variety):
    crowd = Crowd(int(port), key, int(requests), int(variety))
    await crowd.run()
    print(json.dumps(crowd.statuses))


if __name__ == "__main__":
    role, *arguments = sys.argv[1:]
    uvloop.run(origin(int(arguments[0])) if role == "origin" else clients(*arguments))
