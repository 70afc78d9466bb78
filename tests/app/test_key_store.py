from functools import partial

import pytest

from sidecar.app.key_store import KeyStore
from sidecar.app.stores import CounterStore
from sidecar.config.settings import load_settings
from sidecar.control.probe import Figures
from sidecar.core.identity import digest, stored
from sidecar.core.record import Ids
from sidecar.edge.clock import SystemClock
from tests.servers.talk import until

CLOCK = SystemClock()
IDS = Ids(7)


def mint():
    return IDS.mint(CLOCK.now_us() // 1000)


def settings(folder):
    path = folder / "sidecar.yaml"
    path.write_text("keys: { file: keys.yaml }\n")
    return load_settings(path, {})


def key_store(given):
    return KeyStore(given, CLOCK, Figures(), CounterStore(given, CLOCK, mint, 0))


async def test_keys_from_a_file_are_read_anew_on_reload(tmp_path):
    # Fails if the cache is not cleared: the new key would stay unknown for seconds.
    line = "  - {{ id: {0}, hash: {1!r}, customer: c, subject: s, plan: free }}\n"
    file = tmp_path / "keys.yaml"
    file.write_text("keys:\n" + line.format("k1", stored(digest(b"one"))))
    store = key_store(settings(tmp_path))
    found = {}
    for name in (b"one", b"two"):
        store.port.find(digest(name), partial(found.__setitem__, name))
    assert found[b"one"].key_id == "k1"
    assert found[b"two"] is None
    with file.open("a") as keys:
        keys.write(line.format("k2", stored(digest(b"two"))))
    store.swap_in(store.read())
    store.port.find(digest(b"two"), partial(found.__setitem__, b"two"))
    assert found[b"two"].key_id == "k2"
    await store.aclose()


async def test_a_worker_that_does_not_hear_of_changed_keys_says_so(tmp_path):
    on_redis = {"SIDECAR_REDIS__URL": "redis://127.0.0.1:1", "SIDECAR_KEYS__REDIS": "true"}
    store = key_store(load_settings(None, on_redis))
    store.start()
    assert store.figures().gauges == {"keys_unsubscribed": 1}
    await until(lambda: store.figures().counts["keys_subscriptions_lost"], "counted")
    await store.aclose()
    (tmp_path / "keys.yaml").write_text("keys: []\n")
    assert key_store(settings(tmp_path)).figures() == ({}, {})


@pytest.mark.parametrize(("scheme", "is_new"), [("rediss", True), ("redis", False)])
async def test_revocations_are_subscribed_to_on_a_new_client_once_certificates_are_renewed(scheme, is_new):
    # Fails if the client is kept: redis-py reads the files once for each connection object, and uses those again.
    on_redis = {"SIDECAR_REDIS__URL": f"{scheme}://127.0.0.1:1", "SIDECAR_KEYS__REDIS": "true"}
    store = key_store(load_settings(None, on_redis))
    before = store._client
    store.reconnect()
    assert (store._client is not before) is is_new
    assert store._revocations._redis is store._client
    await store.aclose()
    assert not store._retired
