"""Which exchanges are open, and what is reported of those that have ended."""

from sidecar.core.errors import UpstreamError, UpstreamReason


def test_the_worker_is_idle_when_the_last_exchange_has_ended(scene):
    assert scene.context.open.idle.is_set()
    scene.ask()
    scene.ask()
    assert (scene.context.open.number, scene.context.open.idle.is_set()) == (2, False)
    for left, call in zip((1, 0), scene.upstream.calls, strict=True):
        call.connect().respond()
        assert (scene.context.open.number, scene.context.open.idle.is_set()) == (left, not left)


def test_the_time_that_we_added_is_told_without_the_upstreams(scene):
    scene.journal.holding = True
    scene.ask()
    scene.clock.turn(30)
    scene.journal.holding = False
    scene.journal.let_go()
    scene.clock.turn(1_000_000)
    scene.upstream.calls[0].connect().respond()
    assert scene.tally.answers == [("api", 200, 30)]


# Fails if the line has the outcome alone: an operator sees that an upstream failed, but neither which nor why.
def test_the_log_line_of_a_failed_exchange_has_the_cause(scene, caplog):
    scene.ask()
    scene.upstream.calls[0].fail(UpstreamError(UpstreamReason.REFUSED, "the host of upstream 'api' is unknown"))
    scene.ask()
    scene.upstream.calls[1].connect().respond()
    [record] = caplog.records
    assert record.message == "exchange failed: upstream_unreachable: the host of upstream 'api' is unknown"
    assert (record.fields["route"], record.fields["status"]) == ("api", 502)
