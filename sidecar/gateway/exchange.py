"""The life of a request, top to bottom, up to its ending (ending.py).

    arrive → identify → reserve → decide → open → exchange → answer → close → settle

Every step is a method that starts the next one, or hands it as a callback to a port that may have to wait: on this
path a coroutine costs seven times a call.
"""

from __future__ import annotations

from typing import Final

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError, UpstreamError
from sidecar.core.headers import denial_problem
from sidecar.core.http import problem as answers
from sidecar.core.http.body import chunk
from sidecar.core.http.forward import interim_head, trailers_allowed
from sidecar.core.http.problem import Problem, no_feature, too_large
from sidecar.core.http.response import ResponseHead
from sidecar.core.identity import Identity
from sidecar.core.policy import Terms
from sidecar.core.record import Voice, open_entry
from sidecar.gateway.arrival import Arrival
from sidecar.gateway.ending import Ending
from sidecar.ports import Leg

REPLAY_BYTES: Final = 64 * 1024  # of a request body, held until the answer begins, for a safe retry
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CLIENT_GONE: Final = 499  # nginx's word for an answer that nobody waited for


class RequestExchange(Ending):
    """One request and all that becomes of it: `ports.Exchange` to the listener, `ports.Caller` to the upstream.

    It is also the facts that meters and records read: status, bytes, times, outcome.
    """

    __slots__ = ()

    # Who is calling, and by which terms?

    def arrive(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.way = arrival.way
        self.route = arrival.way.id
        self.traceparent = arrival.traceparent
        if arrival.refusal is not None:
            return self._answer(arrival.refusal)
        if not arrival.digest:
            return self._agree(arrival.policy.terms("", arrival.way))
        known = self.house.keys.known(arrival.digest)
        if known is not None:
            return self.identified(known)
        return self.house.keys.find(arrival.digest, self.identified)

    def identified(self, found: Identity | StoreError | None) -> None:
        if self.ended:
            return None
        if found is None or isinstance(found, StoreError):
            return self._answer(answers.BAD_KEY if found is None else answers.KEYS_AWAY)
        self.identity = found
        arrival = self.arrival
        if arrival.identity is not found:
            arrival.identity = found
            arrival.terms = arrival.policy.terms(found.plan, arrival.way, found.customer)
            arrival.checks = arrival.voice = None
        return self._agree(arrival.terms)

    def _agree(self, terms: Terms | None) -> None:
        if terms is None or not terms.entitled:
            return self._answer(answers.NO_PLAN if terms is None else self._lacking(self.way.feature))
        self._take(terms)
        if self.identity is None or not terms.limits:
            return self._open()
        checks = self.checks = self.house.checks(self.arrival, self.request, self.arrived_us, self.tap)
        counters = self.house.counters
        decision = counters.spend(self.id, checks)
        if decision is not None:
            return self.decided(decision)
        return counters.reserve(self.id, checks, self.decided)

    def _take(self, terms: Terms) -> None:
        self.terms = terms
        self.plan = terms.plan
        arrival = self.arrival
        if arrival.voice is None:
            arrival.voice = Voice(self.identity, terms.plan, self.route, self.method)
        self.voice = arrival.voice

    def _lacking(self, feature: str) -> Problem:
        return no_feature(self.arrival.policy.offering(feature))

    # May they?

    def decided(self, decision: Decision | StoreError) -> None:
        if isinstance(decision, StoreError):  # only where no degraded store stands before this one
            return None if self.ended else self._answer(answers.KEYS_AWAY)
        self.decision = decision
        self.checks = decision.checks
        if decision.shadowed:
            self.house.shadowed(decision)
        if decision.checks.alerting:
            self.house.alerts.look(decision, self.alerted)
        if decision.allowed:
            return self._open()
        return None if self.ended else self._deny(decision)

    def _deny(self, decision: Decision) -> None:
        problem = denial_problem(decision)
        self.status = problem.status
        self.house.probe.denied(decision.checks.limits[decision.violated].id, shadow=False)
        self.duration_us = self.house.clock.mono_us() - self.started_us
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

    def exchange(self, written: bool) -> None:
        if self.ended:
            return None
        if not written:
            self.opened = False
            self._settle(None)
            return self._answer(answers.NOT_RECORDED)
        if self.request.expect and not self.continued:
            self.client.interim(CONTINUE)
        self.upstream = self.house.upstream(self.way)
        self.sent_us = self.house.clock.mono_us()
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
            now_us = self.house.clock.mono_us()
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
        self.upstream_us = self.house.clock.mono_us() - self.sent_us
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
            self.upstream_us = self.house.clock.mono_us() - self.sent_us if self.sent_us else 0
            self._fail(self.status or CLIENT_GONE, "tunnel" if self.tunnelled else "client_gone")

    def _drop_leg(self) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
            leg.cancel()
        elif self.upstream is not None:
            self.upstream.forget(self)

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
