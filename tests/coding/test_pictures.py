"""Pictures: bounded, untrusted on arrival, and small where pixels were dropped."""

from __future__ import annotations

import struct
import sys
import zlib
from importlib.util import find_spec
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from semcodec.coding.pictures import FORMATS as ALL
from semcodec.coding.pictures import (
    _learn_jpegxl,
    decode_picture,
    encode_picture,
    smooth_fill,
    stack_frames,
    unstack_frames,
)
from semcodec.errors import CorruptStream, PluginError, UsageError

JPEG_XL = find_spec("pillow_jxl") is not None
MISSING = pytest.mark.skipif(not JPEG_XL, reason="pip install 'semcodec[jpegxl]'")
FORMATS = tuple(pytest.param(name, marks=MISSING) if name == "jpegxl" else name for name in ALL)
HERE = tuple(name for name in ALL if JPEG_XL or name != "jpegxl")


def scene(height, width, seed=0):
    y, x = np.mgrid[:height, :width] / 32
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    return np.stack([128 + 60 * np.sin(y + p) + 60 * np.cos(x * 1.3 - p) for p in phase], -1).astype(np.uint8)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (64, 48), (448, 33)])
def test_round_trip(name, shape):
    rgb = scene(*shape)
    got = decode_picture(encode_picture(rgb, name, 95), rgb[..., 0].size, (name,))
    assert got.shape == rgb.shape
    assert got.dtype == np.uint8
    if name == "png":
        np.testing.assert_array_equal(got, rgb)
    else:
        assert np.abs(got.astype(int) - rgb).mean() < 4


@pytest.mark.parametrize("name", FORMATS)
def test_quality_buys_bytes_and_noise_of_full_quality_is_written(name):
    noise = np.random.default_rng(0).integers(0, 256, (200, 160, 3), dtype=np.uint8)
    small, large = (len(encode_picture(noise, name, quality)) for quality in (20, 100))
    assert small == large if name == "png" else small < large / 2
    assert large < 2 * noise.size + 4096


def test_metadata_is_not_sent():
    for name in HERE:
        with Image.open(BytesIO(encode_picture(scene(16, 16), name, 80))) as picture:
            assert not picture.getexif()
            made = {"icc_profile"} if name == "jpegxl" else set()  # by the decoder, of the colour space's number
            assert not {"icc_profile", "xmp", "comment", "exif"} & set(picture.info) - made


def test_wrong_requests_are_usage_errors():
    rgb = scene(8, 8)
    with pytest.raises(UsageError, match="no picture format 'gif'"):
        encode_picture(rgb, "gif", 50)
    for quality in (0, 101):
        with pytest.raises(UsageError, match="1 to 100"):
            encode_picture(rgb, "jpeg", quality)
    with pytest.raises(UsageError, match="16383"):
        encode_picture(np.zeros((16384, 1, 3), np.uint8), "webp", 50)
    for wrong in (rgb[..., 0], rgb.astype(np.float32), rgb[:0]):
        with pytest.raises(UsageError, match="uint8"):
            encode_picture(wrong, "png")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (33, 20)])
def test_what_is_decoded_is_what_pillow_decodes(name, shape):
    data = encode_picture(scene(*shape), name, 60)
    with Image.open(BytesIO(data)) as picture:
        np.testing.assert_array_equal(decode_picture(data, shape[0] * shape[1], (name,)), np.array(picture))
    assert data == encode_picture(scene(*shape), name, 60)


@MISSING
@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (256, 192), (257, 100), (300, 400), (9, 700)])
def test_the_size_of_a_jpeg_xl_picture_is_known_before_it_is_decoded(shape):
    data = encode_picture(scene(*shape), "jpegxl", 100)
    np.testing.assert_array_equal(decode_picture(data, shape[0] * shape[1], ("jpegxl",)), scene(*shape))
    with pytest.raises(CorruptStream, match=f"a picture of {shape[0] * shape[1]} pixels"):
        decode_picture(data, shape[0] * shape[1] - 1, ("jpegxl",))


def test_without_its_plugin_jpeg_xl_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    _learn_jpegxl.cache_clear()
    with pytest.raises(PluginError, match=r"pip install 'semcodec\[jpegxl\]'"):
        encode_picture(scene(8, 8), "jpegxl")
    assert decode_picture(encode_picture(scene(8, 8), "png"), 64).shape == (8, 8, 3)
    monkeypatch.undo()
    _learn_jpegxl.cache_clear()


def bomb(side):
    """A PNG head that claims side x side pixels, followed by almost nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [2000, 12_000, 60_000, 2**31 - 1])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(CorruptStream):
        decode_picture(bomb(side), 224 * 224, ("png",))


def test_only_the_named_format_and_rgb_are_read():
    data = encode_picture(scene(16, 16), "webp", 80)
    with pytest.raises(CorruptStream, match="not a jpeg or png picture"):
        decode_picture(data, 256, ("jpeg", "png"))
    out = BytesIO()
    Image.new("L", (16, 16)).save(out, "png")
    with pytest.raises(CorruptStream, match="mode L"):
        decode_picture(out.getvalue(), 256)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_corrupt_stream_or_another_picture(name):
    rng = np.random.default_rng(1)
    good = encode_picture(scene(48, 40), name, 60)
    refused = 0
    for _ in range(150):
        bad = bytearray(good)
        kind = rng.integers(3)
        if kind == 0:
            del bad[rng.integers(len(bad)) :]
        else:
            for at in rng.integers(0, len(bad), 1 + 8 * (kind - 1)):
                bad[at] ^= 1 << rng.integers(8)
        try:
            assert decode_picture(bytes(bad), 48 * 40, (name,)).size <= 48 * 40 * 3
        except CorruptStream:
            refused += 1
    assert refused > 20


def test_stack_and_unstack():
    frames = np.random.default_rng(2).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    tall = stack_frames(frames)
    assert tall.shape == (30, 7, 3)
    np.testing.assert_array_equal(tall[6:12], frames[1])
    np.testing.assert_array_equal(unstack_frames(tall, 5), frames)
    for count in (0, 4):
        with pytest.raises(CorruptStream):
            unstack_frames(tall, count)


@given(
    frames=st.integers(1, 3),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_filling_keeps_what_is_kept_and_stays_in_its_range(frames, height, width, share, seed):
    rng = np.random.default_rng(seed)
    clip = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    mask = rng.random(clip.shape[:3]) < share
    filled = smooth_fill(clip, mask)
    assert filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[mask], clip[mask])
    np.testing.assert_array_equal(filled, smooth_fill(np.where(mask[..., None], clip, 7).astype(np.uint8), mask))
    for k in range(frames):
        if mask[k].any():
            kept = clip[k][mask[k]]
            assert (filled[k] >= kept.min(0)).all()
            assert (filled[k] <= kept.max(0)).all()


def test_filled_pictures_are_smaller_than_zeroed_ones():
    frames = np.stack([scene(96, 96, seed) for seed in range(2)])
    y, x = np.mgrid[:96, :96] - 48
    mask = np.broadcast_to(x**2 + y**2 < 35**2, (2, 96, 96))
    filled = stack_frames(smooth_fill(frames, mask))
    zeroed = stack_frames(frames * mask[..., None])
    for name in ("jpeg", "webp"):
        assert len(encode_picture(filled, name, 60)) < 0.8 * len(encode_picture(zeroed, name, 60))


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_decoder_says_of_damage_is_one_line(name):
    data = encode_picture(scene(40, 56), name, 90)
    rng = np.random.default_rng(0)
    said = set()
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(len(data) // 4, len(data), 8):
            damaged[place] ^= int(rng.integers(1, 256))
        try:
            decode_picture(bytes(damaged), 40 * 56, (name,))
        except CorruptStream as error:
            said.add(str(error))
    assert not [text for text in said if len(text.splitlines()) > 1]
