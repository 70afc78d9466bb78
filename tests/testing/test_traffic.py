from sidecar.core.http import ResponseHead
from sidecar.testing import PaperClient


def test_a_client_keeps_what_it_was_sent_and_how_it_ended():
    client = PaperClient()
    assert (client.status, client.ended) == (0, "")
    head, hint = ResponseHead(200, b"", 1, []), ResponseHead(103, b"", 1, [])
    client.respond(head, b"id", [(b"A", b"1")])
    assert client.status == 0
    client.interim(hint)
    client.body(b"a")
    client.end(b"b", [(b"T", b"1")])
    assert (client.status, client.request_id, client.fields, client.content) == (200, b"id", [(b"A", b"1")], b"ab")
    assert (client.trailers, client.ended, client.interims) == ([(b"T", b"1")], "complete", [hint])
    client.cut()
    assert client.ended == "cut"
