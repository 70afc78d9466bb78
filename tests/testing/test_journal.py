from sidecar.testing import SOURCE, MemoryJournal


def test_a_journal_numbers_each_stream_and_keeps_its_entries_in_order():
    journal, then = MemoryJournal(), []
    journal.open(b"1", b"{}", then.append)
    for stream in ("records", "denials", "records"):
        journal.close(stream, b"1", "cust", lambda source, number: f"{source} {number}".encode(), then.append)
    assert [entry.body.decode() for entry in journal.of("records")] == [f"{SOURCE} 1", f"{SOURCE} 2"]
    assert [entry.stream for entry in journal.entries] == ["open", "records", "denials", "records"]
    assert then == [True] * 4


def test_a_journal_that_is_broken_keeps_nothing_and_says_so():
    journal, then = MemoryJournal(), []
    journal.broken = journal.full = True
    journal.open(b"1", b"{}", then.append)
    assert (then, journal.entries, journal.accepting()) == ([False], [], False)
