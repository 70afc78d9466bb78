"""A connection to ClickHouse: what a URL says, and what an error says."""

import pytest

from sidecar.core.errors import SinkError
from sidecar.edge.ledger.clickhouse import ClickHouse, connection_options
from tests.edge.ledger.clickhouses import new_url


def test_a_url_says_where_and_as_whom():
    options = connection_options("https://me:p%40ss@ch.internal/usage")
    shown = [options[name] for name in ("interface", "host", "port", "username", "password", "database")]
    assert shown == ["https", "ch.internal", 8443, "me", "p@ss", "usage"]
    options = connection_options("http://ch:9999")
    assert [options[name] for name in ("port", "username", "database")] == [9999, "default", "default"]


@pytest.mark.parametrize(
    "url", ["ch:8443", "ftp://s3cret@ch/x", "https:///s3cret", "http://a:s3cret@ch:port/x", "s3cret"]
)
def test_a_url_that_is_refused_is_not_repeated(url):
    # Fails if the message has the URL, and so the password.
    with pytest.raises(
        SinkError, match=r"ledger\.clickhouse\.url is not a URL of ClickHouse: write https://user"
    ) as caught:
        ClickHouse(url)
    assert "s3cret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_named_without_the_password():
    with pytest.raises(SinkError, match=r"ClickHouse at 127\.0\.0\.1:9: ") as caught:
        ClickHouse("http://me:s3cret@127.0.0.1:9/usage")
    assert "s3cret" not in str(caught.value)


def test_parameters_are_values_and_never_sql():
    # Fails if they are written into the text.
    values = ["it's", "b\\slash", "?", "{p0:String}", "tab\tline\n", "é", -5, 2**62]
    with ClickHouse(new_url()) as clickhouse:
        assert clickhouse.run(f"SELECT {', '.join('?' * len(values))}", values) == [tuple(values)]


def test_an_answer_has_its_columns_also_without_rows_and_fails_where_the_server_fails():
    with ClickHouse(new_url()) as clickhouse:
        names, rows = clickhouse.stream("SELECT 1 AS a, 'x' AS b WHERE ? > 2", [1])
        assert (names, rows.fetchmany(10), rows.fetchall()) == (["a", "b"], [], [])
        names, rows = clickhouse.stream("SELECT number FROM numbers(200000)")
        first = rows.fetchmany(10)
        assert (names, len(first) + len(rows.fetchall()), rows.fetchmany(1)) == (["number"], 200_000, [])
        with pytest.raises(SinkError, match="late"):
            clickhouse.stream("SELECT throwIf(number > 150000, 'late') FROM numbers(200000)")[1].fetchall()
        assert clickhouse.run("SELECT 1") == [(1,)]
