"""The drain of all client connections of a worker."""

from tests.edge.http1.playbook import hello


async def test_a_drain_fails_no_accepted_request_and_closes_what_is_idle(play):
    idle, busy = await play.connects(), await play.connects()
    upstream = await hello(play, idle)
    await busy.asks()
    await upstream.request()
    play.listener.drain()
    await idle.asks("/late")
    other = await play.upstream_accepts()
    await other.request()
    await other.answers(200, b"late")
    assert (await idle.answer()).body == b"late"
    await upstream.answers(200, b"whole")
    answer = await busy.answer()
    assert (answer.body, answer.fields["connection"]) == (b"whole", "close")
    play.turn(1)
    assert (await busy.sees_the_end(), await idle.sees_the_end()) == (b"", b"")
    await play.listener.gone()


# Fails if the connections are cut and their exchanges are not told: no record, and a reservation for ever.
async def test_what_the_drain_has_to_cut_is_recorded(play, client):
    await client.asks()
    await (await play.upstream_accepts()).request()
    play.listener.drain()
    play.listener.abort()
    assert await client.sees_the_end() == b""
    [record] = await play.recorded()
    assert (record["outcome"], play.context.open.number) == ("client_gone", 0)
