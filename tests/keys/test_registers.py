"""Mirrors sidecar/keys/registers.py; tests/cli/test_keys.py has the commands on both registers."""

import pytest

from sidecar.config.settings import Settings
from sidecar.core.errors import SidecarError
from sidecar.core.identity import KeyRecord, has_valid_checksum, stored
from sidecar.keys.registers import credential_fault, make_credential, make_id, open_keys


def record(number):
    return KeyRecord(f"k_{number}", stored(number.to_bytes(32)), "c", "s", "free")


@pytest.fixture(params=["file", "redis"])
def settings(request, tmp_path):
    if request.param == "file":
        return Settings(keys={"file": tmp_path / "keys.yaml", "pepper": "salt"})
    url = request.getfixturevalue("redis_clean").url
    return Settings(keys={"redis": True, "pepper": "salt"}, redis={"url": url})


def test_keys_are_found_by_ids_and_hashes(settings):
    keys = open_keys(settings)
    assert keys.find("k_1") is None
    keys.register.put(*[record(number) for number in range(1_200)])
    assert len(keys.register.records()) == 1_200
    both = keys.register.matching({"k_7", "k_none"}, {record(7).hash, record(9).hash, record(5_000).hash})
    assert sorted(each.id for each in both) == ["k_7", "k_9"]
    assert keys.get("k_1199") == record(1_199)
    with pytest.raises(SidecarError, match="no key has the id k_1200"):
        keys.get("k_1200")


# Fails if keys are reported before they are written, or not all of them.
def test_every_key_is_reported_once_it_is_written(settings):
    keys, reported = open_keys(settings), []

    def written(records):
        reported.extend(records)
        assert len(keys.register.matching({each.id for each in records}, ())) == len(records)

    keys.register.put(*[record(number) for number in range(1_200)], written=reported.extend)
    assert [each.id for each in reported] == [f"k_{number}" for number in range(1_200)]


def test_the_pepper_of_the_settings_is_in_the_hash(settings):
    assert open_keys(settings).hash_of("x") != open_keys(Settings()).hash_of("x")


def test_made_keys_carry_their_checksum():
    assert has_valid_checksum(make_credential(test=False).encode())
    assert make_credential(test=True).startswith("msk_test_")
    assert make_id() != make_id()
    assert credential_fault(make_credential(test=True)) == ""
