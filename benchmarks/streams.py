"""An AI provider's stream: 200 chunks an answer, as OpenAI sends them, each written for itself, each a few milliseconds
after the one before. So whoever passes them on has to read and write every chunk alone: nothing waits long enough
to be read together.

A program of its own (PORT), on uvloop, cheap enough to feed what is measured from the other core: a chunk is one system
call, without the loop's buffers.
"""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop

CHUNKS = 200
SLOTS = 4  # a stream's next chunk is due when the wheel has gone round
TICK_SECONDS = 0.001
CHUNKED_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
SAYS = (
    '"id":"chatcmpl-1","object":"chat.completion.chunk","created":1763692406,"model":"gpt-4.1-2025-04-14",'
    '"service_tier":"default","system_fingerprint":"fp_1a2b3c4d5e"'
)
USAGE = (
    '{"prompt_tokens":68,"completion_tokens":197,"total_tokens":265,"prompt_tokens_details":{"cached_tokens":0,'
    '"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}}'
)


def framed(data: str) -> bytes:
    """One event as one chunk of the transfer coding."""
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def delta(text: str, finish: str = "null") -> bytes:
    choice = f'{{"index":0,"delta":{text},"logprobs":null,"finish_reason":{finish}}}'
    return framed(f'{{{SAYS},"choices":[{choice}],"usage":null}}')


WORDS = [delta(f'{{"content":" word{n % 10}"}}') for n in range(CHUNKS - 4)]
STREAM = [
    CHUNKED_HEAD + delta('{"role":"assistant","content":"","refusal":null}'),
    *WORDS,
    delta("{}", '"stop"'),
    framed(f'{{{SAYS},"choices":[],"usage":{USAGE}}}'),
    framed("[DONE]") + b"0\r\n\r\n",
]


BYTES = sum(map(len, STREAM))


class House:
    """All streams on their way, each in one slot of the wheel, and the counts."""

    def __init__(self) -> None:
        self.wheel: list[dict[Stream, None]] = [{} for _ in range(SLOTS)]
        self.at = 0
        self.accepted = 0
        self.requests = 0
        self.chunks = 0

    def begin(self, stream: Stream) -> None:
        self.requests += 1
        min(self.wheel, key=len)[stream] = None

    def turn(self) -> None:
        """The next slot: each of its streams gets one chunk."""
        self.at = (self.at + 1) % SLOTS
        slot = self.wheel[self.at]
        for stream in [stream for stream in slot if stream.step()]:
            del slot[stream]

    def status(self) -> bytes:
        """In the words of nginx's stub_status, with one figure more."""
        active = sum(map(len, self.wheel))
        counts = f" {self.accepted} {self.accepted} {self.requests} {self.chunks} "
        text = f"Active connections: {active} \nserver accepts handled requests chunks\n{counts}\n".encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)


class Stream(asyncio.Protocol):
    """One connection: every request but that for the status begins the stream again. Requests are not pipelined."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.received = b""
        self.next = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.fd = transport.get_extra_info("socket").fileno()
        self.house.accepted += 1

    def connection_lost(self, _exc: Exception | None) -> None:
        for slot in self.house.wheel:
            slot.pop(self, None)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if not found or len(body) < length_of(head):
            return
        self.received, self.next = b"", 0
        if head.startswith(b"GET /bench-status"):
            self.transport.write(self.house.status())
        else:
            self.house.begin(self)

    def step(self) -> bool:
        """Send one chunk, unless the reader is so far behind that it waits for the next turn; whether that is all."""
        try:
            sent = os.write(self.fd, STREAM[self.next])
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        if sent < len(STREAM[self.next]):
            raise SystemExit("a part of a chunk was sent: whoever reads is far too slow for this")
        self.house.chunks += 1
        self.next += 1
        return self.next == CHUNKS


def length_of(head: bytes) -> int:
    for line in head.lower().split(b"\r\n")[1:]:
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


async def serve(port: int) -> None:
    loop, house = asyncio.get_running_loop(), House()
    await loop.create_server(lambda: Stream(house), "127.0.0.1", port)
    while True:
        await asyncio.sleep(TICK_SECONDS)
        house.turn()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
