"""The life of one request, top to bottom: one object per request, one method per step.

    identify → check entitlement → reserve → decide → open → send → answer → close → settle → deliver

Each step starts the next one, or is the callback of a port that may have to wait: on this path a coroutine costs seven
times a call. The steps until the upstream sees the request are in admission.py, those that measure, record and settle
in accounting.py: functions of the exchange. Where bodies are read, or the request may be a retry, an `Inspection` is
asked on the way. Ports and connections call the `on_…` methods alone, and none of them raises: an exception of a step
ends this exchange and no other (guard.py).

Its state, which only grows, but for an OPEN entry that could not be written:

    state      since                                     journal          becomes     by
    ARRIVED    the head was read                         -                OPENED      `admission`, once it is allowed
                                                                          DISMISSED   `answer`, `withdraw`
    OPENED     an OPEN entry was given to the journal    OPEN             ENDED       `close`
                                                                          ARRIVED     `admission.send_upstream`
    DISMISSED  it ended before the upstream saw a byte   - or a denial    FINISHED    `finish`
    ENDED      status, outcome and usage are final       OPEN             RECORDED    `hand_over`, `on_recorded`
    RECORDED   the journal has taken its record          OPEN, CLOSE      FINISHED    `deliver`
    FINISHED   its client was answered or cut: nothing of it is open

Three promises hold in every ending: a request that reached the upstream had an OPEN entry before its first byte, and
gets a record before the last byte of its answer; every reservation is settled; and the client learns of the end only
after the journal has. Beside the state, `gone` says that the client has left, `broken` that its connection is to be
cut, and `tunnelled` that a 101 has been passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sidecar.core.decision import Decision
from sidecar.core.errors import StoreError, UpstreamError
from sidecar.core.http.cors import with_cors
from sidecar.core.http.forward import Field, trailers_allowed
from sidecar.core.http.problem import Problem, too_large, upstream_problem
from sidecar.core.http.request import Request
from sidecar.core.http.response import ResponseHead
from sidecar.core.identity import Identity
from sidecar.core.limits import Checks
from sidecar.core.policy import Tap, Terms
from sidecar.core.record import Alert, denial_record
from sidecar.gateway import accounting, admission
from sidecar.gateway.context import WorkerContext
from sidecar.gateway.guard import end_faulty
from sidecar.gateway.inspection import Inspection
from sidecar.gateway.refusals import presented
from sidecar.gateway.routing import RoutedRequest
from sidecar.gateway.states import ARRIVED, CLIENT_GONE, DISMISSED, ENDED, FINISHED, OPENED, RECORDED
from sidecar.ports import Client, Exchange, Leg, Upstream

REPLAY_BYTES: Final = 64 * 1024  # of a request body, held until the answer begins, for a safe retry
NO_USAGE: dict[str, int] = {}
NO_DIMS: dict[str, str] = {}
NO_LINES: list[dict[str, Any]] = []
NO_TRAILERS: list[Field] = []


def serve(context: WorkerContext, request: Request, client: Client) -> RequestExchange:
    """Begin the life of a request; its connection drives the exchange that is returned."""
    exchange = RequestExchange(context, request, client)
    context.open.started()
    exchange.on_arrival()
    return exchange


class RequestExchange(Exchange):
    """`ports.Exchange` to a connection, `ports.Caller` to an upstream, and the facts that meters and records read.

    `tap` is what was read of the bodies (Inspection), `rewritten` the size of the body that goes up where it is not the
    client's, else 0; `repeated`: it is a retry; `excluded` is the id of the exclusion that applies, "" for none.
    """

    __slots__ = (
        "context", "request", "client", "started_us", "state",  # on arrival
        "routed", "terms", "checks", "inspection", "tap", "repeated",  # by routing and inspection
        "upstream", "leg", "sent_us", "body", "body_ended", "request_trailers", "rewritten",  # up
        "head", "last", "refusal", "trailers",  # down: `last` and `refusal` wait for the record
        "gone", "broken", "tunnelled", "excluded", "upstream_request_id", "client_request_id",  # the end
    )  # fmt: skip

    routed: RoutedRequest
    terms: Terms
    excluded: str

    def __init__(self, context: WorkerContext, request: Request, client: Client) -> None:
        self.context = context
        self.request = request
        self.client = client
        self.method = request.method
        self.path = request.path
        self.arrived_us = now_us = context.clock.now_us()
        self.started_us = context.clock.mono_us()
        self.id = context.mint(now_us // 1000)
        self.state = ARRIVED
        self.route = self.plan = self.traceparent = self.upstream_request_id = self.client_request_id = ""
        self.identity = None
        self.checks: Checks | None = None
        self.decision = None
        self.inspection: Inspection | None = None
        self.tap: Tap | None = None
        self.dims = NO_DIMS
        self.usage_lines = NO_LINES
        self.upstream: Upstream | None = None
        self.leg: Leg | None = None
        self.head: ResponseHead | None = None
        self.refusal: Problem | None = None
        self.body: list[bytes] | None = [] if request.length else None
        self.last = b""
        self.request_trailers = self.trailers = NO_TRAILERS
        self.body_ended = request.length == 0
        self.gone = self.broken = self.tunnelled = self.repeated = self.client_disconnected = False
        self.status = self.attempts = self.bytes_in = self.bytes_out = self.sent_us = self.upstream_us = 0
        self.rewritten = self.duration_us = 0
        self.outcome = "ok"
        self.quality = "exact"
        self.usage = NO_USAGE

    # Called by ports that were asked for something.
    def on_arrival(self) -> None:
        try:
            routed: RoutedRequest | None = self.request.prepared
            if routed is None or routed.policy is not self.context.policies.policy:
                routed = self.request.prepared = RoutedRequest(self.context, self.request, self.client.peer)
            self.routed = routed
            self.route = routed.route.id
            self.traceparent = routed.traceparent
            self.client_request_id = routed.client_request_id
            if routed.is_inspected:
                self.inspection = Inspection()
            admission.identify(self, routed)
        except Exception as error:  # noqa: BLE001 - here and below: whatever it is, the exchange has to end
            end_faulty(self, error)

    def on_identity(self, identity: Identity | StoreError | None) -> None:
        try:
            admission.take_identity(self, identity)
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_first_attempt(self, first: bool | StoreError) -> None:
        try:
            if self.inspection is not None:
                self.inspection.take_first_attempt(self, first)
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_decision(self, decision: Decision | StoreError) -> None:
        try:
            admission.take_decision(self, decision)
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_opened(self, written: bool) -> None:
        try:
            admission.send_upstream(self, written)
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_alert(self, alert: Alert) -> None:
        """A threshold was passed, and this worker writes its record: now, or after this exchange has ended."""
        try:
            accounting.write_alert(self, alert)
        except Exception as error:  # noqa: BLE001 - repeated by the next exchange that passes the threshold
            self.context.log.fault(self.id, error)

    def on_recorded(self, written: bool) -> None:
        """The journal has the record, or (False) cannot have it. Settles leave before the last bytes do."""
        self.state = RECORDED
        is_settled = False
        try:
            is_settled = accounting.release(self, written)
        except Exception as error:  # noqa: BLE001 - the record is written, so its answer leaves
            self.context.log.fault(self.id, error)
        if is_settled:
            self.context.open.settling.append(self)
        else:
            self.deliver()

    # Called by the upstream (ports.Caller).
    def replayable(self) -> bool:
        return (self.body is not None or not self.request.length) and not self.gone

    def on_leg(self, leg: Leg) -> None:
        try:
            self.leg = leg
            self.attempts += 1
            self.client.resume_reading()  # first: what is written now may ask for a pause again
            for data in self.body or ():
                leg.write(data)
            if self.bytes_in > REPLAY_BYTES:
                self.body = None
            if self.body_ended and self.request.length:
                leg.end(self.request_trailers)
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_retry(self) -> None:
        self.leg = None

    def on_interim(self, head: ResponseHead) -> None:
        try:
            if head.status != 100:  # ours was sent when the decision was made
                self.client.interim(head)
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_response(self, head: ResponseHead) -> None:
        try:
            if self.inspection is not None:
                self.inspection.tap.answer(head)
            self.head = head
            self.status = head.status
            self.body = None
            self.tunnelled = head.status == 101
            decision = self.decision
            fields = self.context.heads.answer_fields(decision, head) if decision is not None else ()
            if self.routed.cors:
                fields = with_cors(fields, self.routed.cors, head)
            elif self.routed.origin:
                self.context.origins.learn(self.route, self.routed.origin, head)
            self.client.respond(head, self.id, fields)
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_response_body(self, data: bytes, done: bool) -> None:
        try:
            if self.inspection is not None and not self.tunnelled:
                size = len(data)
                data = self.inspection.read_answer(self, data, done)
                done = done and not self.inspection.is_behind
                if self.gone:
                    return self.inspection.drain_answer(self, size, done)
            self.bytes_out += len(data)
            if not done:
                return self.client.body(data)
            self.last = data
            self.leg = None  # it may carry another exchange by now
            now_us = self.context.clock.mono_us()
            self.upstream_us = now_us - self.sent_us
            return self.close(now_us)
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_response_trailers(self, trailers: list[Field]) -> None:
        try:
            if self.request.wants_trailers:
                self.trailers = trailers_allowed(trailers)
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_upstream_failed(self, error: UpstreamError) -> None:
        try:
            if self.inspection is not None and self.inspection.take_failure(self, error):
                return None
            self.upstream_us = self.context.clock.mono_us() - self.sent_us
            self.leg = None
            reason = error.reason
            if self.head is None:
                return self.refuse(upstream_problem(error), reason.outcome)
            return self.fail(self.status, reason.outcome)
        except Exception as raised:  # noqa: BLE001
            end_faulty(self, raised)

    def on_upstream_paused(self) -> None:
        try:
            self.client.pause_reading()
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_upstream_resumed(self) -> None:
        try:
            self.client.resume_reading()
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    # Called by the client's connection (ports.Exchange).
    def on_body(self, data: bytes) -> None:
        try:
            self.bytes_in += len(data)
            self.take_body(data)
            if self.inspection is not None:
                self.inspection.take_body(self)
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_body_end(self, trailers: list[Field]) -> None:
        try:
            if self.tunnelled:
                return self.end_gone()
            self.body_ended = True
            if trailers:
                self.request_trailers = trailers_allowed(trailers, self.routed.policy.late)
            if self.leg is not None:
                self.leg.end(self.request_trailers)
            if self.inspection is not None:
                self.inspection.end_body(self)
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_body_broken(self, problem: Problem) -> None:
        try:
            self.break_body(problem)
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_client_gone(self) -> None:
        try:
            if self.inspection is None or not self.inspection.detach(self):
                self.end_gone()
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_client_paused(self) -> None:
        try:
            if self.leg is not None:
                self.leg.pause_reading()
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def on_client_resumed(self) -> None:
        try:
            if self.leg is not None and (self.inspection is None or not self.inspection.is_behind):
                self.leg.resume_reading()
        except Exception as error:  # noqa: BLE001
            end_faulty(self, error)

    def take_body(self, data: bytes) -> None:
        most_bytes = self.routed.route.max_body_bytes
        if most_bytes and self.bytes_in > most_bytes:
            return self.break_body(too_large(most_bytes))
        leg, body = self.leg, self.body
        if leg is not None:
            leg.write(data)
        if body is not None:
            body.append(data)
            if self.bytes_in > REPLAY_BYTES:
                if leg is not None:  # too much to send twice
                    self.body = None
                else:  # too much to take in before there is a leg
                    self.client.pause_reading()
        return None

    # Endings that nobody asked for.
    def break_body(self, problem: Problem) -> None:
        if self.inspection is not None:
            self.inspection.gathering = False
        if self.ended:
            return
        self.drop_leg()
        if self.head is not None:
            self.fail(self.status, "client_broken")
        elif self.state == OPENED:
            self.refuse(problem, "client_broken")
        else:
            self.answer(problem)

    def end_gone(self) -> None:
        """The client hung up, or its tunnel ended: what was used stays used, and is recorded."""
        if self.gone:
            return
        self.gone = True
        if self.ended:
            return
        self.drop_leg()
        if self.state == OPENED:
            self.client_disconnected = not self.tunnelled
            self.upstream_us = self.context.clock.mono_us() - self.sent_us if self.sent_us else 0
            self.fail(self.status or CLIENT_GONE, "tunnel" if self.tunnelled else "client_gone")

    def drop_leg(self) -> None:
        leg, self.leg = self.leg, None
        if leg is not None:
            leg.cancel()
        elif self.upstream is not None:
            self.upstream.forget(self)

    def answer(self, problem: Problem) -> None:
        """Refuse before the upstream has seen anything: no record but a denial's."""
        self.state = DISMISSED
        self.status = problem.status
        self.context.refusals.exchange(problem, self)
        self.client.refuse(presented(problem, self), self.id, self.limit_fields())
        self.finish()
        self.unclaim()

    def withdraw(self) -> None:
        """The client left before the upstream saw anything: nothing was used."""
        accounting.settle(self, None)
        if not self.ended:
            self.dismiss()
        self.unclaim()

    def dismiss(self) -> None:
        self.state = DISMISSED
        self.finish()

    def refuse(self, problem: Problem, outcome: str) -> None:
        """The answer is our own, and the exchange was opened, so it ends in a record all the same."""
        self.outcome = outcome
        self.status = problem.status
        self.refusal = problem
        self.close()

    def fail(self, status: int, outcome: str) -> None:
        """The answer cannot be completed: that is recorded, and then the connection is cut."""
        self.status = status
        self.outcome = outcome
        self.broken = not self.tunnelled
        self.quality = "exact" if self.tunnelled else "partial"
        self.close()

    # Close the usage, record it, settle it, and only then let the last bytes go.

    def close(self, now_us: int = 0) -> None:
        if self.ended:
            return
        if self.inspection is not None:
            self.inspection.complete(self)
        self.state = ENDED
        self.duration_us = (now_us or self.context.clock.mono_us()) - self.started_us
        if self.tunnelled:
            self.outcome = "tunnel"
        accounting.measure(self)
        self.hand_over(self.write_record)

    def hand_over(self, write: Callable[[str, int], bytes]) -> None:
        """Give the record to the journal. From then on `on_recorded` is sure to come, or has come."""
        self.context.journal.close("records", self.id, self.customer, write, self.on_recorded)
        self.state = max(self.state, RECORDED)

    def write_record(self, source: str, sequence: int) -> bytes:
        return accounting.record(self, source, sequence)

    def write_denial(self, source: str, sequence: int) -> bytes:
        return denial_record(self, self.arrived_us + self.duration_us, source, sequence)

    def deliver(self) -> None:
        """Let the last bytes go."""
        client = self.client
        try:
            if self.broken:
                client.cut()
            elif self.refusal is not None:
                client.refuse(presented(self.refusal, self), self.id, self.limit_fields())
            else:
                client.end(self.last, self.trailers)
        except Exception as error:  # noqa: BLE001 - its record says otherwise, and nothing more can be done for it
            self.context.log.fault(self.id, error)
            self.cut()
        self.finish()

    def cut(self) -> None:
        try:
            self.client.cut()
        except Exception as error:  # noqa: BLE001 - the connection's own deadline ends it
            self.context.log.fault(self.id, error)

    def finish(self) -> None:
        """Nothing of it is open any more."""
        self.state = FINISHED
        try:
            self.context.open.finished(self)
        except Exception as error:  # noqa: BLE001 - it is counted out; its figures failed
            self.context.log.fault(self.id, error)

    def unclaim(self) -> None:
        if self.inspection is not None:
            self.inspection.unclaim(self)

    def limit_fields(self) -> Sequence[Field]:
        return self.context.heads.limit_fields(self.decision) if self.decision is not None else ()

    # Read by those who have a part in its end, by meters (core.policy.Facts) and records (core.record.Facts).

    @property
    def ended(self) -> bool:
        return self.state >= DISMISSED

    @property
    def finished(self) -> bool:
        return self.state == FINISHED

    @property
    def customer(self) -> str:
        return self.identity.customer if self.identity is not None else ""

    @property
    def half_close(self) -> bool:
        return self.routed.route.half_close == "allow"

    def request_header(self, name: bytes) -> bytes | None:
        return self.request.fields.get(name)

    def response_header(self, name: bytes) -> bytes | None:
        return self.head.fields.get(name) if self.head is not None else None
