"""Pictures and video that are larger than what is due are refused before a decoder makes room for them."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from importlib.util import find_spec

import av
import numpy as np
import pytest
from PIL import Image

from semcodec._picture_heads import avif_sizes, jpeg2000_size, webp_size
from semcodec._video_heads import av1_sizes, coded_sizes
from semcodec.coding.pictures import decode_picture, encode_picture
from semcodec.coding.videos import decode_frames, encode_frames, encode_h264
from semcodec.data.images import read_image
from semcodec.errors import CorruptStream, DataError
from semcodec.specs import InputRequest

SIDE, DUE = 4096, 64
MEGABYTES = 12
"""By which memory may grow: a picture of 4096x4096 takes 16 or more a channel."""
H265 = {"preset": "ultrafast", "x265-params": "log-level=none"}
AV1 = {"preset": "12", "crf": "60"}


def frames(side: int, count: int = 1) -> np.ndarray:
    return np.full((count, side, side, 3), 90, np.uint8)


def picture(side: int, form: str, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(frames(side)[0]).save(out, form, **options)
    return out.getvalue()


def lying_avif(side: int, says: int) -> bytes:
    """An AVIF picture whose boxes say another size than it is coded in."""
    data = picture(side, "AVIF", speed=10, quality=1)
    return data.replace(struct.pack(">4sIII", b"ispe", 0, side, side), struct.pack(">4sIII", b"ispe", 0, says, says))


def lying_webp() -> bytes:
    """A canvas of 16383x16383 on which a picture of 64x64 lies."""
    still = picture(DUE, "WEBP")[12:]
    head = struct.pack("<4sII", b"VP8X", 10, 0x02) + (16382).to_bytes(3, "little") * 2
    anim = struct.pack("<4sIIH", b"ANIM", 6, 0, 0)
    frame = bytes(6) + (DUE - 1).to_bytes(3, "little") * 2 + bytes(4) + still
    body = b"WEBP" + head + anim + struct.pack("<4sI", b"ANMF", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def h264(crop: bool) -> bytes:
    params = "mbtree=0" + (f":crop-rect=0,0,{SIDE - DUE},{SIDE - DUE}" if crop else "")
    return encode_frames(frames(SIDE), "libx264", {"preset": "ultrafast", "x264-params": params})


VIDEO = {
    "h264": lambda: ("h264", h264(crop=False)),
    "h264, cut off for showing": lambda: ("h264", h264(crop=True)),
    "hevc": lambda: ("hevc", encode_frames(frames(SIDE), "libx265", H265)),
    "av1": lambda: ("obu", encode_frames(frames(SIDE), "libsvtav1", AV1)),
}
PICTURES = {
    "jpeg": lambda: picture(SIDE, "JPEG"),
    "progressive jpeg": lambda: picture(SIDE, "JPEG", progressive=True),
    "png": lambda: picture(SIDE, "PNG"),
    "webp": lambda: picture(SIDE, "WEBP"),
    "webp canvas": lying_webp,
    "avif": lambda: picture(SIDE, "AVIF", speed=10),
    "lying avif": lambda: lying_avif(SIDE, DUE),
    "jpeg2000": lambda: picture(SIDE, "JPEG2000", no_jp2=True),
    "jpeg2000 of tiles": lambda: picture(DUE, "JPEG2000", no_jp2=True, tile_size=(4, 4)),
    "jpeg2000 of precincts": lambda: picture(
        DUE, "JPEG2000", no_jp2=True, precinct_size=(32, 32), codeblock_size=(16, 16)
    ),
    "jpegxl": lambda: encode_picture(frames(2048)[0], "jpegxl", 90),
}
MEASURE = """
import json, resource, sys
from semcodec.coding.pictures import decode_picture
from semcodec.coding.videos import decode_frames
from semcodec.errors import CorruptStream, DataError
kind, due, good, bad = sys.argv[1:]
due = int(due)
def decode(path):
    data = open(path, "rb").read()
    if kind.startswith("video"):
        return decode_frames(data, kind.split()[1], "a video", 1, due, due)
    return decode_picture(data, due * due, (kind,))
decode(good)  # so that libraries are loaded
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode(bad)
    said = None
except (CorruptStream, DataError) as error:
    said = str(error)
print(json.dumps([(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, said]))
"""


def refused(tmp_path, kind: str, good: bytes, bad: bytes) -> None:
    for name, data in (("good", good), ("bad", bad)):
        (tmp_path / name).write_bytes(data)
    arguments = [kind, str(DUE), str(tmp_path / "good"), str(tmp_path / "bad")]
    done = subprocess.run([sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True)
    megabytes, said = json.loads(done.stdout)
    assert said and "\n" not in said
    assert megabytes < MEGABYTES


@pytest.mark.parametrize("name", PICTURES)
def test_a_large_picture_is_refused_before_memory(tmp_path, name):
    kind = next(form for form in ("jpeg2000", "jpegxl", "jpeg", "png", "webp", "avif") if form in name)
    if kind == "jpegxl" and find_spec("pillow_jxl") is None:
        pytest.skip("pip install 'semcodec[jpegxl]'")
    refused(tmp_path, kind, encode_picture(frames(DUE)[0], kind, 50), PICTURES[name]())


@pytest.mark.parametrize("name", VIDEO)
def test_so_is_large_video(tmp_path, name):
    form, bad = VIDEO[name]()
    encoder, options = {"h264": ("libx264", {}), "hevc": ("libx265", H265), "obu": ("libsvtav1", AV1)}[form]
    refused(tmp_path, f"video {form}", encode_frames(frames(DUE), encoder, options), bad)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (34, 66), (224, 320), (66, 130)])
def test_heads_say_what_is_coded(height, width):
    clip = np.full((2, height, width, 3), 90, np.uint8)
    up = [-(-side // 16) * 16 for side in (width, height)]
    assert coded_sizes(encode_h264(clip, 30), "h264") == [tuple(up)]
    [(wide, high)] = coded_sizes(encode_frames(clip, "libx265", H265), "hevc")
    assert 0 <= wide - width < 16 and 0 <= high - height < 16
    assert list(av1_sizes(encode_frames(clip, "libsvtav1", AV1), exact=True)) == [(width, height)]
    out = {form: io.BytesIO() for form in ("AVIF", "WEBP", "JPEG2000")}
    for form, file in out.items():
        Image.fromarray(clip[0]).save(file, form, **({"no_jp2": True} if form == "JPEG2000" else {}))
    assert avif_sizes(out["AVIF"].getvalue(), exact=True) == [(width, height)]
    assert webp_size(out["WEBP"].getvalue()) == jpeg2000_size(out["JPEG2000"].getvalue()) == (width, height)


@pytest.mark.parametrize("present", [0, 1])
@pytest.mark.parametrize("constraints", [0, 1])
def test_the_head_of_vvc(present, constraints):
    """Written here after ITU-T H.266, 7.3.2.4: no library at hand codes it."""
    layers = 2
    bits = f"0{0:07b}{15:05b}001" + f"{0:04b}{0:04b}{layers:03b}0110{present}"
    if present:
        bits += f"{1:07b}0{51:08b}10{constraints}" + (("0" * 71 + f"{3:08b}101") if constraints else "")
        bits += "0" * (-len(bits) % 8) + "10"
        bits += "0" * (-len(bits) % 8) + f"{48:08b}" + f"{1:08b}" + "1" * 32
    bits += "011"
    for side in (416, 240):
        code = f"{side + 1:b}"
        bits += "0" * (len(code) - 1) + code
    bits += "1" + "0" * (-(len(bits) + 1) % 8)
    unit = int(bits, 2).to_bytes(len(bits) // 8, "big")
    assert coded_sizes(b"\0\0\0\1" + unit, "vvc") == [(416, 240)]


@pytest.mark.parametrize("form", ["h264", "hevc", "obu", "avif", "webp", "jpeg2000"])
def test_damaged_heads_are_one_error(form):
    rng, messages = np.random.default_rng(0), []
    encoder, options = {"h264": ("libx264", {}), "hevc": ("libx265", H265), "obu": ("libsvtav1", AV1)}.get(
        form, ("", {})
    )
    good = encode_frames(frames(DUE), encoder, options) if encoder else encode_picture(frames(DUE)[0], form, 50)
    for _ in range(150):
        bad = bytearray(good[: rng.integers(1, len(good))] if rng.random() < 0.3 else good)
        for at in rng.integers(0, min(len(bad), 300), rng.integers(1, 5)):
            bad[at] = rng.integers(256)
        try:
            if encoder:
                decode_frames(bytes(bad), form, "a video", 1, DUE, DUE)
            else:
                decode_picture(bytes(bad), DUE * DUE, (form,))
        except (DataError, CorruptStream) as error:
            messages.append(str(error))
    assert messages and not any("\n" in message for message in messages)


FILE = """
import json, resource, sys
from semcodec.data import frames
from semcodec.data.video import read_clip
from semcodec.errors import DataError
from semcodec.specs import InputRequest
good, bad = sys.argv[1:]
frames.MOST_PIXELS = 1 << 20
read_clip(good, InputRequest(1, 32, 32))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    said = read_clip(bad, InputRequest(1, 32, 32)) and None
except DataError as error:
    said = str(error)
print(json.dumps([(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, said]))
"""


@pytest.mark.parametrize("container", ["mp4", "ts", "mkv"])
def test_a_video_file_that_cuts_off_what_is_coded_is_refused_before_memory(tmp_path, container):
    """A player shows 64x64 pixels of it."""
    good, bad = tmp_path / f"good.{container}", tmp_path / f"bad.{container}"
    for path, data in ((good, encode_h264(frames(DUE), 30)), (bad, h264(crop=True))):
        with av.open(io.BytesIO(data), format="h264") as source, av.open(path, "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream, packet.pts, packet.dts = stream, 0, 0
                    target.mux(packet)
    done = subprocess.run([sys.executable, "-c", FILE, good, bad], capture_output=True, text=True, check=True)
    megabytes, said = json.loads(done.stdout)
    assert f"has frames of {SIDE}x{SIDE}, more than" in said and "\n" not in said
    assert megabytes < MEGABYTES


def test_a_file_that_is_coded_larger_than_it_says_is_refused(tmp_path):
    (tmp_path / "a.avif").write_bytes(lying_avif(1024, 96))
    with pytest.raises(DataError, match="is coded as 1024x1024 where it says 96x96"):
        read_image(tmp_path / "a.avif", InputRequest(None, 32, 32))
