import pytest

from sidecar.core.limits import wallet_keys
from sidecar.core.price.book import Posted
from sidecar.core.record.postings import wallet_posting
from sidecar.edge.posting_writer import write_postings
from sidecar.testing import MemoryJournal

KEY = wallet_keys("c", "usd")[0]


def records(number):
    return [wallet_posting(KEY, Posted("1-0", "void", f"g{n}", -1, 0), None, 1_000) for n in range(number)]


@pytest.mark.parametrize("number", [1, 5])
def test_it_reports_once_when_the_journal_has_answered_for_all(number):
    # Fails if it reports after the first answer: a kill then would lose the others.
    journal, answers = MemoryJournal(), []
    journal.holding = True
    write_postings(journal, records(number), 7, answers.append)
    journal.let_go(number - 1)
    assert answers == []
    journal.let_go()
    assert answers == [number]
    assert len(journal.of("records")) == number


def test_records_that_are_not_written_are_not_counted():
    journal, answers = MemoryJournal(), []
    journal.broken = True
    write_postings(journal, records(3), 7, answers.append)
    assert answers == [0]
