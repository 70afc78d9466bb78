import gzip
import random
import zlib

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.usage.ai.encodings import ALLOWED, PIECE, RATIO, SLICE, Decoder, layers_of, zstd
from tests.core.usage.ai.answers import cut

TEXT = b"".join(b'data: {"text":"%x"}\n\n' % random.Random(n).getrandbits(64) for n in range(5000))  # several slices


def bare(data):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACK = {
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"br": lambda data: brotli.compress(data, quality=5),
    b"zstd": zstd.compress,
}
PACKED = {coding: pack(TEXT) for coding, pack in PACK.items()}


def decoded(coding, pieces):
    parts = []
    decoder = Decoder(layers_of(coding))
    for piece in [*pieces, None]:
        decoder.feed(piece or b"", last=piece is None)
        parts += iter(decoder.read, b"")
    assert not decoder.is_behind
    return b"".join(parts), decoder.unread


@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize("step", [1, 100, 1 << 20])
def test_each_coding_is_undone_however_it_is_cut(coding, step):
    packed = PACKED[coding]
    assert len(packed) > 2 * SLICE
    assert decoded(coding, [packed[at : at + step] for at in range(0, len(packed), step)]) == (TEXT, 0)


# Mutation: br is done when it can take more input, though it has more to give.
@pytest.mark.parametrize("coding", PACK)
def test_what_grows_tenfold_comes_out_to_its_last_byte(coding):
    text = b"".join(b'data: {"n":%d,"text":"%x"}\n\n' % (n, n * 7919) for n in range(3000))
    assert decoded(coding, [PACK[coding](text)]) == (text, 0)


def test_deflate_without_zlibs_head_is_undone_as_well():
    assert decoded(b"deflate", [bare(TEXT)]) == (TEXT, 0)


# Mutation: deflate is done when its input is.
def test_what_deflate_still_holds_when_its_input_is_over_comes_out():
    sizes = range(PIECE, PIECE + 1000)
    assert [size for size in sizes if len(decoded(b"deflate", [bare(bytes(size))])[0]) != size] == []


@pytest.mark.parametrize("coding", [b"gzip", b"zstd"])
def test_members_one_behind_the_other_are_one_answer(coding):
    assert decoded(coding, [PACKED[coding] + PACK[coding](b"more")]) == (TEXT + b"more", 0)


def test_several_codings_are_undone_from_the_last_to_the_first():
    packed = brotli.compress(PACKED[b"gzip"])
    assert decoded(b"GZip , identity, br", [packed]) == (TEXT, 0)


@pytest.mark.parametrize("coding", [b"", b"identity", b" , "])
def test_no_coding_has_no_layers(coding):
    assert layers_of(coding) == []


@pytest.mark.parametrize("coding", [b"compress", b"gzip, snappy", b"gzip,gzip,gzip,gzip", b"\xff"])
def test_what_is_in_an_unknown_coding_is_counted_and_not_read(coding):
    assert decoded(coding, [b"abc", b"de"]) == (b"", 5)


# Mutation: no bound in _through. A thousandfold, and a millionfold through two layers.
@pytest.mark.parametrize("coding", PACK)
def test_a_bomb_is_given_up_before_it_bursts(coding):
    bomb = PACK[coding](bytes(16 << 20))
    made, unread = decoded(coding, [bomb])
    assert len(made) <= ALLOWED + RATIO * (len(bomb) + SLICE)
    assert unread > 0


def test_a_bomb_within_a_bomb_is_given_up():
    made, unread = decoded(b"gzip, zstd", [zstd.compress(gzip.compress(bytes(64 << 20)))])
    assert len(made) <= ALLOWED + 2 * RATIO * SLICE
    assert unread > 0


def test_a_window_of_more_than_eight_megabytes_is_not_made():
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    packer = zstd.ZstdCompressor(options=options)
    packed = packer.compress(TEXT) + packer.flush()
    assert decoded(b"zstd", [packed]) == (b"", len(packed))


# Mutation: no slices, so that an error takes with it what the same bytes told before when they came one by one.
@pytest.mark.parametrize("coding", PACK)
@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255), st.lists(st.integers(0, 10**6), max_size=5))
def test_a_broken_answer_reads_the_same_however_it_is_cut(coding, place, byte, places):
    packed = bytearray(PACKED[coding])
    packed[place % len(packed)] = byte
    assert decoded(coding, cut(bytes(packed), places)) == decoded(coding, [bytes(packed)])


@given(st.sampled_from([*PACK, b"gzip, br"]), st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_in_any_coding_are_survived(coding, data, places):
    assert decoded(coding, cut(data, places)) == decoded(coding, [data])
