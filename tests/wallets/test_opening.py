import pytest

from sidecar.config.settings import load_settings
from sidecar.core.price.wallet import Grant, balance
from sidecar.edge.redis.wallet import RedisWallet
from sidecar.embedded.wallets import EmbeddedWallet
from sidecar.wallets.opening import open_wallets

GRANT = Grant("g1", 0, 0, 0, 100, 100)


async def test_without_redis_a_wallet_is_in_the_files_of_the_stopped_node(tmp_path):
    (tmp_path / "policies.yaml").write_text("routes: []\nplans: {}\nmeters: {}\n")
    (tmp_path / "sidecar.yaml").write_text("policies: policies.yaml\n")
    settings = load_settings(tmp_path / "sidecar.yaml", {"SIDECAR_JOURNAL__DIR": str(tmp_path / "journal")})
    async with open_wallets(settings) as wallets:
        assert isinstance(wallets("acme", "usd"), EmbeddedWallet)
        await wallets("acme", "usd").grant(GRANT)
    async with open_wallets(settings) as wallets:
        assert balance((await wallets("acme", "usd").read()).wallet) == 100
        assert balance((await wallets("acme", "usd.2").read()).wallet) == 0


@pytest.mark.redis
async def test_with_redis_a_wallet_is_there(redis_clean, tmp_path):
    settings = load_settings(None, {"SIDECAR_REDIS__URL": redis_clean.url, "SIDECAR_JOURNAL__DIR": str(tmp_path)})
    async with open_wallets(settings) as wallets:
        assert isinstance(wallets("acme", "usd"), RedisWallet)
        await wallets("acme", "usd").grant(GRANT)
    async with open_wallets(settings) as wallets:
        assert balance((await wallets("acme", "usd").read()).wallet) == 100
        assert balance((await wallets("acme", "usd.2").read()).wallet) == 0
    assert not any(tmp_path.iterdir())
