"""The life of a request, top to bottom.

    arrive → identify → reserve → decide → open → exchange → answer → close → settle

Every step is a method that starts the next one, or hands it as a callback to a port that may have to wait: on this
path a coroutine costs seven times a call. Three laws hold in every ending: what reaches the upstream has an OPEN entry
before its first byte and a record before the last byte of its answer; what was reserved is settled; and the client
learns of the end only after the journal has.
"""

from __future__ import annotations

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError, UpstreamError
from sidecar.core.headers import denial_problem
from sidecar.core.http import problem as answers
from sidecar.core.http.body import chunk, last_chunk
from sidecar.core.http.forward import interim_head, trailers_allowed
from sidecar.core.http.problem import Problem, no_feature, problem_answer, too_large
from sidecar.core.http.request import Request
from sidecar.core.http.response import ResponseHead
from sidecar.core.identity import Identity
from sidecar.core.policy import Terms
from sidecar.core.record import denial_record, open_entry, usage_record
from sidecar.core.usage import billing
from sidecar.gateway.arrival import Arrival
from sidecar.gateway.facts import NOTHING, Facts
from sidecar.ports import Client, House, Leg

__all__ = ["REPLAY_BYTES", "Arrival", "RequestExchange", "serve"]

REPLAY_BYTES = 64 * 1024  # of a request body, held until the answer begins, so that a safe retry can send it again
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CLIENT_GONE = 499  # nginx's word for an answer that nobody waited for


class RequestExchange(Facts):
    """One request and all that becomes of it: `ports.Exchange` to the listener, `ports.Caller` to the upstream.

    It is also the facts that meters and records read: status, bytes, times, outcome.
    """

    __slots__ = ()

    # Who is calling, and by which terms?

    def arrive(self) -> None:
        house, request = self.house, self.request
        arrival = request.prepared
        if arrival is None or arrival.policy is not house.policy:
            arrival = request.prepared = Arrival(house, request)
        self.arrival = arrival
        self.way = arrival.way
        self.route = arrival.way.id
        self.traceparent = arrival.traceparent
        if arrival.refusal is not None:
            return self._answer(arrival.refusal)
        if not arrival.digest:
            return self._agree(arrival.policy.terms("", arrival.way))
        return house.keys.find(arrival.digest, self.identified)

    def identified(self, found: Identity | StoreError | None) -> None:
        if self.ended:
            return None
        if found is None or isinstance(found, StoreError):
            return self._answer(answers.BAD_KEY if found is None else answers.KEYS_AWAY)
        self.identity = found
        arrival = self.arrival
        if arrival.identity is not found:
            arrival.identity = found
            arrival.terms = arrival.policy.terms(found.plan, arrival.way)
            arrival.checks = None
        return self._agree(arrival.terms)

    def _agree(self, terms: Terms | None) -> None:
        if terms is None or not terms.entitled:
            return self._answer(answers.NO_PLAN if terms is None else self._lacks(self.way.feature))
        self.terms = terms
        self.plan = terms.plan
        if self.identity is None or not terms.limits:
            return self._open()
        checks = self.checks = self.house.checks(self.arrival, self.request, self.arrived_us)
        return self.house.counters.reserve(self.id, checks, self.decided)

    def _lacks(self, feature: str) -> Problem:
        return no_feature([plan.id for plan in self.arrival.policy.plans.values() if feature in plan.features])

    # May they?

    def decided(self, decision: Decision | StoreError) -> None:
        if isinstance(decision, StoreError):  # only where no degraded store stands before this one
            return None if self.ended else self._answer(answers.KEYS_AWAY)
        self.decision = decision
        self.checks = decision.checks
        if decision.shadowed:
            self.house.shadowed(decision)
        if decision.allowed:
            return self._open()
        return None if self.ended else self._deny(decision)

    def _deny(self, decision: Decision) -> None:
        problem = denial_problem(decision)
        self.status = problem.status
        self.house.probe.denied(decision.checks.limits[decision.violated].id, shadow=False)
        self.duration_us = self.house.mono_us() - self.started_us
        self.house.journal.close("denials", self.id, self.customer, self._denial, _noted)
        self._answer(problem)

    # Leave a trace, then let the upstream see it.

    def _open(self) -> None:
        if self.gone or self.ended:
            return self._withdraw()
        if not self.house.journal.accepting():
            self._settle(None)
            return self._answer(answers.JOURNAL_FULL)
        self.opened = True
        return self.house.journal.open(self.id, open_entry(self, self.arrived_us), self.exchange)

    def _withdraw(self) -> None:
        """The client went before the upstream saw anything: nothing was used."""
        self._settle(None)
        if not self.ended:
            self.ended = True
            self.house.finished(self)

    def exchange(self, written: bool) -> None:
        if self.ended:
            return None
        if not written:
            self.opened = False
            self._settle(None)
            return self._answer(answers.NOT_RECORDED)
        if self.request.expect:
            self.client.interim(CONTINUE)
        self.upstream = self.house.upstream(self.way)
        self.sent_us = self.house.mono_us()
        return self.upstream.send(self.request, self.house.head_up(self), self)

    def on_leg(self, leg: Leg) -> None:
        self.leg = leg
        self.attempts += 1
        self.client.resume_reading()  # first: what is written now may ask for a pause again
        for data in self.body or ():
            leg.write(data)
        if self.bytes_in > REPLAY_BYTES:
            self.body = None
        if self.body_ended and self.request.length:
            leg.end(self.request_trailers)

    # The request's body, as the client sends it.

    def on_body(self, data: bytes) -> None:
        self.bytes_in += len(data)
        most = self.way.max_body_bytes
        if most and self.bytes_in > most:
            return self.on_body_broken(too_large(most))
        if self.leg is not None:
            self.leg.write(data)
        if self.body is not None:
            self.body.append(data)
            if self.bytes_in > REPLAY_BYTES:
                self._stop_holding()
        return None

    def _stop_holding(self) -> None:
        """Too much to send twice; before there is a leg, too much to take in."""
        if self.leg is not None:
            self.body = None
        else:
            self.client.pause_reading()

    def on_body_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        if self.tunnelled:
            return self.on_client_gone()
        self.body_ended = True
        if trailers:
            self.request_trailers = trailers_allowed(trailers, {source.field for source in self.way.sources})
        if self.leg is not None:
            self.leg.end(self.request_trailers)
        return None

    def replayable(self) -> bool:
        return (self.body is not None or not self.request.length) and not self.gone

    def on_retry(self) -> None:
        self.leg = None

    # The upstream's answer, as it comes.

    def on_interim(self, head: ResponseHead) -> None:
        if head.status != 100:  # ours was sent when the decision fell
            self.client.interim(interim_head(head))

    def on_response(self, head: ResponseHead) -> None:
        self.head = head
        self.status = head.status
        self.body = None
        self.out.append(self.house.head_down(self, head))
        if head.status == 101:
            self.tunnelled = True
            self.client.write(self.out.pop())
            self.client.tunnel()

    def on_response_body(self, data: bytes, done: bool) -> None:
        if data:
            self.bytes_out += len(data)
            self.out.append(chunk(data) if self.chunked else data)
        if done:
            self.leg = None  # it may carry another exchange by now
            now_us = self.house.mono_us()
            self.upstream_us = now_us - self.sent_us
            self._close(now_us)
        elif self.out:
            self.client.write(self.out[0] if len(self.out) == 1 else b"".join(self.out))
            self.out.clear()

    def on_response_trailers(self, trailers: list[tuple[bytes, bytes]]) -> None:
        if self.chunked and self.request.wants_trailers:
            self.trailers = trailers_allowed(trailers)

    # Endings that nobody asked for.

    def on_upstream_failed(self, error: UpstreamError) -> None:
        self.upstream_us = self.house.mono_us() - self.sent_us
        self.leg = None
        outcome = error.slug.replace("-", "_")
        if self.head is None:
            return self._refuse(Problem(error.status, error.slug, error.detail), outcome)
        return self._fail(self.status, outcome)

    def on_body_broken(self, problem: Problem) -> None:
        if self.ended:
            return
        self.close_after = True
        self._drop_leg()
        if self.head is not None:
            self._fail(self.status, "client_broken")
        elif self.opened:
            self._refuse(problem, "client_broken")
        else:
            self._answer(problem)

    def on_client_gone(self) -> None:
        """The client hung up, or its tunnel ended: what was used stays used, and is written down."""
        if self.gone:
            return
        self.gone = True
        if self.ended:
            return
        self._drop_leg()
        if self.opened:
            self.client_disconnected = not self.tunnelled
            self.upstream_us = self.house.mono_us() - self.sent_us if self.sent_us else 0
            self._fail(self.status or CLIENT_GONE, "tunnel" if self.tunnelled else "client_gone")

    def _drop_leg(self) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
            leg.cancel()
        elif self.upstream is not None:
            self.upstream.forget(self)

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
        self.duration_us = (now_us or self.house.mono_us()) - self.started_us
        if self.tunnelled:
            self.outcome = "tunnel"
        self.usage = self.terms.measure(self) if self.attempts else NOTHING
        plan, test = (self.identity.plan, self.identity.test) if self.identity is not None else ("", False)
        self.billable, self.billable_reason = billing(plan, status=self.status, test=test, outcome=self.outcome)
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
        checks = self.checks
        if checks is None or self.decision is None or not self.decision.allowed:
            return
        truth = self.terms.truth(usage) if usage else (0,) * len(checks.costs)
        if truth != checks.costs or checks.slots:
            self.house.counters.settle(self.id, checks, truth)

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

    # Back-pressure: each side is read only as fast as the other drinks.

    def on_client_paused(self) -> None:
        if self.leg is not None:
            self.leg.pause_reading()

    def on_client_resumed(self) -> None:
        if self.leg is not None:
            self.leg.resume_reading()

    def on_upstream_paused(self) -> None:
        self.client.pause_reading()

    def on_upstream_resumed(self) -> None:
        self.client.resume_reading()


def _noted(_written: bool) -> None:
    """A denial was admitted nothing, so its answer does not wait for the journal."""


def serve(house: House, request: Request, client: Client) -> RequestExchange:
    """Begin the life of a request; the listener drives what is returned."""
    exchange = RequestExchange(house, request, client)
    house.started()
    exchange.arrive()
    return exchange
