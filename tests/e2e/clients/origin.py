"""An API as others write it, for the clients and upstreams under test: the same paths on aiohttp and on uvicorn.

As a program (`python origin.py PORT`) it is a plain ASGI application on uvicorn, to be killed and started again.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import zlib

from aiohttp import web

LARGE_BYTES = 5_000_000
LARGE = bytes(range(256)) * (LARGE_BYTES // 256)
TEXT = "the quick brown fox " * 500
STREAMED = [b"part %d\n" % number for number in range(20)]


def told(method, fields, body):
    """What arrived: method, header fields with lower-case names, size and checksum of the body."""
    return {"method": method, "fields": fields, "bytes": len(body), "crc32": zlib.crc32(body)}


async def echo(request):
    fields = {name.lower(): ", ".join(request.headers.getall(name)) for name in request.headers}
    return web.json_response(
        told(request.method, fields, await request.read()) | {"query": request.rel_url.raw_query_string}
    )


async def empty(_request):
    return web.Response(status=204)


async def landed(_request):
    return web.Response(text="landed")


async def redirect(request):
    return web.Response(status=int(request.match_info["status"]), headers={"Location": "/echo"})


async def compressed(_request):
    fields = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
    return web.Response(body=gzip.compress(TEXT.encode()), headers=fields)


async def large(_request):
    return web.Response(body=LARGE, headers={"ETag": '"large"'})


async def failed(_request):
    return web.json_response({"error": {"code": "E42", "message": "it broke"}}, status=500)


async def streamed(request):
    answer = web.StreamResponse()
    answer.enable_chunked_encoding()
    await answer.prepare(request)
    for part in STREAMED:
        await answer.write(part)
        await asyncio.sleep(0)
    return answer


async def endless(request):
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b"." * 10_000)
        await asyncio.sleep(0.01)


def application():
    """The API on aiohttp."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/echo{nonce:.*}", echo)
    app.router.add_route("*", "/limited", landed)
    app.router.add_route("*", "/empty", empty)
    app.router.add_route("*", "/redirect/{status}", redirect)
    app.router.add_get("/compressed{nonce:.*}", compressed)
    app.router.add_get("/large", large)
    app.router.add_route("*", "/failed", failed)
    app.router.add_get("/streamed", streamed)
    app.router.add_get("/endless{nonce:.*}", endless)
    return app


async def asgi(scope, receive, send):
    """The part of the API that the tests of upstreams ask for, as an ASGI application."""
    if scope["type"] != "http":
        return
    path = scope["path"]

    async def answer(status, fields, *parts):
        await send({"type": "http.response.start", "status": status, "headers": fields})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    if path == "/echo":
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        fields = {name.decode(): value.decode() for name, value in scope["headers"]}
        content = json.dumps(told(scope["method"], fields, body)).encode()
        await answer(200, [(b"content-length", b"%d" % len(content))], content)
    elif path == "/empty":
        await answer(204, [])
    elif path == "/large":
        await answer(200, [(b"content-length", b"%d" % len(LARGE))], LARGE)
    elif path == "/streamed":
        await answer(200, [], *STREAMED)
    elif path == "/too-large":
        await answer(413, [(b"content-length", b"9"), (b"connection", b"close")], b"too large")
    elif path.startswith("/endless"):
        fields = [(b"content-length", b"1000000000")] if path == "/endless" else []
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        while True:
            await send({"type": "http.response.body", "body": b"." * 10_000, "more_body": True})
            await asyncio.sleep(0.01)
    else:
        await answer(404, [(b"content-length", b"0")])


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(asgi, host="127.0.0.1", port=int(sys.argv[1]), http="httptools", log_level="warning")
