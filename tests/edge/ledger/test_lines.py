"""A line for each record, with nothing in it that DuckDB would take for an end."""

import orjson
import pytest

from sidecar.edge.ledger.lines import encode


# Fails if the value is written as it is: DuckDB would see two records, or three columns.
@pytest.mark.parametrize("value", [b"a\nb", b'{"a":\n1}', b"\x01", b"\r", b"\xff", b"\x85", "\u2028".encode(), b""])
def test_a_record_is_one_line(value):
    text = encode([(1, b"{}"), (25, value)])
    assert text.startswith(b"1\x01{}\n25\x01")
    assert (text.count(b"\n"), text.count(b"\x01")) == (2, 2)
    text.decode()


def test_json_stays_the_same_json_and_other_text_becomes_a_json_string():
    assert encode([(1, b'{"a":\n"\xc3\xa9"}')]) == '1\x01{"a":"é"}\n'.encode()
    assert orjson.loads(encode([(1, b"a\tb")])[2:]) == "a\tb"
    assert encode([(1, "\u00a0é".encode())]) == "1\x01\u00a0é\n".encode()
