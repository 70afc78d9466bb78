import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.errors import SinkError
from sidecar.core.record.frame import (
    CLOSE,
    HEAD,
    HEADER_BYTES,
    OPEN,
    PAYLOAD_MAX,
    RECORD,
    STREAMS,
    Bad,
    Frame,
    NewerVersionError,
    Position,
    encode_frame,
    frame_at,
    next_frame,
    scan,
    segment_name,
    segment_of,
)

FRAMES = [
    Frame(HEAD, "", 0, b"0" * 26, b"", b"{}"),
    Frame(OPEN, "", 0, b"1" * 26, b"", b'{"plan":"pro@3"}'),
    Frame(CLOSE, "records", 1, b"1" * 26, b"cust-9", b'{"specversion":"1.0"}'),
    Frame(RECORD, "denials", 1, b"2" * 26, b"", b""),
    Frame(CLOSE, "records", 2**63, b"3" * 26, "é".encode(), b"x" * 300),
]
LOG = b"".join(encode_frame(*frame) for frame in FRAMES)
ENDS = [0] + [sum(len(encode_frame(*frame)) for frame in FRAMES[: n + 1]) for n in range(len(FRAMES))]


def frames(buffer):
    return [item for _, item in scan(buffer) if isinstance(item, Frame)]


def bad(buffer):
    return [item for _, item in scan(buffer) if isinstance(item, Bad)]


@given(
    st.lists(
        st.builds(
            Frame,
            st.sampled_from([OPEN, CLOSE, RECORD]),
            st.sampled_from(STREAMS),
            st.integers(0, 2**64 - 1),
            st.binary(min_size=26, max_size=26),
            st.binary(max_size=300),
            st.binary(max_size=2000),
        )
    )
)
def test_what_is_written_is_read(written):
    buffer = b"".join(encode_frame(*frame) for frame in written)
    assert [item for _, item in scan(buffer)] == written


def test_a_cut_at_any_byte_leaves_the_frames_before_it_and_a_torn_rest():
    # Fails if the length is believed without the CRC.
    for cut in range(len(LOG)):
        whole = sum(end <= cut for end in ENDS[1:])
        assert frames(LOG[:cut]) == FRAMES[:whole]
        rest = [Bad(ENDS[whole], cut, torn=True)] if cut > ENDS[whole] else []
        assert bad(LOG[:cut]) == rest


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_anywhere_costs_its_own_frame_only(bit):
    # Fails if the CRC leaves out the key's length, the type, the id or the version.
    for at in range(len(LOG)):
        damaged = bytearray(LOG)
        damaged[at] ^= 1 << bit
        hit = sum(end <= at for end in ENDS[1:])
        buffer = bytes(damaged)
        assert frames(buffer) == FRAMES[:hit] + FRAMES[hit + 1 :]
        assert bad(buffer) == [Bad(ENDS[hit], ENDS[hit + 1], torn=hit == len(FRAMES) - 1)]


def test_zeroed_pages_at_the_end_are_torn():
    assert bad(LOG + bytes(4096)) == [Bad(len(LOG), len(LOG) + 4096, torn=True)]
    assert frames(LOG + bytes(4096)) == FRAMES


def test_a_zeroed_page_in_between_is_corrupt():
    assert frames(LOG + bytes(4096) + LOG) == FRAMES * 2
    assert bad(LOG + bytes(4096) + LOG) == [Bad(len(LOG), len(LOG) + 4096, torn=False)]


def test_noise_holds_no_frame():
    noise = random.Random(7).randbytes(100_000)
    assert [item for _, item in scan(noise)] == [Bad(0, 100_000, torn=True)]


def test_a_head_that_claims_more_than_there_is_does_not_hide_what_follows():
    liar = bytearray(encode_frame(*FRAMES[2]))
    liar[12:16] = (PAYLOAD_MAX).to_bytes(4, "little")
    assert frames(bytes(liar) + LOG) == FRAMES


@pytest.mark.parametrize(
    ("claimed", "payload"), [(200, 100), (PAYLOAD_MAX + 1, PAYLOAD_MAX + 1)], ids=["short", "long"]
)
def test_a_length_that_cannot_be_is_no_frame_although_the_checksum_fits(claimed, payload):
    # Fails if a frame may end behind the buffer, or be longer than PAYLOAD_MAX.
    made = bytearray(encode_frame(*FRAMES[2])[:24] + bytes(payload))
    made[12:16] = claimed.to_bytes(4, "little")
    made[4:8] = zlib.crc32(made[8:], zlib.crc32(made[:4])).to_bytes(4, "little")
    assert frame_at(bytes(made), 0) is None


def test_a_frame_from_the_future_is_refused_by_its_version():
    # Fails if another version is taken for damage: its records would be skipped.
    frame = bytearray(encode_frame(*FRAMES[2]))
    frame[3] = 2
    frame[4:8] = zlib.crc32(frame[8:], zlib.crc32(frame[:4])).to_bytes(4, "little")
    with pytest.raises(NewerVersionError, match="version 2"):
        frame_at(bytes(frame), 0)


def test_a_flipped_version_is_damage_and_no_future():
    frame = bytearray(encode_frame(*FRAMES[2]))
    frame[3] = 2
    assert frame_at(bytes(frame), 0) is None


def test_the_next_frame_is_found_behind_a_false_magic():
    buffer = b"\xf5SJ\x01 no frame \xf5SJ" + LOG
    assert next_frame(buffer, 0) == len(buffer) - len(LOG)
    assert next_frame(buffer[: len(buffer) - len(LOG)], 0) == -1


@pytest.mark.parametrize(("id_", "body"), [(b"short", b""), (b"0" * 26, bytes(PAYLOAD_MAX))])
def test_what_no_reader_would_believe_is_not_written(id_, body):
    with pytest.raises(SinkError):
        encode_frame(RECORD, "records", 1, id_, b"", body)


def test_a_frame_is_as_long_as_the_page_says():
    assert len(encode_frame(RECORD, "records", 1, b"0" * 26, b"key", b"body")) == HEADER_BYTES + 7


@given(st.builds(Position, *[st.integers(0, 2**40)] * 3), st.builds(Position, *[st.integers(0, 2**40)] * 3))
def test_positions_survive_being_text(one, other):
    assert Position.parse(str(one)) == one
    assert (one < other) == (tuple(one) < tuple(other))


@pytest.mark.parametrize("text", ["", "1.2", "1.2.x", "1.2.-3", "1.2.3.4", "1.2.3\n", "٣.1.1"])
def test_what_is_no_position_is_refused(text):
    with pytest.raises(SinkError, match=r"epoch\.segment\.offset"):
        Position.parse(text)


def test_names_of_segments_sort_as_segments_do():
    pairs = [(1, 2), (1, 10), (2, 1), (10, 1)]
    assert sorted(segment_name(*pair) for pair in pairs) == [segment_name(*pair) for pair in pairs]
    assert [segment_of(segment_name(*pair)) for pair in pairs] == pairs
    assert segment_of("00000001-00000001.seg.512.bad") is None
