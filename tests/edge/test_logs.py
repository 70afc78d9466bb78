import io
import json
import logging

import pytest

from sidecar.edge import logs


def said(message, *args, text=False, terminal=False, **more):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logs.setup("worker-0", text=text, stream=stream)
        logging.getLogger("sidecar.test").warning(message, *args, **more)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    return stream.getvalue()


def test_an_event_is_one_line_of_json_with_its_request_and_its_fields():
    line = json.loads(said("gone %d", 3, extra={"request": "01JD", "fields": {"route": "chat"}}))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "logger": "sidecar.test",
        "process": "worker-0",
        "request": "01JD",
        "message": "gone 3",
        "route": "chat",
    }


# Fails if an event that orjson refuses is not written another way: the only line of a kill names an epoch.
def test_an_event_whose_fields_need_more_than_64_bits_or_hold_no_text_is_written_all_the_same():
    epoch = 179522300612345648213377
    line = json.loads(said("killed \ud800", extra={"fields": {"epoch": epoch}}))
    assert (line["message"], line["epoch"]) == ("killed \ud800", epoch)


def test_a_terminal_gets_a_plain_line():
    assert said("gone", text=True, terminal=True, extra={"fields": {"route": "chat"}}).endswith(
        "warning worker-0: gone route=chat\n"
    )


def test_text_that_is_not_for_a_terminal_is_json_all_the_same():
    assert json.loads(said("gone", text=True))["message"] == "gone"


def test_an_exception_stays_on_one_line():
    line = said("failed", exc_info=ValueError("no"))
    assert line.count("\n") == 1
    assert "ValueError: no" in json.loads(line)["message"]


# Fails if masking is taken out of Formatter.format, or one of its patterns is.
@pytest.mark.parametrize(
    "secret",
    [
        "Authorization: Bearer s3cr3t-value",
        "authorization: Basic s3cr3t-value",
        "X-Api-Key: s3cr3t-value",
        "GET /x?api_key=s3cr3t-value",
        "redis://user:s3cr3t-value@host:6379/0",
        "rediss://:s3cr3t-value@host",
        "password=s3cr3t-value",
        '{"secret": "s3cr3t-value"}',
    ],
)
def test_no_credential_ever_stands_in_a_log(secret):
    for line in (said("failed: " + secret), said("failed: %s", secret), said("x", extra={"fields": {"what": secret}})):
        assert "s3cr3t" not in line
        assert "***" in line


def test_a_made_key_is_masked_wherever_it_stands():
    assert "sk_***" in said("what is sk_" + "0123456789abcdefghjkmnpqrstvwxyz0123456 doing here")


def test_a_masked_url_still_says_where():
    assert "redis://***@host:6379/0" in said("redis://user:pw@host:6379/0 is away")
