"""Writes the records of postings into a journal, for the readers of wallets on Redis and in memory alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from sidecar.core.record.postings import WalletPosting, posting_record
from sidecar.ports import Journal


def write_postings(
    journal: Journal, records: Sequence[WalletPosting], now_us: int, done: Callable[[int], None]
) -> None:
    """Write all of `records` (at least one). `done` is called once, with how many of them are in the journal."""
    answers = list[bool]()

    def then(written: bool) -> None:
        answers.append(written)
        if len(answers) == len(records):
            done(sum(answers))

    for each in records:
        write = partial(posting_record, each, now_us)
        journal.close("records", each.id, each.posting.customer, write, then)
