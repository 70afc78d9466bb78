"""Which exchanges are open, and what is reported of those that have ended."""


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
