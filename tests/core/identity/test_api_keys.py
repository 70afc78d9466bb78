import hashlib
import hmac
import random
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.identity import digest, has_valid_checksum, make_key, stored

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def test_a_digest_is_the_sha256_of_the_credential():
    assert digest(b"secret") == hashlib.sha256(b"secret").digest()


# Fails if the key block is not hashed down when it is longer than 64 bytes.
@given(st.binary(max_size=200), st.binary(min_size=1, max_size=200))
@example(b"credential", b"p" * 64)
@example(b"credential", b"p" * 65)
def test_a_peppered_digest_is_the_hmac_of_the_credential(credential, pepper):
    assert digest(credential, pepper) == hmac.digest(pepper, credential, "sha256")


def test_the_stored_form_names_its_hash():
    assert stored(digest(b"x")) == "sha256:" + hashlib.sha256(b"x").hexdigest()


# --- Made keys


@given(st.binary(min_size=20, max_size=20))
def test_a_made_key_looks_made(raw):
    key = make_key(raw)
    assert key.startswith("msk_")
    assert len(key) == 4 + 27 + 6
    assert has_valid_checksum(key.encode()) is True


def test_keys_differ_wherever_their_random_bits_do():
    raw = bytes(20)
    flipped = [bytes(byte ^ (bit == position) << bit % 8 for position, byte in enumerate(raw)) for bit in range(20)]
    assert len({make_key(one) for one in [raw, *flipped]}) == 21


def test_a_test_key_says_so_and_looks_made():
    assert has_valid_checksum(make_key(bytes(20), "msk_test_").encode()) is True


# Fails if the checksum leaves the prefix out.
def test_a_key_with_its_test_mark_taken_off_is_refused():
    assert has_valid_checksum(make_key(bytes(20), "msk_test_").replace("test_", "").encode()) is False


# Fails if has_valid_checksum compares the last 5 characters only.
@given(st.binary(min_size=20, max_size=20))
def test_every_single_character_typo_is_refused(raw):
    key = make_key(raw)
    for position in range(4, len(key)):
        for wrong in BASE62:
            typo = key[:position] + wrong + key[position + 1 :]
            assert has_valid_checksum(typo.encode()) is (typo == key)


@given(st.binary(min_size=20, max_size=20))
def test_every_transposition_of_neighbours_is_refused(raw):
    key = make_key(raw)
    for position in range(4, len(key) - 1):
        twisted = key[:position] + key[position + 1] + key[position] + key[position + 2 :]
        assert has_valid_checksum(twisted.encode()) is (twisted == key)


def test_sampled_transpositions_at_a_distance_are_refused():
    dice = random.Random(7)
    for _ in range(2_000):
        key = list(make_key(dice.randbytes(20)))
        one, other = dice.sample(range(4, len(key)), 2)
        twisted = key.copy()
        twisted[one], twisted[other] = key[other], key[one]
        assert has_valid_checksum("".join(twisted).encode()) is (twisted == key)


# Fails if the length is not looked at.
@pytest.mark.parametrize(
    "wrong", [b"msk_", b"msk_short", b"msk_" + b"0" * 32, b"msk_" + b"0" * 34, b"msk_" + b"\xff" * 33]
)
def test_what_has_our_prefix_and_not_our_shape_is_refused(wrong):
    assert has_valid_checksum(wrong) is False


@pytest.mark.parametrize("foreign", [b"", b"sk-live-1", b"MSK_0", b"0f3c2b"])
def test_a_foreign_key_is_known_by_its_hash_alone(foreign):
    assert has_valid_checksum(foreign) is None


def test_another_prefix_is_as_good():
    key = make_key(bytes(range(20)), "acme_").encode()
    assert has_valid_checksum(key, b"acme_") is True
    assert has_valid_checksum(key) is None


@pytest.mark.parametrize(
    ("raw", "prefix"), [(b"short", "msk_"), (bytes(20), "msk"), (bytes(20), "mük_"), (bytes(20), "a b_")]
)
def test_a_key_is_not_made_of_too_little_or_with_an_odd_prefix(raw, prefix):
    with pytest.raises(ValueError, match="key"):
        make_key(raw, prefix)
