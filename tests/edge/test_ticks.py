"""The tick of a worker, on a clock that is turned by hand."""

from sidecar.edge.ticks import ticks


# Mutations: the time that the user of a tick takes counts as its delay; a delay counts for two ticks.
async def test_a_tick_says_how_late_it_is():
    now = 100.0
    delays = iter([0.0, 3.5, 0.0])

    async def sleep(seconds):
        nonlocal now
        now += seconds + next(delays)

    def time():
        return now

    seen = []
    async for each in ticks(0.5, time, sleep):
        seen.append(each)
        now += 2.0  # the use
        if len(seen) == 4:
            break
    assert seen == [(100.0, 0.0), (102.5, 0.0), (108.5, 3.5), (111.0, 0.0)]
