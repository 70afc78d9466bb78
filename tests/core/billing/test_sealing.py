"""A period is sealed only when it is complete: in a simulation that knows everything, and rule by rule."""

from itertools import groupby, pairwise
from operator import itemgetter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.billing.sealing import (
    CLOSED,
    COMPLETE,
    ENDED,
    INCOMPLETE,
    MARGIN_US,
    RETIRED,
    Numbers,
    SeenCheckpoint,
    SeenEnd,
    SourceFacts,
    verdicts,
)

END_US = 1_796_083_200_000_000  # 2026-12-01
SECOND_US = 1_000_000
AFTER_US = END_US + MARGIN_US
SOURCE = "//sidecar/eu/n/0/1"


# --- A simulation: a place that serves, is drained, killed and followed; and facts of any part of its records --------


class Life:
    """One place of a node through several epochs. Each record is (source, number, kind, facts)."""

    STEPS = ("arrive", "arrive", "answer", "answer", "deny", "checkpoint", "checkpoint", "drain", "kill")

    def __init__(self, seed, steps, place=0):
        self.random = Random(seed)
        self.place = place
        self.records = []
        self.epoch = 0
        self.source = ""
        self.now = END_US - 80 * SECOND_US
        self.begin(None, [])
        for _ in range(steps):
            self.now += self.random.randrange(12 * SECOND_US)
            getattr(self, self.random.choice(self.STEPS))()

    def put(self, kind, **facts):
        self.number += 1
        self.records.append((self.source, self.number, kind, facts))

    def begin(self, closing, crashed):
        before = self.source
        self.epoch += 1
        self.source = f"//sidecar/eu/n/{self.place}/{self.epoch}"
        self.number = self.denials = 0
        self.open = []
        if closing is not None:
            self.put("closed", about=before, highest=closing)
        self.put("started", predecessor=before)
        for period_us in crashed:
            self.put("usage", period_us=period_us)

    def arrive(self):
        self.open.append(self.now)

    def answer(self):
        if self.open:
            arrived_us = self.open.pop(self.random.randrange(len(self.open)))
            # The store's clock is up to 20 s away, and units may have been reserved up to 10 s before.
            self.put("usage", period_us=arrived_us + self.random.randrange(-30, 20) * SECOND_US)

    def deny(self):
        self.denials += 1
        self.records.append((f"{self.source}/denials", self.denials, "denial", {"period_us": self.now}))

    def checkpoint(self, *, is_final=False):
        highest = {"records": self.number, "denials": self.denials}
        seen = SeenCheckpoint(self.number + 1, self.now, highest, min(self.open, default=0), is_final)
        self.put("checkpoint", seen=seen)

    def drain(self):
        while self.open:
            self.answer()
        self.checkpoint(is_final=True)
        self.begin(None, [])

    def kill(self):
        self.begin({"records": self.number, "denials": self.denials}, self.open)


def numbers_of(present):
    """`Numbers` of a set, with all gaps."""
    ordered = sorted(present)
    gaps = [(a + 1, b - 1) for a, b in pairwise(ordered) if b > a + 1]
    return Numbers(ordered[0], ordered[-1], tuple(gaps)) if ordered else Numbers()


def facts_of(records):
    """The facts that SQL collects from the ledger, collected by hand."""
    facts = {}
    for source, of_source in groupby(sorted(records, key=itemgetter(0, 1)), key=itemgetter(0)):
        rows = list(of_source)
        seen = tuple(said["seen"] for _, _, kind, said in rows if kind == "checkpoint")
        facts[source] = SourceFacts(source, numbers_of({number for _, number, _, _ in rows}), seen)
    for _, _, kind, said in records:
        about = said.get("about") or said.get("predecessor")
        if about:
            known = facts.setdefault(about, SourceFacts(about))
            ends = (SeenEnd(False, said["highest"]),) if kind == "closed" else ()
            facts[about] = known._replace(ends=(*known.ends, *ends), is_followed=True)
    return list(facts.values())


def is_sealed(records):
    found = verdicts(facts_of(records), END_US)
    return bool(found) and all(each.is_complete for each in found)


def of_period(records):
    return {record[:2] for record in records if record[3].get("period_us", END_US) < END_US}


LIVES = st.builds(
    lambda seed, steps, places: [each for place in range(places) for each in Life(seed + place, steps, place).records],
    st.integers(0, 10_000),
    st.integers(5, 60),
    st.integers(1, 3),
)


@settings(max_examples=600)
@given(LIVES, st.data())
def test_what_is_sealed_has_every_record_of_the_period(records, data):
    # Fails if a gap is not looked at, the margin is 0, `oldest_open` or the denials are ignored, or the successor's
    # crashed records are not waited for (a source that began after the end counts as complete).
    cut = data.draw(st.integers(0, len(records)))
    lost = data.draw(st.sets(st.integers(0, max(0, len(records) - 1)), max_size=3))
    here = [record for at, record in enumerate(records[:cut]) if at not in lost]
    if is_sealed(here):
        here_ids = {record[:2] for record in here}
        sources = {source.removesuffix("/denials") for source, _ in here_ids}
        assert {each for each in of_period(records) if each[0].removesuffix("/denials") in sources} <= here_ids


@given(LIVES, st.data())
def test_order_does_not_matter(records, data):
    # Fails if the last fact given decides, and not the one with the lowest number.
    facts = facts_of(records)
    mixed = data.draw(st.permutations(facts))
    mixed = [
        each._replace(
            checkpoints=tuple(data.draw(st.permutations(each.checkpoints))),
            ends=tuple(data.draw(st.permutations(each.ends))) * 2,
        )
        for each in mixed
    ]
    assert verdicts(mixed, END_US) == verdicts(facts, END_US)


def later(life):
    """The same, served on until each source has a checkpoint after the end with nothing open."""
    while life.open:
        life.answer()
    life.now = max(life.now, AFTER_US)
    life.checkpoint()
    return life.records


@given(st.integers(0, 10_000), st.integers(1, 60))
def test_it_becomes_true_and_not_before_and_any_lost_record_of_the_period_undoes_it(seed, steps):
    # Fails if a period is never sealed, or if the numbers before the first one that is here are not looked at.
    life = Life(seed, steps)
    records = later(life)
    assert is_sealed(records)
    period = of_period(records)
    for lost in period:
        assert not is_sealed([record for record in records if record[:2] != lost])


# --- Rule by rule ----------------------------------------------------------------------------------------------------


def source(last, *checkpoints, gaps=(), first=1, **more):
    return SourceFacts(SOURCE, Numbers(first, last, gaps), checkpoints, **more)


def checkpoint(sequence, time_us=AFTER_US, **more):
    return SeenCheckpoint(sequence, time_us, {"records": sequence - 1, "denials": 0}, **more)


def verdict(*facts):
    [found] = verdicts(facts, END_US)
    return found


def test_a_checkpoint_after_the_end_and_all_numbers_up_to_it_complete_a_source():
    found = verdict(source(900, checkpoint(880)))
    assert (found.state, found.highest, found.missing) == (COMPLETE, {"records": 880, "denials": 0}, ())


def test_a_gap_after_that_checkpoint_is_of_another_period():
    assert verdict(source(950, checkpoint(880), checkpoint(940), gaps=((890, 891),))).state == COMPLETE


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        (source(900, checkpoint(880), gaps=((401, 401), (500, 502))), ["numbers 401 to 401", "numbers 500 to 502"]),
        (source(900, checkpoint(880), first=3), ["numbers 1 to 2"]),
        (source(900), ["no checkpoint after the end; nor before it"]),
        (
            source(900, checkpoint(890, AFTER_US - 1)),
            ["no checkpoint after the end; the last one is of 2026-12-01T00:00:59.999999Z"],
        ),
        (
            source(900, checkpoint(890, oldest_open_us=END_US - 1)),
            ["an exchange of the period may still be open, since 2026-11-30T23:59:59.999999Z"],
        ),
        (
            source(900, is_followed=True),
            ["never ended: neither its final checkpoint is here, nor its closing by the source after it"],
        ),
        (
            source(900, ends=(SeenEnd(False, {"records": 905, "denials": 0}),), is_followed=True),
            ["numbers 901 to 905"],
        ),
        (SourceFacts(SOURCE, is_followed=True), ["no record of it is here"]),
        (source(900, checkpoint(890, END_US - 1, is_final=True), gaps=((7, 7),)), ["numbers 7 to 7"]),
    ],
)
def test_what_is_missing_is_said_in_words(facts, missing):
    found = verdict(facts)
    assert (found.state, list(found.missing)) == (INCOMPLETE, missing)


def test_a_source_that_has_ended_needs_no_checkpoint_after_the_end():
    final = checkpoint(890, END_US - 10**9, is_final=True)
    assert verdict(source(890, final)).state == ENDED
    assert verdict(source(890, ends=(SeenEnd(False, {"records": 890, "denials": 0}),))).state == CLOSED


def test_numbers_after_the_end_contradict_it_and_have_to_be_whole_too():
    # Fails if the stated end is believed: two producers used one source, or a record was written after it.
    final = checkpoint(890, END_US - 10**9, is_final=True)
    assert verdict(source(895, final, gaps=((893, 893),))).missing == ("numbers 893 to 893",)
    assert verdict(source(895, final)).highest["records"] == 895


def test_denials_are_complete_up_to_the_number_in_the_checkpoint():
    # Fails if denials are a source that needs checkpoints of its own, or are not needed at all.
    stated = SeenCheckpoint(880, AFTER_US, {"records": 879, "denials": 5})
    denials = SourceFacts(f"{SOURCE}/denials", Numbers(1, 9))
    assert verdict(source(900, stated), denials).highest == {"records": 880, "denials": 5}
    for numbers, gap in ((Numbers(), "1 to 5"), (Numbers(1, 4), "5 to 5"), (Numbers(1, 9, ((2, 3),)), "2 to 3")):
        found = verdict(source(900, stated), denials._replace(numbers=numbers))
        assert found.missing == (f"denials: numbers {gap}",)


def test_denials_without_their_source_are_not_complete():
    found = verdict(SourceFacts(f"{SOURCE}/denials", Numbers(1, 9)))
    assert (found.source, found.missing) == (SOURCE, ("no record of it is here",))


def test_a_closing_that_does_not_know_the_denials_says_so():
    found = verdict(source(890, ends=(SeenEnd(False, {"records": 890}),)))
    assert found.state == CLOSED
    assert found.may_be_missing == ("denials after number 0: the source was closed by one that does not know them",)


def test_a_retired_source_is_complete_and_the_verdict_says_what_may_be_missing():
    retired = (SeenEnd(True, {"records": 900}, "the machine burned"),)
    found = verdict(source(900, checkpoint(880, END_US), gaps=((7, 9),), ends=retired))
    assert (found.state, found.missing) == (RETIRED, ())
    assert found.may_be_missing == (
        "no checkpoint after the end; the last one is of 2026-12-01T00:00:00.000000Z",
        "numbers 7 to 9",
    )
    assert verdict(source(900, checkpoint(880), ends=retired)).state == COMPLETE  # it was complete before


def test_numbers_are_missing_before_between_and_after_those_that_are_here():
    assert Numbers(3, 9, ((5, 6),)).missing(12) == [(1, 2), (5, 6), (10, 12)]
    assert Numbers(3, 9, ((5, 6),)).missing(5) == [(1, 2), (5, 5)]
    assert (Numbers(1, 9).missing(9), Numbers().missing(0), Numbers().missing(2)) == ([], [], [(1, 2)])
