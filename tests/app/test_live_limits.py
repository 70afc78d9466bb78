"""Live limits are those of the counters, while two nodes serve with leases."""

import asyncio

import pytest

from sidecar.app.live_limits import read_live
from sidecar.config.settings import load_settings
from sidecar.core.identity import Identity
from sidecar.loading.documents import load_policies
from tests.app.node import KEY, node

QUOTA = """\
plans:
  free:
    limits:
      - { id: monthly, quota: 100000/month, scope: customer }
      - { id: inflight, concurrency: 500, scope: customer }
"""
WHO = Identity("k1", "s1", "c1", "free")


@pytest.mark.redis
async def test_live_limits_are_the_records_of_two_nodes_with_leases(tmp_path, redis_clean):
    # Fails if a question takes units or a slot, or what is leased is not among the used units.
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        (folder / "policy.yaml").write_text(QUOTA)
    where = {"SIDECAR_POLICIES": "policy.yaml", "SIDECAR_REDIS__URL": redis_clean.url, "SIDECAR_WORKERS": "2"}
    async with node(folders[0], **where) as one, node(folders[1], **where) as two:
        settings = load_settings(folders[0] / "sidecar.yaml", where)
        policy = load_policies(settings).policy
        served, shown = 0, []
        for number in range(20):
            answers = await asyncio.gather(*(each.ask() for each in (one, two) for _ in range(20)))
            served += sum(answer[0] == 200 for answer in answers)
            (monthly, _) = (await read_live(settings, policy, [WHO])).limits
            shown.append(monthly.used - served)
            if number % 7 == 0:
                shown.append((await usage(one))["used"] - served)
            await asyncio.sleep(0.05)
        assert served == 800
        assert min(shown) >= 0
        async with asyncio.timeout(20):  # leases that nobody uses go back
            while True:
                monthly, inflight = (await read_live(settings, policy, [WHO])).limits
                if (monthly.used, inflight.used) == (served, 0):
                    break
                await asyncio.sleep(0.05)
        assert (await usage(two))["used"] == served
        assert len(one.records()) <= served + 100  # its own and checkpoints: a question has no record


async def usage(running):
    """The figures of the monthly quota that the key is shown; asked until the second for its key is over."""
    while True:
        url = running.where + "/.well-known/usage"
        async with running.session.get(url, headers={"X-Api-Key": KEY}) as answer:
            if answer.status == 200:
                return (await answer.json())["limits"][0]
            assert answer.status == 429
        await asyncio.sleep(0.1)
