"""Features as video: tiles, ranges, every kind of cut, prediction over time, what is refused, and a fitted basis."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from feature_jobs import images, job_of
from tape import Tape

import semcodec
from semcodec.composition.composition import compose_spec
from semcodec.errors import CorruptStream, SpecError, UsageError
from semcodec.interfaces import Analysis
from semcodec.specs import TensorSpec
from semcodec.training.loop import fit
from semcodec_plugins.feature_video.coding import CODES
from semcodec_plugins.feature_video.encoder import FeatureVideo, FeatureVideoPCA
from semcodec_plugins.feature_video.packing import lay_out
from semcodec_plugins.feature_video.recipe import recipe

pytestmark = pytest.mark.usefixtures("one_thread")

MAPS = {"maps": TensorSpec((10, 12, 9))}
PYRAMID = {"fine": TensorSpec((12, 8, 10)), "coarse": TensorSpec((20, 4, 5)), "odd": TensorSpec((3, 3, 1))}
TOKENS = {"tokens": TensorSpec((35, 12), grid=(5, 7)), "prefix": TensorSpec((2, 12))}
MOMENTS = {"tokens": TensorSpec((72, 16), grid=(6, 4, 3))}
CLIP = {"frames": TensorSpec((5, 3, 18, 26)), "index": TensorSpec((5,), "int64")}
CUTS = {"maps": MAPS, "pyramid": PYRAMID, "tokens": TOKENS, "moments": MOMENTS, "clip": CLIP}
CALL = {"qp": 32, "codec": "h265", "bits": 10, "ranges": "tensor"}
EXACT = {"qp": 0, "codec": "h264", "bits": 8}
"""x264 at its finest quantiser of 8 bits loses nothing."""


def smooth(spec, count=1, seed=0):
    rng = np.random.default_rng(seed)
    found = {}
    for name, tensor in spec.items():
        if tensor.dtype == "int64":
            found[name] = torch.arange(tensor.shape[0]).expand(count, -1)
            continue
        axes = np.indices((count, *tensor.shape))
        values = sum(np.cos(axis / (5 + k) + k) for k, axis in enumerate(axes)) + rng.normal(0, 0.05, axes[0].shape)
        found[name] = torch.from_numpy(values.astype(np.float32)) * 3 + 1
    return found


def carry(encoder, features, **call):
    """Each sample through encode, write, read and restore; and what it weighs."""
    params = CALL | call
    restored, tapes = [], []
    for latent in encoder.encode(features, Analysis(features), {}, params):
        tape = Tape(params)
        encoder.write(latent, tape)
        restored.append(encoder.restore(encoder.read(tape.rewind())).features)
        tapes.append(tape)
    return restored, tapes


def size(encoder, features, **call) -> int:
    [_], [tape] = carry(encoder, features, **call)
    return tape.bytes


# -- tiles -----------------------------------------------------------------------------------------------------------


def test_tiles_lie_as_the_anchors_of_mpeg_lay_them():
    """As many tiles a row as a column where there are a square number; row by row; other tensors below."""
    square = lay_out({"maps": (64, 1, 24, 24)})
    assert (square.height, square.width, square.tiles["maps"].columns) == (192, 192, 8)
    pyramid = lay_out({"p2": (64, 1, 16, 16), "p3": (64, 1, 8, 8)})
    assert (pyramid.height, pyramid.width) == (128 + 32, 128)
    assert [(t.columns, t.rows, t.top) for t in pyramid.tiles.values()] == [(8, 8, 0), (16, 4, 128)]
    values = np.arange(6 * 4, dtype=np.uint8).reshape(6, 1, 2, 2)
    [frame] = lay_out({"maps": (6, 1, 2, 2)}).pack({"maps": values})
    assert frame[:2, :4].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]


@pytest.mark.parametrize("shapes", [
    {"a": (1, 1, 1, 1)}, {"a": (7, 1, 3, 5)}, {"a": (97, 4, 2, 3)}, {"a": (3, 1, 1, 40), "b": (11, 1, 9, 2)},
    {"small": (200, 1, 2, 2), "large": (5, 1, 30, 20), "tall": (2, 1, 60, 1)},
])  # fmt: skip
def test_every_value_has_a_place_of_its_own(shapes):
    rng = np.random.default_rng(0)
    layout = lay_out(shapes)
    tensors = {name: rng.integers(0, 1024, shape).astype(np.uint16) for name, shape in shapes.items()}
    frames = layout.pack(tensors)
    assert frames.shape == (layout.count, layout.height, layout.width)
    assert layout.height % 8 == layout.width % 8 == 0 and min(layout.height, layout.width) >= 32
    found = layout.unpack(frames)
    assert all(np.array_equal(found[name], values) for name, values in tensors.items())


# -- every kind of cut -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", CUTS)
def test_what_is_sent_comes_back_to_half_a_step_where_the_codec_loses_nothing(cut):
    spec, features = CUTS[cut], smooth(CUTS[cut], 2)
    for ranges in ("tensor", "channel"):
        restored, _ = carry(FeatureVideo(spec), features, **EXACT, ranges=ranges)
        for row, found in enumerate(restored):
            assert {n: (tuple(t.shape[1:]), str(t.dtype)) for n, t in found.items()} == {
                n: (s.shape, f"torch.{s.dtype}") for n, s in spec.items()
            }
            for name, x in features.items():
                of = features["tokens" if name == "prefix" else name][row].float()
                step = float(of.max() - of.min()) / 255
                assert (found[name][0] - x[row]).abs().max() <= (0.501 * step if x.dtype == torch.float32 else 0)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("codec", ["h264", "h265", "av1"])
@pytest.mark.parametrize("bits", [8, 10])
def test_a_coarser_quantiser_costs_less_and_gives_less(cut, codec, bits):
    spec, features = CUTS[cut], smooth(CUTS[cut])
    name = next(iter(spec))
    sizes, errors = [], []
    for qp in (4, 24, 40, {"av1": 63}.get(codec, 51)):
        [found], [tape] = carry(FeatureVideo(spec), features, codec=codec, bits=bits, qp=qp)
        sizes.append(tape.bytes)
        errors.append(float((found[name] - features[name]).square().mean() / features[name].var()))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors) and errors[0] < 1e-3 and errors[-1] < 2


def test_moments_are_predicted_from_those_before():
    still = {"tokens": smooth({"tokens": TensorSpec((12, 16))})["tokens"].repeat(1, 6, 1)}
    one = FeatureVideo({"tokens": TensorSpec((12, 16), grid=(4, 3))})
    assert size(FeatureVideo(MOMENTS), still, qp=20) < 2 * size(one, {"tokens": still["tokens"][:, :12]}, qp=20)


def test_a_channel_with_a_range_of_its_own_is_not_lost_beside_a_loud_one():
    features = smooth(MAPS)
    features["maps"][:, 1:] *= 0.01
    error = {}
    for ranges in ("tensor", "channel"):
        [found], _ = carry(FeatureVideo(MAPS), features, **EXACT, ranges=ranges)
        error[ranges] = float((found["maps"] - features["maps"])[:, 1:].abs().mean())
    assert error["channel"] < error["tensor"] / 10


def test_constant_features_are_features_too():
    features = {"maps": torch.full((1, 10, 12, 9), 2.5)}
    for ranges in ("tensor", "channel"):
        [found], [tape] = carry(FeatureVideo(MAPS), features, ranges=ranges)
        assert (found["maps"] == 2.5).all() and tape.bytes < 150


def test_parts_of_clips_and_what_is_not_finite_are_refused():
    features = smooth(CLIP)
    with pytest.raises(UsageError, match="whole clips"):
        carry(FeatureVideo(CLIP), {"frames": features["frames"], "index": features["index"].flip(1)})
    for spec, name in ((MAPS, "maps"), (TOKENS, "prefix")):
        features = smooth(spec)
        features[name].view(-1)[3] = float("nan")
        with pytest.raises(UsageError, match=f"'{name}' holds NaN or infinity"):
            carry(FeatureVideo(spec), features)
    features = smooth(TOKENS)
    features["tokens"].mul_(1e-20)
    with pytest.raises(UsageError, match="too large beside"):
        carry(FeatureVideo(TOKENS), features)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("feature-video:52+resnet-nano@stem", "coarsest of h265"),
        ("feature-video:qp=60,codec=h264+resnet-nano@stem", "coarsest of h264"),
        ("feature-video-pca:rank=65+resnet-nano@stem", "more than the 64 channels"),
        ("feature-video:codec=vvc+resnet-nano@stem", "codec"),
        ("feature-video+golden", "golden"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(spec, says):
    with pytest.raises(SpecError, match=says) as caught:
        compose_spec(spec)
    assert "\n" not in caught.value.message


# -- what arrives ------------------------------------------------------------------------------------------------------


def chunks(spec=MAPS, **call):
    features, params = smooth(spec), CALL | call
    encoder = FeatureVideo(spec)
    [latent] = encoder.encode(features, Analysis(features), {}, params)
    tape = Tape(params)
    encoder.write(latent, tape)
    return encoder, tape.rewind(), {chunk[0]: chunk for chunk in tape.chunks}


@pytest.mark.parametrize("codec", ["h264", "h265", "av1"])
def test_a_stream_that_is_not_the_one_due_is_refused(codec):
    encoder, tape, parts = chunks(codec=codec)
    good = parts["video"][1]
    _, _, other = chunks({"maps": TensorSpec((10, 40, 9))}, codec=codec)
    _, _, shallow = chunks(codec=codec, bits=8)
    for bad in (b"", good[: len(good) // 3], b"\0" * 99, other["video"][1], shallow["video"][1]):
        parts["video"][1] = bad
        with pytest.raises(CorruptStream):
            encoder.restore(encoder.read(tape.rewind()))
    parts["video"][1] = good
    assert encoder.restore(encoder.read(tape.rewind())).features["maps"].isfinite().all()


@pytest.mark.parametrize("bad", [(np.nan, 1), (1, 0), (0, np.inf), (1,)])
def test_ranges_that_cannot_be_are_refused(bad):
    encoder, tape, parts = chunks()
    parts["ranges"][1] = np.array(bad, "<f4").tobytes()
    with pytest.raises(CorruptStream, match="range"):
        encoder.read(tape.rewind())


@pytest.mark.parametrize("bad", [(-1, 3), (0, CODES + 1), (9, 8)])
def test_ranges_of_channels_that_cannot_be_are_refused(bad):
    encoder, tape, parts = chunks(ranges="channel")
    codes = parts["channels"][1].reshape(2, -1)
    codes[:, 4] = bad
    with pytest.raises(CorruptStream, match="range"):
        encoder.read(tape.rewind())


def test_packets_are_written_and_read_without_torch():
    code = """
import sys
sys.modules["torch"] = sys.modules["av"] = None
import numpy as np
from semcodec.container.header import StreamHeader
from semcodec.container.packets import read_packets
from semcodec.container.sinks import PacketSink, PacketSource
from semcodec.interfaces import Latent
from semcodec.specs import TensorSpec
from semcodec_plugins.entropy.pack import Pack
from semcodec_plugins.feature_video.coding import FeatureVideoCoding
from io import BytesIO
params = {"qp": 30, "codec": "av1", "bits": 8, "ranges": "channel", "components": 2}
features = {"tokens": TensorSpec((6, 4), grid=(2, 3)), "prefix": TensorSpec((1, 4))}
latent = Latent({"prefix": np.arange(4, dtype=np.int32)[None]}, {
    "params": params, "ranges": {"tokens": np.array([-1, 2], np.float32)}, "video": b"a film",
    "channels": {"tokens": np.array([[0, 1], [9, 255]], np.int32)}})
header, sink = StreamHeader("a spec", {}, {}, {}, params), PacketSink(Pack())
FeatureVideoCoding(features, {}, rank=3).write(latent, sink)
[packet] = read_packets(BytesIO(sink.pack(header, 0, params).data), header)
source = PacketSource(packet, Pack())
read = FeatureVideoCoding(features, {}, rank=3).read(source)
source.finish()
assert read.side["video"] == b"a film" and np.array_equal(read.symbols["prefix"], latent.symbols["prefix"])
for part in ("ranges", "channels"):
    assert np.array_equal(read.side[part]["tokens"], latent.side[part]["tokens"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- a basis -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """On a few images at a cut of several maps."""
    job = job_of("feature-video-pca+det-nano@d4")
    card = fit(recipe(job), job, tmp_path_factory.mktemp("basis"))
    assert [step["step"] for step in card] == ["covariance"]
    return job.modules["encoder"].eval(), job.modules["backbone"]


def test_leading_components_say_most(fitted):
    encoder, backbone = fitted
    assert isinstance(encoder, FeatureVideoPCA)
    with torch.no_grad():
        features = backbone.head({"image": torch.from_numpy(images(1)).movedim(-1, 1) / 255}, "d4")
    assert set(features) == {"d3", "d4"}
    errors, sizes = [], []
    for count in (1, 4, 16, 64, 80):
        [found], [tape] = carry(encoder, features, **EXACT, components=count)
        sizes.append(tape.bytes)
        errors.append([float((found[n] - x).square().mean() / x.var()) for n, x in features.items()])
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True) and max(errors[0]) > 0.05 and max(errors[-1]) < 0.01
    spread = [float(encoder.bases["d3"].explained[:count].sum()) for count in (1, 4, 16, 64)]
    assert spread == sorted(spread) and spread[-1] == pytest.approx(1, abs=1e-3)


def test_tokens_without_a_place_cost_next_to_nothing_where_they_never_change(tmp_path):
    """A class token behind the embedding is the same for every image, which a basis knows."""
    job = job_of("feature-video-pca+vit-nano-server@embed")
    for name, parameter in job.modules["backbone"].named_parameters():
        if name.endswith("cls_token"):
            torch.nn.init.normal_(parameter.data)
    card = fit(recipe(job), job, tmp_path)
    assert [step["step"] for step in card] == ["covariance", "prefix"]
    encoder, backbone = job.modules["encoder"].eval(), job.modules["backbone"]
    with torch.no_grad():
        features = backbone.head({"image": torch.from_numpy(images(1)).movedim(-1, 1) / 255}, "embed")
    costs = []
    for one in (encoder, FeatureVideo(job.cuts["embed"])):
        [found], [tape] = carry(one, features, qp=20, components=96)
        costs.append(next(chunk[3] for chunk in tape.chunks if chunk[0] == "prefix"))
        scale = float(features["tokens"].max() - features["tokens"].min())
        assert (found["prefix"] - features["prefix"]).abs().max() < 0.03 * scale
    assert costs[0] < costs[1] / 4


def test_nothing_to_calibrate_on_is_refused():
    with pytest.raises(UsageError, match="no images to calibrate on"):
        recipe(job_of("feature-video-pca+resnet-nano@stem", 0))


@pytest.mark.parametrize("spec", [
    "feature-video-pca:16,qp=37+rans+resnet-nano@stem", "feature-video-pca:16,qp=30+rans+det-nano@d3",
])  # fmt: skip
def test_what_ships_keeps_the_accuracy_in_few_bytes(spec):
    shipped = semcodec.compose(spec)
    assert {source.shipped for source in shipped.sources.values()} == {True}
    plain = semcodec.compose(f"png+{shipped.composition.backbone.name}")
    score = "map50" if "det" in spec else "top1"
    record, whole = (pipeline.evaluate("digits-scenes", limit=64) for pipeline in (shipped, plain))
    assert record[score] > whole[score] - 0.05
    assert record["bytes_total"] < 1000
