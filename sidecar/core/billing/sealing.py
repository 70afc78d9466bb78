"""Whether a period is sealed: no record of it can still come, and none is missing. Nothing is waited for in hope.

Each source numbers its records from 1 without gaps, and says in checkpoints how far it is. A source is complete for a
period that ends at T if all its numbers 1..N are there, where N is the number of

1. a checkpoint, by the source's clock at least `margin` after T, with no exchange open that arrived before T + margin:
   later records of the source are of later periods; or
2. the source's end: its final checkpoint, or the highest number that a successor states when it closes the source; or
3. nothing, where an operator has retired the source: the verdict then says what may be missing.

The margin is for clocks: `period_time` is by the store's clock, and may be a few seconds before the arrival by the
node's. Denials are a source of their own, `<source>/denials`, whose highest number is in the checkpoint or the closing
of the main source. The period is sealed if every source that any record names is complete.

    T = 2026-12-01   numbers here     checkpoints                              verdict
    …/0/1            1..900           #880 at 00:01:05, nothing open           complete with 880
    …/1/1            1..400, 402..900 #900 at 00:01:05, nothing open           incomplete: missing numbers 401 to 401
    …/2/1            1..700           #700 at 23:58:00                         incomplete: no checkpoint after the end
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from sidecar.core.instants import instant

MARGIN_US: Final = 60_000_000
DENIALS: Final = "/denials"
COMPLETE, ENDED, CLOSED, RETIRED, INCOMPLETE = "complete", "ended", "closed", "retired", "incomplete"


class Numbers(NamedTuple):
    """The numbers of a source that are here: the least, the highest, and the first gaps between them, both missing."""

    first: int = 0
    last: int = 0
    gaps: tuple[tuple[int, int], ...] = ()

    def missing(self, highest: int) -> list[tuple[int, int]]:
        """The first gaps in 1..highest; [] if all are here."""
        if not self.last:
            return [(1, highest)] if highest else []
        gaps = [(1, self.first - 1), *self.gaps, (self.last + 1, highest)]
        return [(start, min(end, highest)) for start, end in gaps if start <= min(end, highest)]


class SeenCheckpoint(NamedTuple):
    """A checkpoint of a source. `oldest_open_us`: 0 where nothing was open. `highest`: by stream, before itself."""

    sequence: int
    time_us: int
    highest: Mapping[str, int]
    oldest_open_us: int = 0
    is_final: bool = False


class SeenEnd(NamedTuple):
    """A closing or a retirement of a source by another one. `highest`: by stream, as far as it is known."""

    is_retired: bool
    highest: Mapping[str, int]
    reason: str = ""


class SourceFacts(NamedTuple):
    """Everything that the records here say about one source. Order and repetition of checkpoints and ends are free.

    Of the checkpoints at least these are needed: the one with the lowest number of those that fit rule 1, the latest,
    and the final one. `is_followed`: another source names it as its predecessor.
    """

    source: str
    numbers: Numbers = Numbers()
    checkpoints: tuple[SeenCheckpoint, ...] = ()
    ends: tuple[SeenEnd, ...] = ()
    is_followed: bool = False


class SourceVerdict(NamedTuple):
    """`state` is one of the names above; all but INCOMPLETE mean that the source is complete.

    `highest`: the number up to which all is here, by stream. `missing` says why it is incomplete, `may_be_missing` what
    nobody can know.
    """

    source: str
    state: str
    highest: Mapping[str, int]
    missing: tuple[str, ...] = ()
    may_be_missing: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether no record of the period is missing, or those that are were given up."""
        return self.state != INCOMPLETE


def verdicts(facts: Iterable[SourceFacts], end_us: int, margin_us: int = MARGIN_US) -> list[SourceVerdict]:
    """The verdict on every source for the periods that end at `end_us`, in order of their names."""
    by_source = {each.source: each for each in facts}
    mains = {source.removesuffix(DENIALS) for source in by_source}
    none = SourceFacts("")
    return [
        _verdict(
            by_source.get(source, none)._replace(source=source),
            by_source.get(source + DENIALS, none).numbers,
            end_us,
            margin_us,
        )
        for source in sorted(mains)
    ]


def fits(checkpoint: SeenCheckpoint, end_us: int, margin_us: int = MARGIN_US) -> bool:
    """Whether records of its source after this checkpoint are of periods that begin at `end_us` or later."""
    is_open = 0 < checkpoint.oldest_open_us < end_us + margin_us
    return checkpoint.time_us >= end_us + margin_us and not is_open


def _verdict(facts: SourceFacts, denials: Numbers, end_us: int, margin_us: int) -> SourceVerdict:
    """The least that is required of the source decides: a gap after it is of another period."""
    needs = [(check.sequence, COMPLETE, check.highest) for check in facts.checkpoints if fits(check, end_us, margin_us)]
    last = facts.numbers.last  # a number after the end contradicts it, so all of those have to be there too
    needs += [(max(check.sequence, last), ENDED, check.highest) for check in facts.checkpoints if check.is_final]
    needs += [
        (max(end.highest.get("records", 0), last), CLOSED, end.highest) for end in facts.ends if not end.is_retired
    ]
    retired = [end for end in facts.ends if end.is_retired]
    if not needs:
        missing = [*_lacks(facts, end_us, margin_us), *_gaps(facts.numbers, facts.numbers.last)]
        state, highest = INCOMPLETE, {"records": facts.numbers.last, "denials": denials.last}
        return _given_up(SourceVerdict(facts.source, state, highest, tuple(missing)), retired)
    number, state, stated = min(needs, key=lambda need: need[0])
    missing, unknown = _gaps(facts.numbers, number), []
    highest = {"records": number, "denials": stated.get("denials", denials.last)}
    if "denials" not in stated:
        unknown.append(f"denials after number {denials.last}: the source was closed by one that does not know them")
    missing += [f"denials: {gap}" for gap in _gaps(denials, highest["denials"])]
    if missing:
        return _given_up(SourceVerdict(facts.source, INCOMPLETE, highest, tuple(missing), tuple(unknown)), retired)
    return SourceVerdict(facts.source, state, highest, (), tuple(unknown))


def _given_up(verdict: SourceVerdict, retired: list[SeenEnd]) -> SourceVerdict:
    if not retired:
        return verdict
    may_be_missing = (*verdict.missing, *verdict.may_be_missing)
    return verdict._replace(state=RETIRED, missing=(), may_be_missing=may_be_missing)


def _gaps(numbers: Numbers, highest: int) -> list[str]:
    return [f"numbers {start} to {end}" for start, end in numbers.missing(highest)]


def _lacks(facts: SourceFacts, end_us: int, margin_us: int) -> list[str]:
    """Why no number is known up to which the source must be here."""
    if not facts.numbers.last:
        return ["no record of it is here"]
    after = [each for each in facts.checkpoints if each.time_us >= end_us + margin_us]
    if after:
        since_us = max(after, key=lambda each: each.sequence).oldest_open_us
        return [f"an exchange of the period may still be open, since {instant(since_us)}"]
    if facts.is_followed:
        return ["never ended: neither its final checkpoint is here, nor its closing by the source after it"]
    last = max((each.time_us for each in facts.checkpoints), default=0)
    return [f"no checkpoint after the end; {f'the last one is of {instant(last)}' if last else 'nor before it'}"]
