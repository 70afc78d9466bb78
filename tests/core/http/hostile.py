"""Hostile requests, made of families: what is sent, and the status that it must get, or FORWARDED.

A request with more than one reading must get none. Those that are FORWARDED have one reading, and reach the upstream
in its canonical form; each is there because others have passed it on raw.
"""

from typing import NamedTuple

FORWARDED = 200
SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\r\n\r\n"


class Hostile(NamedTuple):
    """`statuses` are the answers that are right, in order of the requests that a client may count; 0: no answer."""

    name: str
    raw: bytes
    statuses: tuple[int, ...]


def head(*fields, line="GET /a HTTP/1.1", host="h"):
    return "\r\n".join([line, *([f"Host: {host}"] if host else []), "X-Api-Key: ann", *fields, "", ""])


def post(*fields, body="", version="1.1"):
    return head(*fields, line=f"POST /a HTTP/{version}") + body


def corpus():
    found = []
    for family in FAMILIES:
        for name, text, *statuses in family():
            raw = text if isinstance(text, bytes) else text.encode("latin-1")
            found.append(Hostile(f"{family.__name__}: {name}", raw, tuple(statuses)))
    return found


def length_and_chunks():
    chunks = "0\r\n\r\n" + SMUGGLED
    for coding in ("chunked", "Chunked", "chunked, identity", "identity", "xchunked", "gzip", "chunked;x"):
        for order in (1, -1):
            fields = [f"Content-Length: {len(chunks)}", f"Transfer-Encoding: {coding}"][::order]
            yield f"{coding} {order}", post(*fields, body=chunks), 400


def transfer_codings():
    spellings = (
        "gzip, chunked",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        ", chunked",
        "chunked, gzip",
        "identity",
        "gzip",
        "x chunked",
        "chunked x",
        "chunked;q=1",
        '"chunked"',
        "'chunked'",
        "chunke",
        "chunkedd",
        "\x0bchunked",
        "chunked\x0b",
        "\x0cchunked",
        "chunked\0",
        "\xa0chunked",
        "chunked\x85",
        "",
        "chunk",
        "chu\tnked",
        "cow",
        "identity, chunked",
        "deflate, chunked",
        "chunked , chunked",
    )
    for spelling in spellings:
        yield repr(spelling), post(f"Transfer-Encoding: {spelling}", body="0\r\n\r\n" + SMUGGLED), -4
    for first, second in (("chunked", "chunked"), ("chunked", "identity"), ("identity", "chunked"), ("chunked", "x")):
        yield (
            f"{first} and {second}",
            post(f"Transfer-Encoding: {first}", f"Transfer-Encoding: {second}", body="0\r\n\r\n"),
            -4,
        )
    for name in (
        "Transfer-Encoding ",
        "Transfer-Encoding\t",
        " Transfer-Encoding",
        "Transfer\x00-Encoding",
        "Transfer_Encoding",
        "TRANSFER_ENCODING",
        "Transfer-Encoding\x0b",
        "Transfer Encoding",
        "\x00Transfer-Encoding",
    ):
        yield repr(name), post(f"{name}: chunked", body="0\r\n\r\n" + SMUGGLED), 400
    yield "in HTTP/1.0", post("Transfer-Encoding: chunked", body="0\r\n\r\n", version="1.0"), 400
    yield "folded", post("Transfer-Encoding:\r\n chunked", body="0\r\n\r\n"), 400
    yield "behind a fold", post("X: y\r\n Transfer-Encoding: chunked", body="0\r\n\r\n"), 400
    yield "behind a bare line feed", post("X: y\nTransfer-Encoding: chunked", body="0\r\n\r\n"), 400
    yield "behind a bare carriage return", post("X: y\rTransfer-Encoding: chunked", body="0\r\n\r\n"), 400


def lengths():
    for value in (
        "5, 5",
        "5,6",
        "+5",
        "-5",
        "-0",
        "0x5",
        "5.0",
        "5e0",
        "5 5",
        "",
        "1" * 16,
        "\xb2",
        "5;a",
        "5\x0b",
        "5\0",
        "\xd9\xa5",
        "five",
        "0b1",
        "1_0",
        '"5"',
        "18446744073709551621",
        "4294967301 0",
    ):
        yield repr(value), post(f"Content-Length: {value}", body="hello"), 400
    for first, second in (("5", "5"), ("5", "6"), ("0", "5"), ("5", "0"), ("05", "5")):
        yield f"{first} and {second}", post(f"Content-Length: {first}", f"Content-Length: {second}", body="hello"), 400
    for name in (
        "Content-Length ",
        "Content-Length\t",
        " Content-Length",
        "Content\0-Length",
        "Content_Length",
        "Content-Length\x0c",
        "Content Length",
    ):
        yield repr(name), post(f"{name}: 5", body="hello"), 400
    yield "folded", post("Content-Length:\r\n 5", body="hello"), 400
    yield "of a GET", head("Content-Length: 5") + "hello", FORWARDED
    yield "with zeros", post("Content-Length: 0005", body="hello"), FORWARDED
    yield "hides a request", post(f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED), FORWARDED
    yield "longer than the body", post("Content-Length: 10", body="hello"), 0


def chunks():
    bad = {
        "sign": "+5\r\nhello\r\n0\r\n\r\n",
        "minus": "-5\r\nhello\r\n0\r\n\r\n",
        "prefix": "0x5\r\nhello\r\n0\r\n\r\n",
        "capital prefix": "0X5\r\nhello\r\n0\r\n\r\n",
        "underscore": "0_5\r\nhello\r\n0\r\n\r\n",
        "space before": " 5\r\nhello\r\n0\r\n\r\n",
        "space behind": "5 \r\nhello\r\n0\r\n\r\n",
        "tab behind": "5\t\r\nhello\r\n0\r\n\r\n",
        "junk behind": "5 x\r\nhello\r\n0\r\n\r\n",
        "junk": "5x\r\nhello\r\n0\r\n\r\n",
        "comma": "5,5\r\nhello\r\n0\r\n\r\n",
        "empty": "\r\nhello\r\n0\r\n\r\n",
        "nothing but an extension": ";a\r\nhello\r\n0\r\n\r\n",
        "overflow of 32 bits": "100000005\r\nhello\r\n0\r\n\r\n" + "x" * 10,
        "overflow of 64 bits": "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "overflow with zeros": "0" * 40 + "5\r\nhello\r\n0\r\n\r\n",
        "overflow of f": "f" * 16 + "\r\nhello\r\n0\r\n\r\n",
        "bare line feed": "5\nhello\r\n0\r\n\r\n",
        "bare carriage return": "5\rhello\r\n0\r\n\r\n",
        "line feed behind data": "5\r\nhello\n0\r\n\r\n",
        "carriage return behind data": "5\r\nhello\r0\r\n\r\n",
        "nothing behind data": "5\r\nhello0\r\n\r\n",
        "junk behind data": "5\r\nhelloxx0\r\n\r\n",
        "short": "3\r\nhello\r\n0\r\n\r\n",
        "long": "7\r\nhello\r\n0\r\n\r\n",
        "line feed in an extension": "5;a\nx\r\nhello\r\n0\r\n\r\n",
        "line feed ends an extension": "5;a\nhello\r\n0\r\n\r\n",
        "carriage return in an extension": "5;a\rx\r\nhello\r\n0\r\n\r\n",
        "NUL in an extension": "5;a=\0\r\nhello\r\n0\r\n\r\n",
        "control in an extension": "5;a=\x01\r\nhello\r\n0\r\n\r\n",
        "long extension": "5;" + "a" * 5000 + "\r\nhello\r\n0\r\n\r\n",
        "many extensions": ("1;" + "a" * 4000 + "\r\nx\r\n") * 6 + "0\r\n\r\n",
        "last line feed": "5\r\nhello\r\n0\r\n\n",
        "last size line feed": "5\r\nhello\r\n0\n\r\n",
        "trailer without colon": "0\r\nx\r\n\r\n",
        "trailer with a space": "0\r\na : b\r\n\r\n",
        "trailer folded": "0\r\na: b\r\n c\r\n\r\n",
        "trailer with NUL": "0\r\na: \0\r\n\r\n",
        "trailer with line feed": "0\r\na: b\nc: d\r\n\r\n",
        "trailer with carriage return": "0\r\na: b\rc: d\r\n\r\n",
        "trailer without name": "0\r\n: b\r\n\r\n",
        "long trailers": "0\r\n" + "a: " + "x" * 5000 + "\r\n\r\n",
        "a request as trailer": "0\r\n" + SMUGGLED,
        "NUL size": "\x005\r\nhello\r\n0\r\n\r\n",
        "wide digits": "\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
    }
    for name, body in bad.items():
        yield name, post("Transfer-Encoding: chunked", body=body), (0 if "32 bits" in name else 400)
    yield "never ends", post("Transfer-Encoding: chunked", body="5\r\nhello\r\n"), 0
    yield "extension", post("Transfer-Encoding: chunked", body='5;a="b"\r\nhello\r\n0;c\r\n\r\n'), FORWARDED
    yield (
        "forged trailers",
        post(
            "Transfer-Encoding: chunked",
            body="5\r\nhello\r\n0\r\nX-Api-Key: bob\r\nContent-Length: 9\r\nX-Sidecar-Customer: x\r\n\r\n",
        ),
        FORWARDED,
    )


def lines():
    for line in (
        "GET  /a HTTP/1.1",
        "GET /a  HTTP/1.1",
        "GET\t/a HTTP/1.1",
        "GET /a\tHTTP/1.1",
        " GET /a HTTP/1.1",
        "GET /a HTTP/1.1 ",
        "GET /a HTTP/1.1\t",
        "GET /a b HTTP/1.1",
        "GET /a",
        "GET",
        "/a HTTP/1.1",
        "GET /a HTTP/1",
        "GET /a HTTP/1.1.1",
        "GET /a HTTP /1.1",
        "GET /a http/1.1",
        "GET /a Http/1.1",
        "GET /a HTTP/ 1.1",
        "GET /a HTTP/1 .1",
        "GET /a HTTP/+1.1",
        "GET /a HTTP/1.x",
        "GET /a HTTP/0x1.1",
        "get /a HTTP/1.1",
        "Get /a HTTP/1.1",
        "G\0T /a HTTP/1.1",
        "GET\x0b/a HTTP/1.1",
        "GET /a\x00 HTTP/1.1",
        "GET /a\x01b HTTP/1.1",
        "GET /a\x7f HTTP/1.1",
        "GET /\xff HTTP/1.1",
        "GET /\xc3\xbc HTTP/1.1",
        "G(T /a HTTP/1.1",
        "G,T /a HTTP/1.1",
        "FOO /a HTTP/1.1",
        "GETT /a HTTP/1.1",
        "GET:/a HTTP/1.1",
        "\x00GET /a HTTP/1.1",
        "GET /a\rHTTP/1.1",
        "GET /a HTTP/1.1\rX: y",
        "GET /a HTTP/1.1\nX: y",
        "GET /a\nHTTP/1.1",
        "\ufeffGET".encode().decode("latin-1"),
    ):
        yield repr(line), head(line=line), 400
    for line in (
        "GET /a HTTP/0.9",
        "GET /a HTTP/2.0",
        "GET /a HTTP/1.2",
        "GET /a HTTP/3.0",
        "GET /a HTTP/9.9",
        "GET /a HTTP/01.1",
        "GET /a HTTP/1.01",
        "GET /a HTTP/11.1",
        "GET /a HTTP/1.10",
        "PRI * HTTP/2.0",
        "OPTIONS /a RTSP/1.0",
        "DESCRIBE rtsp://h/ RTSP/2.0",
        "SOURCE /a ICE/1.0",
        "GET /a ICY/1.0",
        "GET /a SIP/2.0",
    ):
        yield repr(line), head(line=line), 505
    for line in ("CONNECT h:443 HTTP/1.1", "CONNECT /a HTTP/1.1", "TRACE /a HTTP/1.1", "TRACE * HTTP/1.1"):
        yield repr(line), head(line=line), 405
    yield "HTTP/0.9", "GET /a\r\n\r\n", 400
    yield "HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505
    yield "two empty lines before", "\r\n\r\n" + head(), 400
    yield "bare line feed before", "\n" + head(), 400
    yield "long", head(line=f"GET /{'a' * 9000} HTTP/1.1"), 414
    yield "long query", head(line=f"GET /a?{'a' * 9000} HTTP/1.1"), 414
    yield "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32) + b"\r\n\r\n", 400
    yield "SSH", "SSH-2.0-x\r\n\r\n", 400
    yield "proxy protocol", "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + head(), 400


def targets():
    for target in (
        "*",
        "a",
        "a/b",
        "h:80",
        "http://u@h/a",
        "http://u:p@h/a",
        "http://@h/a",
        "http:///a",
        "http:/a",
        "http:a",
        "//",
        "ftp://h/a",
        "ws://h/a",
        "file:///a",
        "http://other/a",
        "http://h:81/a",
        "http://h.evil/a",
        "http://h%00/a",
        "http://[h/a",
        "/a#b",
        "http://h/a#b",
        "#",
        "?a",
        "/..",
        "/../a",
        "/a/../../b",
        "/%2e%2e/a",
        "/%2E./a",
        "/.%2e/a",
        "/a/..%2f../b",
        "/a%2fb",
        "/a%2Fb",
        "/a%5cb",
        "/a\\b",
        "\\a",
        "/a/..\\b",
        "/%00",
        "/a%00b",
        "/%0d%0aX:y",
        "/%0a",
        "/%7f",
        "/%1f",
        "/%",
        "/%a",
        "/%zz",
        "/%u002e",
        "/..;/a",
        "/a/..;x=1/b",
        "/a/.;/b",
        "/%2e%2e;/a",
        "/%c0%ae%c0%ae/a",
        "/%c0%af",
        "/%e0%80%ae",
        "/%f0%80%80%ae",
        "/%ff%fe",
        "/%ed%a0%80",
        "/%f8%88%80%80%80",
        "/%c3",
        "/a%2f..%2fb",
        "http://h/..",
    ):
        if target != "//":
            yield repr(target), head(line=f"GET {target} HTTP/1.1"), 400
    for target in ("//x//y", "/x/./y", "/x/%2e%2e/y", "/%61", "http://h/x/../y"):
        yield f"{target!r} in its one form", head(line=f"GET {target} HTTP/1.1"), FORWARDED


def hosts():
    for host in (
        "",
        "a b",
        "a/b",
        "a@b",
        "a:b",
        "a:123456",
        "[::1",
        "a]",
        'h"',
        "h#",
        "h?x",
        "h\\x",
        "%zz",
        "h:",
        "[x]",
        "\xfc",
        "h\0",
        "h\x0b",
        "<h>",
        "h|x",
        "http://h",
        "h:80:80",
        "a" * 300,
        "[::1]x",
        "{h}",
    ):
        yield repr(host), head(f"Host: {host}", host=""), 400
    yield "none", head(host=""), 400
    for second in ("h", "other", ""):
        yield f"two, {second!r}", head(f"Host: {second}"), 400
        yield f"two in other case, {second!r}", head(f"hOST: {second}"), 400
    yield "with a space before the colon", head("Host : h", host=""), 400
    yield "folded", head("Host:\r\n h", host=""), 400
    yield "underscore twin", head("Ho_st: x"), 400
    yield "nominated", head("Connection: close, Host"), 400


def fields():
    bad = {
        "no colon": "abc",
        "no name": ": 1",
        "space in name": "A B: 1",
        "space before colon": "A : 1",
        "tab before colon": "A\t: 1",
        "space before name": " A: 1",
        "NUL in value": "A: \0",
        "NUL in name": "A\0: 1",
        "bell": "A: \x07",
        "escape": "A: \x1b[0m",
        "DEL": "A: \x7f",
        "vertical tab": "A: \x0b",
        "form feed": "A: \x0c",
        "backspace": "A: \x08",
        "bare CR": "A: 1\rB: 2",
        "bare LF": "A: 1\nB: 2",
        "CR at the end": "A: 1\r",
        "LF at the end": "A: 1\n",
        "fold": "A: 1\r\n 2",
        "fold with a tab": "A: 1\r\n\t2",
        "fold of nothing": "A: 1\r\n \r\nB: 2",
        "no ASCII in name": "\xc4: 1",
        "brackets in name": "(A): 1",
        "slash in name": "A/B: 1",
        "quote in name": '"A": 1',
        "at in name": "@A: 1",
        "comma in name": "A,B: 1",
        "semicolon in name": "A;B: 1",
        "underscore": "A_B: 1",
        "credential twin": "X_Api_Key: bob",
        "identity twin": "X_Sidecar_Customer: x",
        "a second credential": "X-Api-Key: bob",
        "nominated length": "Connection: Content-Length",
        "nominated coding": "Connection: Transfer-Encoding",
        "nominated credential": "Connection: X-Api-Key",
        "nominated authorization": "Connection: keep-alive, authorization",
        "nominated cache-control": "Connection: Cache-Control",
        "two content types": "Content-Type: a/b\r\nContent-Type: c/d",
    }
    for name, field in bad.items():
        yield name, head(field), 400
        if len(name) < 13:
            yield f"{name}, before a body", post(field, "Content-Length: 5", body="hello"), 400
    yield "long value", head("A: " + "x" * 9000), 431
    yield "long name", head("x" * 300 + ": 1"), 431
    yield "too many", head(*["A: 1"] * 101), 431
    yield "ten thousand", head(*["A: 1"] * 10_000), 431
    yield "too long a head", head(*[f"A{number}: {'x' * 8000}" for number in range(5)]), 431
    yield "too long a head without end", "GET / HTTP/1.1\r\nA: " + "x" * 40_000, 431
    yield "identity", head("X-Sidecar-Customer: evil", "X-Forwarded-For: 6.6.6.6"), FORWARDED
    yield "bare CR ends", "GET /a HTTP/1.1\rHost: h\r\r", 400
    yield "bare LF ends", "GET /a HTTP/1.1\nHost: h\nX-Api-Key: ann\n\n", 400
    yield "mixed ends", "GET /a HTTP/1.1\r\nHost: h\r\nX-Api-Key: ann\n\r\n", 400
    yield "LF CR ends", "GET /a HTTP/1.1\n\rHost: h\n\r\n\r", 400
    yield "a head that does not end", head()[:-2], 0


def expectations():
    for value in (
        "200-ok",
        "100-continue, x",
        "100-continue,100-continue",
        "",
        "100",
        "100 continue",
        "100-continue;a",
        "x",
        "continue",
    ):
        yield repr(value), post(f"Expect: {value}", "Content-Length: 5", body="hello"), 417
    yield "two", post("Expect: 100-continue", "Expect: 100-continue", "Content-Length: 5", body="hello"), 400
    yield "two that differ", post("Expect: x", "Expect: 100-continue", "Content-Length: 5", body="hello"), 400
    yield "folded", post("Expect:\r\n 100-continue", "Content-Length: 5", body="hello"), 400


def upgrades():
    for protocol in ("websocket", "TLS/1.0", "foo"):
        upgrade = ("Connection: Upgrade", f"Upgrade: {protocol}")
        yield f"{protocol} with a length", post(*upgrade, "Content-Length: 5", body="hello"), 400
        yield f"{protocol} with chunks", post(*upgrade, "Transfer-Encoding: chunked", body="0\r\n\r\n" + SMUGGLED), 400
        yield (
            f"{protocol} with both",
            post(*upgrade, "Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\n"),
            400,
        )
    yield "two", head("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"), 400
    yield (
        "h2c",
        head("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        FORWARDED,
    )
    yield "folded", head("Connection: Upgrade", "Upgrade:\r\n websocket"), 400


def pipelines():
    yield "behind a bad one", head("A : 1") + SMUGGLED, 400
    yield "behind CONNECT", head(line="CONNECT h:80 HTTP/1.1") + SMUGGLED, 405
    yield "behind close", head("Connection: close") + SMUGGLED, FORWARDED
    yield "a bad one behind a good one", head() + head("A : 1"), FORWARDED, 400
    yield "junk behind a good one", head() + "junk\r\n\r\n", FORWARDED, 400
    yield "junk behind a body", post("Content-Length: 5", body="hello") + "xx\r\n\r\n", FORWARDED, 400
    yield "half of one behind a good one", head() + "GET /b HT", FORWARDED
    yield "a length hidden by a twin", post("Content_Length: 0", "Content-Length: 5", body="hello") + SMUGGLED, 400
    yield "a chunk that ends early", post("Transfer-Encoding: chunked", body="0\r\n\r\n") + "X\r\n\r\n", FORWARDED, 400


FAMILIES = (
    length_and_chunks,
    transfer_codings,
    lengths,
    chunks,
    lines,
    targets,
    hosts,
    fields,
    expectations,
    upgrades,
    pipelines,
)
