"""How an exchange ends, whatever happened: measured, written down, settled, told to its client, in this order.

Three laws hold in every ending: what reached the upstream had an OPEN entry before its first byte and gets a record
before the last byte of its answer; what was reserved is settled; and the client learns of the end only after the
journal has.
"""

from __future__ import annotations

from functools import partial

from sidecar.core.decision import settled
from sidecar.core.http.body import last_chunk
from sidecar.core.http.problem import Problem, problem_answer
from sidecar.core.record import Alert, alert_record, denial_record, usage_record
from sidecar.core.usage.billing import billing
from sidecar.gateway.facts import NOTHING, Facts


class Ending(Facts):
    """The ways out of an exchange. Each is taken once: `ended` is set by the first."""

    __slots__ = ("excluded",)  # the id of the exclusion that holds, "" for none

    # Not by an answer of the upstream's.

    def _refuse(self, problem: Problem, outcome: str) -> None:
        """The answer is our own, and the exchange was opened, so it ends in a record all the same."""
        self.outcome = outcome
        self.status = problem.status
        self.close_after = self.close_after or not self.body_ended
        self.out = [self._problem(problem)]
        self._close()

    def _fail(self, status: int, outcome: str) -> None:
        """The answer cannot be completed: that is written down, and then the connection is cut."""
        self.status = status
        self.outcome = outcome
        self.broken = not self.tunnelled
        self.quality = "exact" if self.tunnelled else "partial"
        self.out = []
        self._close()

    # Close the usage, write it down, and only then let the last bytes go.

    def _close(self, now_us: int = 0) -> None:
        if self.ended:
            return
        self.ended = True
        self.duration_us = (now_us or self.house.clock.mono_us()) - self.started_us
        if self.tunnelled:
            self.outcome = "tunnel"
        terms = self.terms
        self.usage = terms.measure(self) if self.attempts else NOTHING
        plan, test = (self.identity.plan, self.identity.test) if self.identity is not None else ("", False)
        excluded = self.excluded = terms.excluded(self, self.identity, retry=self.repeated) if terms.exclusions else ""
        self.billable, self.billable_reason = billing(
            plan, status=self.status, test=test, outcome=self.outcome, excluded=excluded
        )
        self.house.journal.close("records", self.id, self.customer, self._record, self.released)

    def released(self, written: bool) -> None:
        self._settle(self.usage)
        client = self.client
        if self.broken or not written:
            client.cut()
        else:
            if self.chunked:
                self.out.append(last_chunk(self.trailers))
            if self.out:
                client.write(self.out[0] if len(self.out) == 1 else b"".join(self.out))
            client.finish(close=self.close_after or self.tunnelled)
        self.house.finished(self)

    def _settle(self, usage: dict[str, int] | None) -> None:
        """Replace the reservation by the truth; None: nothing was used."""
        checks, decision = self.checks, self.decision
        if checks is None or decision is None or not decision.allowed:
            return
        terms = self.terms
        if not usage:
            truth = (0,) * len(checks.costs)
        elif self.billable:
            truth = terms.truth(usage)
        else:  # recorded like the rest, and not charged
            truth = terms.truth(usage, billable=False, excluded=bool(self.excluded))
        if truth == checks.costs and not checks.slots:
            return
        self.house.counters.settle(self.id, checks, truth)
        if checks.alerting and (found := settled(decision, truth)) is not None:
            self.house.alerts.look(found, self.alerted)

    def _withdraw(self) -> None:
        """The client went before the upstream saw anything: nothing was used."""
        self._settle(None)
        if not self.ended:
            self.ended = True
            self.house.finished(self)

    # Answers of our own.

    def _answer(self, problem: Problem) -> None:
        """Refuse before the upstream has seen anything: no record but a denial's."""
        self.ended = True
        self.status = problem.status
        self.close_after = self.close_after or not (self.body_ended or self.client.skips())
        self.client.write(self._problem(problem))
        self.client.finish(close=self.close_after)
        self.house.finished(self)

    def _problem(self, problem: Problem) -> bytes:
        limits = self.house.limit_fields(self.decision) if self.decision is not None else b""
        bodyless = self.method == "HEAD"
        self.close_after = self.close_after or self.house.draining
        return problem_answer(problem, self.id.decode(), extra=limits, close=self.close_after, bodyless=bodyless)

    # What is written down of it.

    def _record(self, source: str, sequence: int) -> bytes:
        self.house.totals.add(self.usage)  # with the number it gets, so that a checkpoint's totals match it
        return usage_record(self, self.arrived_us + self.duration_us, source, sequence)

    def _denial(self, source: str, sequence: int) -> bytes:
        return denial_record(self, self.arrived_us + self.duration_us, source, sequence)

    def alerted(self, alert: Alert) -> None:
        """A threshold was passed, and it is ours to say so: in a record of its own, now or when this one has ended."""
        house = self.house
        house.journal.close(
            "records",
            alert.id,
            alert.customer,
            partial(alert_record, alert, self.plan, house.clock.now_us()),
            lambda written: house.alerts.wrote(alert) if written else None,
        )
