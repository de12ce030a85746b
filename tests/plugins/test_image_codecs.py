"""Image and video codecs as encoders, and tensor8: round trips, bounds, refusals."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tape import Tape

from semcodec.bench.matrix import Choice, enumerate_all
from semcodec.cli import main
from semcodec.coding import videos
from semcodec.coding.pictures import decode_picture, encode_picture
from semcodec.coding.video_params import LEAST
from semcodec.composition.registry import Registry, missing
from semcodec.errors import CorruptStream, PluginError, UsageError
from semcodec.interfaces import Analysis
from semcodec.pipeline.weights import WeightsRequest
from semcodec.specs import SpecMismatch, TensorSpec
from semcodec_plugins import image_codecs
from semcodec_plugins.image_codecs import external, pictures_encoder, roi, spec
from semcodec_plugins.image_codecs.pictures_encoder import Bpg, spaced
from semcodec_plugins.image_codecs.roi import RoiJpeg
from semcodec_plugins.image_codecs.tensor8 import Tensor8
from semcodec_plugins.image_codecs.video_encoder import H264, H265, Av1, Vvc

RECORDS = {record.name: record for record in image_codecs.semcodec_components()}
PICTURES = tuple(n for n in ("jpeg", "webp", "avif", "png", "jpeg2000", "jpegxl") if not missing(RECORDS[n]))
VIDEO = {"h264": (H264, "h264"), "h265": (H265, "hevc"), "av1": (Av1, "obu")}


def build(name, features):
    return getattr(pictures_encoder, RECORDS[name].target.split(":")[1])(features)


def defaults(name, **params):
    return {p.name: p.default for p in RECORDS[name].params} | params


def carry(encoder, features, params=None):
    """Each sample through encode, write, read and restore; also the tapes."""
    params = params or {}
    restored, tapes = [], []
    for latent in encoder.encode(features, Analysis(features), {}, params):
        tape = Tape(params)
        encoder.write(latent, tape)
        restored.append(encoder.restore(encoder.read(tape.rewind())).features)
        tapes.append(tape)
    return restored, tapes


def smooth_pixels(*shape):
    y, x = torch.meshgrid(torch.arange(shape[-2]) / 16, torch.arange(shape[-1]) / 16, indexing="ij")
    return (0.5 + 0.2 * torch.sin(y) + 0.2 * torch.cos(x)).expand(shape).contiguous()


def test_records():
    others = ("jpegxl", "bpg", *VIDEO, "vvc", "roi-jpeg", "tensor8", "full-offload", "local")
    assert set(RECORDS) == {*PICTURES, *others}
    for name in PICTURES:
        record = RECORDS[name]
        assert record.traits["entropy"] == "none"
        assert (record.positional is None) == (name == "png")
    assert RECORDS["tensor8"].traits["entropy"] == "required"


def test_listing_and_specs_import_nothing_heavy():
    code = (
        "import sys; from semcodec_plugins import image_codecs; import semcodec_plugins.image_codecs.spec; "
        "list(image_codecs.semcodec_components()); sys.exit(bool({'torch', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", PICTURES)
def test_images(name):
    features = {"image": TensorSpec((3, 33, 20))}
    params = defaults(name)
    image = smooth_pixels(2, 3, 33, 20)
    restored, tapes = carry(build(name, features), {"image": image}, params)
    assert len(restored) == 2
    for got, original, tape in zip(restored, image, tapes, strict=True):
        assert {n: (tuple(t.shape), t.dtype) for n, t in got.items()} == {"image": ((1, 3, 33, 20), torch.float32)}
        assert (got["image"][0] - original).abs().mean() < (0.5 / 255 if name == "png" else 0.04)
        assert [chunk[0] for chunk in tape.chunks] == ["picture"]
    assert spec.picture(features, params).restored == features


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 7, 33), (1, 3, 5, 9), (3, 3, 1, 1)])
def test_pictures_decode_as_pillow_does(name, shape):
    """Images, and clips of one frame or of one pixel a frame, stacked."""
    key = "image" if len(shape) == 3 else "frames"
    encoder = build(name, {key: TensorSpec(shape)})
    pixels = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))
    (got,), (tape,) = carry(encoder, {key: pixels}, defaults(name))
    data = tape.chunks[0][1]
    assert tape.bytes == len(data)
    with Image.open(io.BytesIO(data)) as picture:
        rows = torch.from_numpy(np.array(picture.convert("RGB"))).view(-1, *shape[-2:], 3)
    assert torch.equal(got[key].view(-1, *shape[-3:]), rows.movedim(-1, 1) / 255)
    assert (name != "png") or torch.equal(got[key], (255 * pixels).round() / 255)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("frames", [0, 1, 3, 8])
def test_clips_send_uniformly_spaced_frames(name, frames):
    features = {"frames": TensorSpec((8, 3, 16, 24)), "index": TensorSpec((8,), "int64")}
    params = defaults(name, frames=frames)
    level = torch.arange(8).float().view(1, 8, 1, 1, 1) / 10
    clip = {"frames": level.expand(1, 8, 3, 16, 24), "index": torch.arange(8)[None]}
    (got,), _ = carry(build(name, features), clip, params)
    count = frames or 8
    due = spec.picture(features, params).restored
    assert due["frames"].shape == (count, 3, 16, 24)
    assert due["index"].shape == (count,)
    assert tuple(got["frames"].shape) == (1, count, 3, 16, 24)
    assert got["index"].dtype == torch.int64
    index = got["index"][0]
    assert index.tolist() == {0: list(range(8)), 1: [4], 3: [1, 4, 6], 8: list(range(8))}[frames]
    torch.testing.assert_close(got["frames"][0].mean((1, 2, 3)), index / 10, atol=0.02, rtol=0)


@pytest.mark.parametrize("side", [9, 16, 32, 96])
def test_jpeg2000_keeps_its_psnr_where_there_is_little_to_code(side):
    encoder = build("jpeg2000", {"image": TensorSpec((3, side, side))})
    stripes = torch.tensor([[0.8, 0.1, 0.2], [0.1, 0.6, 0.9]])[torch.arange(side) * 3 // side % 2].T
    for image in (
        torch.tensor([0.8, 0.1, 0.2]).view(1, 3, 1, 1).expand(1, 3, side, side),
        smooth_pixels(1, 3, side, side),
        stripes[None, :, None].expand(1, 3, side, side),
    ):
        for psnr in (20, 28, 36, 44):
            (got,), _ = carry(encoder, {"image": image}, {"psnr": psnr})
            error = ((255 * got["image"]).round() - (255 * image).round()).square().mean()
            assert 10 * torch.log10(255**2 / error.clamp_min(1e-9)) >= psnr - 3.01


def test_jpeg2000_transforms_colours():
    """What red, green and blue have in common is coded once."""
    noise = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    encoder = build("jpeg2000", {"image": TensorSpec((3, 64, 64))})
    alike, apart = (
        carry(encoder, {"image": image}, {"psnr": 36})[1][0].bytes for image in (noise[:, :1].expand_as(noise), noise)
    )
    assert alike < 0.5 * apart


def test_spaced_positions_are_increasing_and_distinct():
    for total in (1, 2, 7, 16):
        for count in range(1, total + 1):
            index = spaced(total, count)
            assert len(set(index.tolist())) == count
            assert 0 <= index[0] <= index[-1] < total
    for total, count in ((4, 5), (4, -1)):
        with pytest.raises(UsageError, match="ask for 1 to 4"):
            spaced(total, count)


def test_quality_and_frames_buy_bytes():
    features = {"frames": TensorSpec((4, 3, 64, 64))}
    rng = torch.Generator().manual_seed(0)
    clip = {"frames": torch.rand((1, 4, 3, 64, 64), generator=rng)}
    for name in set(PICTURES) - {"png", "jpeg2000"}:
        encoder = build(name, features)

        def cost(encoder=encoder, **params):
            return carry(encoder, clip, params)[1][0].bytes

        assert cost(quality=20, frames=0) < cost(quality=90, frames=0)
        assert cost(quality=60, frames=1) < 0.5 * cost(quality=60, frames=0)


@pytest.mark.parametrize(
    ("features", "frames", "reason"),
    [
        ({"x": TensorSpec((64, 8, 8))}, 0, "tensor8 with any cut"),
        ({"image": TensorSpec((1, 8, 8))}, 0, "takes RGB"),
        ({"image": TensorSpec((3, 8, 8))}, 2, "is for clips"),
        ({"frames": TensorSpec((4, 3, 8, 8))}, 5, "more than the clip's 4"),
        ({"frames": TensorSpec((None, 3, 8, 8))}, 0, "known size"),
    ],
)
def test_the_spec_refuses(features, frames, reason):
    with pytest.raises(SpecMismatch, match=reason):
        spec.picture(features, {"frames": frames, "quality": 50})


def test_what_pictures_cannot_send_is_refused():
    encoder = build("jpeg", {"frames": TensorSpec((2, 3, 8, 8))})
    params = defaults("jpeg")
    clip = torch.zeros(1, 2, 3, 8, 8)
    with pytest.raises(UsageError, match="NaN"):
        carry(encoder, {"frames": clip + float("nan")}, params)
    with pytest.raises(UsageError, match="whole clips"):
        carry(encoder, {"frames": clip, "index": torch.tensor([[0, 2]])}, params)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_another_size_or_damaged_is_corrupt(name):
    params = defaults(name)
    encoder = build(name, {"image": TensorSpec((3, 16, 16))})
    for shape in ((3, 15, 16), (3, 16, 8), (3, 64, 64)):
        other = build(name, {"image": TensorSpec(shape)})
        _, (tape,) = carry(other, {"image": smooth_pixels(1, *shape)}, params)
        with pytest.raises(CorruptStream):
            encoder.restore(encoder.read(tape.rewind()))
    _, (tape,) = carry(encoder, {"image": smooth_pixels(1, 3, 16, 16)}, params)
    good = tape.chunks[0][1]
    for bad in (b"", good[: len(good) // 2], b"\0" * len(good), bytes(10**6)):
        tape.chunks[0][1] = bad
        with pytest.raises(CorruptStream):
            encoder.restore(encoder.read(tape.rewind()))


def test_h264_sends_a_clip():
    features = {"frames": TensorSpec((8, 3, 32, 48)), "index": TensorSpec((8,), "int64")}
    clip = {"frames": smooth_pixels(2, 8, 3, 32, 48), "index": torch.arange(8).expand(2, -1)}
    sizes = []
    for crf in (10, 40):
        restored, tapes = carry(H264(features), clip, {"crf": crf, "frames": 4})
        for got in restored:
            assert tuple(got["frames"].shape) == (1, 4, 3, 32, 48)
            assert got["index"].tolist() == [[1, 3, 5, 7]]
            assert (got["frames"][0] - clip["frames"][0, ::2]).abs().mean() < 0.03
        sizes.append(tapes[0].bytes)
    assert sizes[0] > sizes[1]
    assert spec.video(features, {"crf": 10, "frames": 4}).restored["frames"].shape == (4, 3, 32, 48)


def decoded(data, form):
    """What the library makes of the bytes, asked as its own users would."""
    with av.open(io.BytesIO(data), mode="r", format=form) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("name", VIDEO)
@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 2, 2), (6, 34, 66)])
def test_video_decodes_as_its_library_does_and_repeats(name, shape):
    count, height, width = shape
    make, form = VIDEO[name]
    if min(height, width) < LEAST and name != "h264":
        with pytest.raises(SpecMismatch, match=f"at least {LEAST} pixels a side"):
            spec.large_video({"frames": TensorSpec((count, 3, height, width))}, {"frames": 0})
        return
    encoder = make({"frames": TensorSpec((count, 3, height, width))})
    move = torch.linspace(0, 0.3, count).view(1, count, 1, 1, 1)
    clip = {"frames": (smooth_pixels(1, count, 3, height, width) + move).clamp(0, 1)}
    params = defaults(name, frames=0)
    (got,), (tape,) = carry(encoder, clip, params)
    data = tape.chunks[0][1]
    assert tape.bytes == len(data)
    expected = torch.from_numpy(decoded(data, form)).movedim(-1, 1) / 255
    assert torch.equal(got["frames"][0], expected)
    assert (got["frames"] - clip["frames"]).abs().mean() < 0.04
    for _ in range(3):
        assert carry(encoder, clip, params)[1][0].chunks[0][1] == data


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="scheduling policies are Linux's")
@pytest.mark.parametrize("name", VIDEO)
def test_no_thread_of_a_video_encoder_runs_at_real_time_priority(name, monkeypatch):
    """SVT-AV1 asks for it where root runs it."""
    planar, found = videos.planar, set()

    def watched(pixels):
        found.update(os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task"))
        return planar(pixels)

    monkeypatch.setattr(videos, "planar", watched)
    shape = (4, 3, 32, 48)
    VIDEO[name][0]({"frames": TensorSpec(shape)}).compress(np.zeros((4, 32, 48, 3), np.uint8), 30, {})
    assert found | {os.sched_getscheduler(0)} == {os.SCHED_OTHER}


@pytest.mark.parametrize("name", ["h265", "av1"])
def test_other_video_costs_less_at_a_higher_crf_and_refuses_what_it_cannot_send(name):
    make, _ = VIDEO[name]
    shape = (4, 3, 32, 48)
    encoder = make({"frames": TensorSpec(shape)})
    noise = {"frames": torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))}
    small, large = (carry(encoder, noise, {"crf": crf, "frames": 0})[1][0] for crf in (50, 20))
    assert small.bytes < 0.5 * large.bytes
    for sides in ((33, 48), (30, 48), (None, 48)):
        with pytest.raises(SpecMismatch):
            spec.large_video({"frames": TensorSpec((4, 3, *sides))}, {"frames": 0})
    good = large.chunks[0][1]
    for bad in (b"", good[: len(good) // 2], b"\0" * len(good)):
        large.chunks[0][1] = bad
        with pytest.raises(CorruptStream):
            encoder.restore(encoder.read(large.rewind()))


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """Puts a program on PATH whose Python code is given ``arguments``."""

    def put(name, code):
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\nimport sys\narguments = sys.argv[1:]\n{code}")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return put


ENC = """
assert arguments[0] == "-q" and arguments[2] == "-o" and len(arguments) == 5, arguments
data = open(arguments[4], "rb").read()
sides = [int.from_bytes(data[at:at + 4], "big") for at in (16, 20)]
head = b"".join(bytes([side >> 7 | 128, side & 127]) for side in sides)
open(arguments[3], "wb").write(b"BPG" + bytes([251, int(arguments[1]), 0]) + head + data)
"""
DEC = """
assert arguments[0] == "-o" and len(arguments) == 3, arguments
data = open(arguments[2], "rb").read()[10:]
if data[1:4] != b"PNG":
    sys.exit("a message of its own\\nno PNG inside")
open(arguments[1], "wb").write(data)
"""


def test_bpg_is_called_as_it_wants(pretend):
    pretend("bpgenc", ENC)
    pretend("bpgdec", DEC)
    assert not missing(RECORDS["bpg"])
    encoder = Bpg({"image": TensorSpec((3, 9, 14))})
    image = (torch.arange(3 * 9 * 14).view(1, 3, 9, 14) % 256) / 255
    (got,), (tape,) = carry(encoder, {"image": image}, {"qp": 17, "frames": 0})
    assert torch.equal(got["image"], image)
    good = tape.chunks[0][1]
    assert good[4] == 17
    assert external.bpg_size(good) == (14, 9)
    for bad, says in ((b"", "not a BPG"), (good[:7], "cut short"), (good[:10] + b"nothing", "no PNG inside")):
        tape.chunks[0][1] = bad
        with pytest.raises(CorruptStream, match=says):
            encoder.restore(encoder.read(tape.rewind()))
    with pytest.raises(CorruptStream, match="14x9 where at most 125"):
        external.decode_bpg(good, 125)


def test_vvc_is_called_as_it_wants(pretend):
    pretend(
        "vvencapp",
        """
given = dict(zip(arguments[::2], arguments[1::2]))
assert given["--size"] == "48x32" and given["--format"] == "yuv420" and given["--qp"] == "40", arguments
data = open(given["--input"], "rb").read()
assert len(data) == 48 * 32 * 3 // 2 * int(given["--frames"]), len(data)
open(given["--output"], "wb").write(b"a stream of " + given["--frames"].encode())
""",
    )
    encoder = Vvc({"frames": TensorSpec((3, 3, 32, 48))})
    features = {"frames": smooth_pixels(1, 3, 3, 32, 48)}
    [latent] = encoder.encode(features, Analysis(features), {}, {"qp": 40, "frames": 0})
    assert latent.side["video"] == b"a stream of 3"
    with pytest.raises(CorruptStream, match="vvc stream"):
        encoder.restore(latent)


def test_a_program_that_fails_says_so_in_one_line(pretend):
    pretend("bpgenc", "print('usage')\nsys.exit('cannot write\\nno space left')")
    with pytest.raises(PluginError, match=r"bpgenc fails with 1: no space left$"):
        external.encode_bpg(np.zeros((4, 4, 3), np.uint8), 30)


def test_a_missing_program_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, program in (("bpg", "bpgenc and bpgdec"), ("vvc", "vvencapp")):
        assert missing(RECORDS[name]) == f"install {program} so that it is on PATH"
        with pytest.raises(PluginError, match=f"install {program}"):
            Registry.of([RECORDS[name]]).load(RECORDS[name])
    with pytest.raises(PluginError, match=r"^bpgenc is not on PATH: install it from https://\S+$"):
        external.encode_bpg(np.zeros((4, 4, 3), np.uint8), 30)


@pytest.mark.parametrize(
    ("name", "data", "backbone", "programs"),
    [
        ("bpg", "digits-scenes", "resnet-nano", ("bpgenc", "bpgdec")),
        ("vvc", "digits-motion", "vit-nano", ("vvencapp",)),
    ],
)
def test_commands_name_a_missing_program(name, data, backbone, programs, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    needed = [*(["av"] if data == "digits-motion" else []), *programs]
    line = f"{name} needs {', '.join(needed)}: install {' and '.join(programs)} so that it is on PATH"
    spec = f"{name}+{backbone}"
    picture = tmp_path / "one.gif"  # an image and a clip
    Image.new("RGB", (1, 1)).save(picture)
    for arguments in (
        ("encode", spec, str(picture), "-o", str(tmp_path / "x.sem")),
        ("eval", spec, "--data", data, "--limit", "1"),
        ("plugins", "check", name),
    ):
        done = CliRunner().invoke(main, arguments)
        assert (done.exit_code, done.stderr.strip()) == (1, f"error: {line}"), arguments
    found = enumerate_all(data, "test", Choice(encoder=(name,), backbone=(backbone,)), {}, WeightsRequest(offline=True))
    assert [(skip.spec, skip.reason) for skip in found.skips] == [(spec, line)]
    assert not (tmp_path / "x.sem").exists()


@pytest.mark.skipif(shutil.which("bpgenc") is None or shutil.which("bpgdec") is None, reason="libbpg is not installed")
def test_bpg_itself():
    rgb = (smooth_pixels(3, 33, 20).permute(1, 2, 0) * 255).byte().numpy()
    data = external.encode_bpg(rgb, 20)
    assert external.bpg_size(data) == (20, 33)
    assert np.abs(external.decode_bpg(data, 660).astype(int) - rgb).mean() < 5


@pytest.mark.skipif(shutil.which("vvencapp") is None, reason="vvencapp is not installed")
def test_vvc_itself():
    features = {"frames": TensorSpec((4, 3, 64, 64))}
    clip = {"frames": smooth_pixels(1, 4, 3, 64, 64)}
    (got,), (tape,) = carry(Vvc(features), clip, {"qp": 30, "frames": 0})
    assert torch.equal(got["frames"][0], torch.from_numpy(decoded(tape.chunks[0][1], "vvc")).movedim(-1, 1) / 255)
    assert (got["frames"] - clip["frames"]).abs().mean() < 0.04


def textured(height, width, top, left, side):
    """A flat image with one square of noise."""
    image = torch.full((1, 3, height, width), 0.5)
    noise = torch.rand((1, 3, side, side), generator=torch.Generator().manual_seed(0))
    image[:, :, top : top + side, left : left + side] = noise
    return image


@pytest.mark.parametrize("saliency", ["spectral", "gradient"])
def test_saliency_finds_what_stands_out(saliency):
    encoder = RoiJpeg({"image": TensorSpec((3, 96, 150))}, saliency=saliency)
    assert encoder.units == {"keep": 6 * 10}
    scores = encoder.analyse({"image": textured(96, 150, 32, 64, 32)}).scores["keep"]
    assert scores.shape == (1, 60)
    best = set(scores[0].topk(4).indices.tolist())
    assert best == {2 * 10 + 4, 2 * 10 + 5, 3 * 10 + 4, 3 * 10 + 5}


def test_roi_jpeg_is_one_jpeg_that_is_good_where_it_matters():
    encoder = RoiJpeg({"image": TensorSpec((3, 90, 150))}, saliency="spectral")
    y, x = torch.meshgrid(torch.arange(90.0), torch.arange(150.0), indexing="ij")
    image = (0.5 + 0.3 * torch.sin(x * y / 70) + 0.1 * torch.sin(3 * x)).expand(1, 3, 90, 150).clamp(0, 1).contiguous()
    keep = torch.zeros(1, 60, dtype=torch.bool)
    keep[0, 23:27] = True
    params = {"keep": 4, "quality": 80, "low": 4}

    def send(masks):
        analysis = encoder.analyse({"image": image})
        [latent] = encoder.encode({"image": image}, analysis, masks, params)
        tape = Tape(params)
        encoder.write(latent, tape)
        return encoder.restore(encoder.read(tape.rewind())).features["image"], tape.chunks[0][1]

    whole, data = send({})
    mixed, less = send({"keep": keep})
    rgb = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert data == encode_picture(rgb, "jpeg", 80)
    assert len(less) < 0.8 * len(data)
    assert torch.equal(mixed[0], torch.from_numpy(decode_picture(less, 90 * 150, ("jpeg",))).movedim(-1, 0) / 255)
    kept = (mixed - image).abs()[:, :, 36:44, 52:108].mean()
    assert kept < 1.2 * (whole - image).abs()[:, :, 36:44, 52:108].mean() + 0.01
    assert (mixed - image).abs()[:, :, 64:].mean() > 2 * kept


@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (5, 3)])
@pytest.mark.parametrize("saliency", roi.SALIENCY)
def test_roi_jpeg_takes_the_smallest_images(shape, saliency):
    encoder = RoiJpeg({"image": TensorSpec((3, *shape))}, saliency=saliency)
    features = {"image": torch.rand((2, 3, *shape), generator=torch.Generator().manual_seed(1))}
    analysis = encoder.analyse(features)
    assert torch.isfinite(analysis.scores["keep"]).all()
    masks = {"keep": torch.zeros_like(analysis.scores["keep"], dtype=torch.bool)}
    for latent in encoder.encode(features, analysis, masks, {"quality": 50, "low": 5}):
        assert encoder.restore(latent).features["image"].shape == (1, 3, *shape)
    with pytest.raises(SpecMismatch, match="known size"):
        spec.regions({"image": TensorSpec((3, None, 4))}, {})


def test_h264_refuses_images_odd_sides_and_damage():
    for features in ({"image": TensorSpec((3, 8, 8))}, {"frames": TensorSpec((4, 3, 9, 8))}):
        with pytest.raises(SpecMismatch):
            spec.video(features, {"crf": 30, "frames": 0})
    encoder = H264({"frames": TensorSpec((4, 3, 16, 16))})
    with pytest.raises(UsageError, match="NaN"):
        carry(encoder, {"frames": torch.full((1, 4, 3, 16, 16), float("nan"))}, {"crf": 30, "frames": 0})
    _, (tape,) = carry(encoder, {"frames": smooth_pixels(1, 4, 3, 16, 16)}, {"crf": 30, "frames": 0})
    good = tape.chunks[0][1]
    for bad in (b"", good[: len(good) // 2], b"\0" * len(good)):
        tape.chunks[0][1] = bad
        with pytest.raises(CorruptStream):
            encoder.restore(encoder.read(tape.rewind()))


@given(
    shape=st.lists(st.integers(0, 6), min_size=0, max_size=3),
    scale=st.sampled_from([0.0, 1e-30, 1.0, 1e38]),
    dtype=st.sampled_from(["float32", "float16"]),
    opened=st.booleans(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_tensor8_is_within_half_a_step(shape, scale, dtype, opened, seed):
    scale = min(scale, 1e4) if dtype == "float16" else scale
    values = scale * torch.randn((2, *shape), generator=torch.Generator().manual_seed(seed)).clamp(-3, 3)
    values = values.to(getattr(torch, dtype))
    encoder = Tensor8({"x": TensorSpec((None,) * len(shape) if opened else tuple(shape), dtype)})
    restored, tapes = carry(encoder, {"x": values})
    for got, original, tape in zip(restored, values, tapes, strict=True):
        assert got["x"].dtype == original.dtype
        assert got["x"].shape[1:] == original.shape
        side = sum(chunk[3] for chunk in tape.chunks if chunk[2])
        assert side == 8 + (4 * len(shape) if opened else 0)
        if original.numel():
            span = original.double().max() - original.double().min()
            ulp = torch.finfo(original.dtype).eps * original.double().abs().max()
            tiny = torch.finfo(original.dtype).tiny
            assert (got["x"][0].double() - original.double()).abs().max() <= span / 510 + ulp + tiny


def test_tensor8_sends_what_is_not_float_without_loss():
    features = {
        "wide": torch.tensor([[-(2**63), 2**63 - 1, 0, -1, 2**40]]),
        "index": torch.tensor([[3, 1, 2]]),
        "mask": torch.tensor([[[True, False], [False, True]]]),
        "bytes": torch.tensor([[0, 255]], dtype=torch.uint8),
        "words": torch.tensor([[-(2**31), 2**31 - 1]], dtype=torch.int32),
    }
    specs = {name: TensorSpec(tuple(t.shape[1:]), str(t.dtype).removeprefix("torch.")) for name, t in features.items()}
    (got,), (tape,) = carry(Tensor8(specs), features)
    for name, tensor in features.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor)
    assert all(not chunk[2] for chunk in tape.chunks)


def test_tensor8_refuses_nan_and_infinity():
    encoder = Tensor8({"x": TensorSpec((2,))})
    for wrong in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(UsageError, match="'x' holds NaN or infinity"):
            carry(encoder, {"x": torch.tensor([[0.0, wrong]])})


def test_tensor8_refuses_damage():
    encoder = Tensor8({"x": TensorSpec((None, 3)), "b": TensorSpec((2,), "bool")})
    _, (tape,) = carry(encoder, {"x": torch.rand(1, 4, 3), "b": torch.tensor([[True, False]])})
    ranges, x, b = (chunk[1] for chunk in tape.chunks)
    nan, huge = np.float32("nan").tobytes(), np.uint32(2**32 - 1).tobytes()
    for at, bad in (
        (0, b""),
        (0, ranges + b"\0"),
        (0, huge + ranges[4:]),
        (0, ranges[:4] + nan + ranges[8:]),
        (0, ranges[:4] + ranges[8:12] + ranges[4:8]),
        (1, x[:-1]),
        (1, x + 256),
        (1, x - 256),
        (2, b + 1),
    ):
        kept = tape.chunks[at][1]
        tape.chunks[at][1] = bad
        with pytest.raises(CorruptStream):
            encoder.restore(encoder.read(tape.rewind()))
        tape.chunks[at][1] = kept
