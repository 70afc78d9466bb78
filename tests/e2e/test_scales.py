"""Units with scales of their own: what is granted is spent to the last digit, on Redis and without it."""

import json

import pytest

from tests.app.node import KEY
from tests.e2e.test_embedded import killed, open_node, sidecar

POLICY = """\
meters:
  hundredths: { value: request.header.X-Hundredths }
  billionths: { value: request.header.X-Billionths }
units:
  credits: { digits: 2 }
plans:
  free:
    prices:
      hundredths: { per_unit: "0.01", currency: credits }
      billionths: { per_unit: "0.000000001", currency: usd }
    limits:
      - { id: credits, balance: credits }
      - { id: dollars, balance: usd }
"""


async def spend(running, **units):
    headers = {"X-Api-Key": KEY} | {f"X-{name.title()}": str(number) for name, number in units.items()}
    async with running.session.get(running.where + "/", headers=headers) as answer:
        return answer.status


async def shown(running, unit):
    code, out, err = await sidecar(
        running, "wallet", "show", "--customer", "c1", "--unit", unit, "--verify", "--json", "--ledger", "50"
    )
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("store", [pytest.param("redis", marks=pytest.mark.redis), "embedded"])
async def test_ten_million_credits_and_a_billionth_of_a_dollar_are_spent_to_the_last_digit(request, tmp_path, store):
    # Fails if a grant, a price or a wallet is in another scale than the others.
    url = request.getfixturevalue("redis_clean").url if store == "redis" else ""
    settings = f"redis: {{ url: {url}, timeout: 2s }}\n" if url else ""
    async with open_node(tmp_path, POLICY, settings) as running:
        grant = ("wallet", "grant", "--customer", "c1", "--expires", "never", "--unit")
        assert (await sidecar(running, *grant, "credits", "--amount", "10000000"))[:2] == (0, "10000000\n")
        assert (await sidecar(running, *grant, "usd", "--amount", "0.000000001"))[:2] == (0, "0.000000001\n")
        assert await spend(running, hundredths=999_999_999) == 200
        assert (await shown(running, "credits"))["balance"] == "0.01"
        if not url:
            await killed(running)
        assert await spend(running, hundredths=2) == 402
        assert await spend(running, hundredths=1) == 200
        assert await spend(running, hundredths=1) == 402
        assert await spend(running, billionths=1) == 200
        assert await spend(running, billionths=1) == 402
        spent = await shown(running, "credits")
        assert (spent["balance"], spent["debt"], spent["whole"]) == ("0", "0", True)
        # Each settle has a posting, though its estimate was right.
        assert [row["delta"] for row in spent["postings"]] == ["10000000", "-9999999.99", "0", "-0.01", "0"]
        assert (await shown(running, "usd"))["balance"] == "0"

        (tmp_path / "policy.yaml").write_text(POLICY.replace("digits: 2", "digits: 3"))
        status = await running.until(lambda status: status["policy"]["failed_reloads"])
        assert "units.credits.digits: 3 digits here and 2 in the policy that runs" in str(status["policy"]["faults"])
        assert await running.stop() == 0
    records = [json.loads(line) for line in running.records()]
    first = next(record for record in records if record["type"] == "sidecar.usage.v1")
    assert first["data"]["decision"]["limits"][0] == {"id": "credits", "unit": "credits", "digits": 2, "balance": 1}
