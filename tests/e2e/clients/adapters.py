"""Clients that people use, each behind the same three words, so that one conversation is held with all of them.

`ask` sends one request, follows redirects and decodes what the client decodes by itself; `abandon` reads the beginning
of an answer and goes away. A client keeps its connections open between requests where it can.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import aiohttp
import httpx
import requests

from tests.e2e.stage import program

PIECE = 65_536


class Answer(NamedTuple):
    """What the client says it got; header names in lower case."""

    status: int
    fields: dict[str, str]
    body: bytes


def lower(fields):
    return {name.lower(): value for name, value in fields.items()}


def pieces(body):
    """The body in pieces of unknown number: a client sends it chunked."""
    for at in range(0, len(body), PIECE):
        yield body[at : at + PIECE]


async def pieces_later(body):
    for piece in pieces(body):
        await asyncio.sleep(0)
        yield piece


class Httpx:
    """httpx, synchronous, in a thread."""

    async def __aenter__(self):
        self._client = httpx.Client(follow_redirects=True, timeout=20)
        return self

    async def __aexit__(self, *_):
        self._client.close()

    async def ask(self, method, url, fields, body=None, *, chunked=False):
        content = pieces(body) if chunked else body
        answer = await asyncio.to_thread(self._client.request, method, url, headers=fields, content=content)
        return Answer(answer.status_code, lower(answer.headers), answer.content)

    async def abandon(self, url, fields, size):
        def read():
            with self._client.stream("GET", url, headers=fields) as answer:
                got = 0
                for piece in answer.iter_bytes():
                    got += len(piece)
                    if got >= size:
                        break

        await asyncio.to_thread(read)


class HttpxAsync:
    """httpx, asynchronous."""

    async def __aenter__(self):
        self._client = httpx.AsyncClient(follow_redirects=True, timeout=20)
        return self

    async def __aexit__(self, *_):
        await self._client.aclose()

    async def ask(self, method, url, fields, body=None, *, chunked=False):
        content = pieces_later(body) if chunked else body
        answer = await self._client.request(method, url, headers=fields, content=content)
        return Answer(answer.status_code, lower(answer.headers), answer.content)

    async def abandon(self, url, fields, size):
        async with self._client.stream("GET", url, headers=fields) as answer:
            got = 0
            async for piece in answer.aiter_bytes():
                got += len(piece)
                if got >= size:
                    break


class Aiohttp:
    """aiohttp's client session."""

    async def __aenter__(self):
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_):
        await self._session.close()

    async def ask(self, method, url, fields, body=None, *, chunked=False):
        data = pieces_later(body) if chunked else body and io.BytesIO(body)
        async with self._session.request(method, url, headers=fields, data=data) as answer:
            return Answer(answer.status, lower(answer.headers), await answer.read())

    async def abandon(self, url, fields, size):
        async with self._session.get(url, headers=fields) as answer:
            await answer.content.readexactly(size)


class Requests:
    """A session of requests, in a thread."""

    async def __aenter__(self):
        self._session = requests.Session()
        return self

    async def __aexit__(self, *_):
        self._session.close()

    async def ask(self, method, url, fields, body=None, *, chunked=False):
        data = pieces(body) if chunked else body
        answer = await asyncio.to_thread(self._session.request, method, url, headers=fields, data=data, timeout=20)
        return Answer(answer.status_code, lower(answer.headers), answer.content)

    async def abandon(self, url, fields, size):
        def read():
            with self._session.get(url, headers=fields, stream=True, timeout=20) as answer:
                next(answer.iter_content(size))

        await asyncio.to_thread(read)


class Curl:
    """curl, a process for each request. It sends `Expect: 100-continue` by itself before more than a mebibyte."""

    extra: tuple[str, ...] = ()

    async def __aenter__(self):
        self._program = program("curl")
        self._folder = contextlib.ExitStack()
        self._here = Path(self._folder.enter_context(tempfile.TemporaryDirectory()))
        return self

    async def __aexit__(self, *_):
        self._folder.close()

    async def run(self, *words):
        """The output of curl with these words; what it says on stderr where it fails."""
        command = (self._program, "--silent", "--show-error", "--max-time", "30", *self.extra, *words)
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        return process.returncode, out, err.decode()

    async def ask(self, method, url, fields, body=None, *, chunked=False):
        sent, heads = self._here / "sent", self._here / "heads"
        words = ["--location", "--compressed", "--dump-header", str(heads), url]
        words += ["--head"] if method == "HEAD" else [] if method == "GET" else ["--request", method]
        if chunked:
            fields = fields | {"Transfer-Encoding": "chunked"}
        for name, value in fields.items():
            words += ["--header", f"{name}: {value}"]
        if body is not None:
            sent.write_bytes(body)
            words += ["--data-binary", f"@{sent}"]
        status, out, err = await self.run(*words)
        assert status == 0, err
        last = heads.read_bytes().decode().strip().split("\r\n\r\n")[-1].split("\r\n")
        found = dict(line.split(": ", 1) for line in last[1:] if ": " in line)
        return Answer(int(last[0].split()[1]), lower(found), b"" if method == "HEAD" else out)

    async def abandon(self, url, fields, size):
        words = [word for name, value in fields.items() for word in ("--header", f"{name}: {value}")]
        status, _, _ = await self.run(*words, "--max-filesize", str(size), "--max-time", "1", url)
        assert status in (28, 63), status  # its time is over, or the file too large


class Curl10(Curl):
    """curl that speaks HTTP/1.0."""

    extra = ("--http1.0",)


class Fetch:
    """fetch of Node, in one process for the whole conversation."""

    async def __aenter__(self):
        script = Path(__file__).with_name("fetch.mjs")
        self._process = await asyncio.create_subprocess_exec(
            *(program("node"), str(script)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
        )
        return self

    async def __aexit__(self, *_):
        self._process.stdin.close()
        await self._process.wait()

    async def _tell(self, **command):
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        told = json.loads(await asyncio.wait_for(self._process.stdout.readline(), 30))
        assert "error" not in told, told
        return told

    async def ask(self, method, url, fields, body=None, *, chunked=False):
        coded = None if body is None else base64.b64encode(body).decode()
        told = await self._tell(method=method, url=url, headers=fields, body=coded, chunked=chunked)
        return Answer(told["status"], told["headers"], base64.b64decode(told["body"]))

    async def abandon(self, url, fields, size):
        told = await self._tell(method="GET", url=url, headers=fields, body=None, abortAfter=size)
        assert told["size"] >= size


CLIENTS = {
    "httpx": Httpx, "httpx-async": HttpxAsync, "aiohttp": Aiohttp, "requests": Requests, "curl": Curl,
    "curl-1.0": Curl10, "node-fetch": Fetch,
}  # fmt: skip
