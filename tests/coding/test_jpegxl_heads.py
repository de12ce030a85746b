"""Every frame of a JPEG XL codestream is found, and one that is larger than its picture is not decoded."""

from __future__ import annotations

import io
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image, ImageDraw

from semcodec._jpegxl_heads import MOST_FRAMES, jpegxl_sizes
from semcodec.coding.pictures import _learn_jpegxl, decode_picture, encode_picture
from semcodec.errors import CorruptStream

DUE = 600 * 400


def number(value: int, count: int) -> str:
    """As a codestream has it, from the least significant bit on."""
    return f"{value:0{count}b}"[::-1]


def forged(*sides: int, lengths: int = 3) -> bytes:
    """A picture of 8x8 before which there are frames for reference, of these sides in one section each."""
    bits = "1" + number(0, 5) + number(1, 3) + "11"
    for side in sides:
        bits += "0" * (-len(bits) % 8)
        size = number(3, 2) + number(side - 18688, 30) if side >= 18688 else number(0, 2) + number(side, 8)
        kind, modular, group = number(2, 2), "1", number(1, 2)
        bits += "0" + kind + modular + "00" + "00" + group + "1" + size + size + number(1, 2) + "1" + "00" + "1" + "00"
        bits += "0" + "0" * (-(len(bits) + 1) % 8) + "00" + number(lengths, 10)
        bits += "0" * (-len(bits) % 8 + 8 * lengths)
    bits += "0" * (-len(bits) % 8) + "10000000" + "00" + number(0, 10) + "0000"
    return b"\xff\x0a" + int(bits[::-1], 2).to_bytes(len(bits) // 8, "little")


def writing(width: int, height: int) -> np.ndarray:
    """What repeats itself, which libjxl sends once, in a frame of its own."""
    picture = Image.new("RGB", (width, height), "white")
    for y in range(0, height, 12):
        ImageDraw.Draw(picture).text((3, y), "the quick brown fox jumps over the lazy dog " * 3, fill="black")
    return np.asarray(picture)


def test_frames_are_bounded_before_what_they_hold():
    assert list(jpegxl_sizes(forged(40, 200))) == [(8, 8), (40, 40), (200, 200), (8, 8)]
    for data in (forged(20_000), forged(40, 1 << 20)):
        with pytest.raises(CorruptStream, match=r"\d+ pixels where at most 240000 are due"):
            decode_picture(data, DUE, ("jpegxl",))
    with pytest.raises(CorruptStream, match=f"more than {MOST_FRAMES} frames"):
        decode_picture(forged(*[8] * MOST_FRAMES), DUE, ("jpegxl",))
    with pytest.raises(CorruptStream, match="it is cut short"):
        decode_picture(forged(40)[:9], DUE, ("jpegxl",))


@pytest.mark.skipif(find_spec("pillow_jxl") is None, reason="pip install 'semcodec[jpegxl]'")
class TestOfTheEncoder:
    def test_a_frame_for_what_repeats_itself(self):
        found = list(jpegxl_sizes(encode_picture(writing(600, 400), "jpegxl", 30)))
        assert found[0] == found[2] == (600, 400)
        assert 0 < found[1][0] < 100 and 0 < found[1][1] < 100

    @pytest.mark.parametrize("shape", [(5, 7), (64, 64), (300, 2600), (257, 513)])
    @pytest.mark.parametrize("quality", [3, 50, 100])
    def test_all_are_read_and_decoded(self, shape, quality):
        rng = np.random.default_rng(0)
        for rgb in (writing(*shape[::-1]), rng.integers(0, 256, (*shape, 3), np.uint8)):
            for slow in (False, shape[0] < 100):
                data = encode_picture(rgb, "jpegxl", quality, slow=slow)
                assert all(width * height <= shape[0] * shape[1] for width, height in jpegxl_sizes(data))
                assert decode_picture(data, shape[0] * shape[1], ("jpegxl",)).shape == rgb.shape

    def test_damaged_heads_are_one_error(self):
        rng, good, messages = np.random.default_rng(0), encode_picture(writing(96, 64), "jpegxl", 30), []
        for _ in range(300):
            bad = bytearray(good)
            for at in rng.integers(2, min(len(bad), 60), rng.integers(1, 5)):
                bad[at] = rng.integers(256)
            try:
                decode_picture(bytes(bad), 96 * 64, ("jpegxl",))
            except CorruptStream as error:
                messages.append(str(error))
        assert len(messages) > 100 and not any("\n" in message for message in messages)

    def test_other_coders_streams_are_refused_where_they_take_more_room(self):
        picture, out = Image.fromarray(writing(96, 64)).convert("RGBA"), io.BytesIO()
        _learn_jpegxl()
        picture.save(out, "JXL")
        with pytest.raises(CorruptStream, match="channels beside its colours"):
            decode_picture(out.getvalue(), 96 * 64, ("jpegxl",))
