import pytest

pytestmark = pytest.mark.redis


def test_accept_loss_ends_what_a_marker_says_and_says_so(sidecar, folder, redis_clean):
    where = {"SIDECAR_REDIS__URL": redis_clean.url}
    assert sidecar("counters", "accept-loss", "-c", "sidecar.yaml", **where)[:2] == (0, "no loss is recorded\n")
    redis_clean.cli.set("sc:store:mark", "ID 1700000000000000 0 2")
    assert sidecar("counters", "accept-loss", "-c", "sidecar.yaml", **where)[:2] == (
        0, "1 loss accepted: limits with `on_store_loss: deny` admit again within a second\n"
    )  # fmt: skip
    id_, lost_us, accepted_us, _ = redis_clean.cli.get("sc:store:mark").split()
    assert (id_, lost_us) == (b"ID", b"1700000000000000")
    assert int(accepted_us) > int(lost_us)
    assert sidecar("counters", "accept-loss", "-c", "sidecar.yaml", **where)[1] == "no loss is recorded\n"


def test_accept_loss_without_redis_is_wrong_usage(sidecar, folder):
    status, _, err = sidecar("counters", "accept-loss", "-c", "sidecar.yaml")
    assert status == 2
    assert "redis.url is not set" in err
