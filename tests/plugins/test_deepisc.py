"""DeepISC: both ends synthesise the same frames, what is published is coded as published, and every budget is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import semcodec
from semcodec.coding.bits import pack_bits, packed_size, unpack_bits
from semcodec.coding.tables import channel_tables
from semcodec.composition.composition import compose_spec
from semcodec.container.sinks import PacketSink, PacketSource
from semcodec.data.datasets import open_dataset
from semcodec.errors import CorruptStream, SpecError, UsageError
from semcodec.evaluation.sample_panels import make_panels
from semcodec.interfaces import Latent, Partial
from semcodec.pipeline.device import Encoded
from semcodec.pipeline.pipeline import Pipeline
from semcodec.priors import Counted
from semcodec.specs import SpecMismatch, TensorSpec
from semcodec.training.train import train
from semcodec_plugins.deepisc import residual, segments, spec
from semcodec_plugins.deepisc.counting import SegmentTables
from semcodec_plugins.deepisc.encoder import DeepISC

SIDE = 64


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """With the weights that come with the package."""
    return semcodec.compose("deepisc+huffman+vit-nano", offline=True)


@pytest.fixture(scope="module")
def clips(pipeline) -> np.ndarray:
    return open_dataset("digits-motion", "test", pipeline.request).batch(range(3))[0]


def at(pipeline: Pipeline, knobs: str, entropy: str = "rans") -> Pipeline:
    return pipeline.replace(composition=compose_spec(f"deepisc:{knobs}+{entropy}+vit-nano"))


def sent(pipeline: Pipeline, pixels: np.ndarray) -> list[tuple[Latent, Partial]]:
    """What the server reads, and what it restores of it, after the bytes were read."""
    out = []
    for packet in pipeline.records(pipeline.encode_batch(pixels, range(len(pixels)))):
        source = PacketSource(packet, pipeline.stages.entropy)
        latent = pipeline.stages.encoder.read(source)
        source.finish()
        out.append((latent, pipeline.stages.encoder.restore(latent)))
    return out


def eight_bits(frames: torch.Tensor) -> np.ndarray:
    return np.moveaxis((255 * frames).round().byte().numpy(), -3, -1)


# -- what travels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entropy", ["latent", "all"])
@pytest.mark.parametrize("frames", [1, 2, 4, 8, 16])
def test_every_budget_is_kept_and_residuals_bring_pixels_to_half_a_step(pipeline, clips, frames, entropy):
    for share, step in ((0.0, 2), (0.4, 8), (1.0, 3)):
        point = at(pipeline, f"frames={frames},pixels={share},step={step},entropy={entropy}")
        for clip, (latent, partial) in zip(clips, sent(point, clips), strict=True):
            index = partial.features["index"][0].numpy()
            assert len(index) == frames == len(set(index))
            got = eight_bits(partial.features["frames"][0])
            mask = residual.positions(index, SIDE, SIDE, round(share * SIDE * SIDE))
            assert (mask.sum((1, 2)) == round(share * SIDE * SIDE)).all()
            assert latent.symbols["residual"].shape == (mask.sum(), 3)
            apart = np.abs(got.astype(int) - clip[index])
            assert apart[mask].max(initial=0) <= step / 2
            made = point.stages.encoder.synthesise(latent.symbols["latent"], latent.symbols["segments"])
            assert (got[~mask] == made[~mask]).all()
            assert not partial.present


def test_the_decoder_synthesises_what_the_encoder_took_the_residual_against(pipeline, clips):
    encoder = pipeline.stages.encoder
    for clip, (latent, partial) in zip(clips, sent(at(pipeline, "frames=4,pixels=0.4"), clips), strict=True):
        index = partial.features["index"][0].numpy()
        symbols, classes = encoder.describe(clip[index])
        assert (symbols == latent.symbols["latent"]).all()
        assert (classes == latent.symbols["segments"]).all()
        mask = residual.positions(index, SIDE, SIDE, round(0.4 * SIDE * SIDE))
        again = residual.quantise(clip[index], encoder.synthesise(symbols, classes), mask, 2)
        assert (again == latent.symbols["residual"]).all()


@pytest.mark.parametrize("entropy", ["latent", "all"])
def test_a_server_that_rounds_otherwise_reads_the_same_and_is_off_by_as_much(pipeline, clips, entropy, monkeypatch):
    point = at(pipeline, f"frames=2,pixels=0.4,entropy={entropy}")
    encoder = point.stages.encoder
    records = list(point.records(point.encode_batch(clips[:1], [0])))
    [(here, wanted)] = sent(point, clips[:1])
    usual = encoder.synthesise
    monkeypatch.setattr(encoder, "synthesise", lambda *given: np.minimum(usual(*given), 254) + np.uint8(1))
    latent = encoder.read(PacketSource(records[0], point.stages.entropy))
    assert all((latent.symbols[name] == here.symbols[name]).all() for name in here.symbols)
    got, frames = (eight_bits(p.features["frames"]).astype(int) for p in (encoder.restore(latent), wanted))
    assert 0 < np.abs(got - frames).max() <= 1


def test_the_synthesised_frame_is_much_like_the_frame(pipeline, clips):
    """Better than the best that one colour for each frame could do."""
    for clip, (_, partial) in zip(clips, sent(at(pipeline, "frames=16,pixels=0.0"), clips), strict=True):
        plain = np.abs(clip - np.median(clip, axis=(1, 2), keepdims=True)).mean()
        assert np.abs(eight_bits(partial.features["frames"][0]).astype(int) - clip).mean() < 0.6 * plain


def test_as_published_only_the_latent_meets_the_entropy_stage(pipeline, clips):
    sizes = []
    for entropy in ("huffman", "rans", "deflate"):
        [encoded] = at(pipeline, "frames=4,pixels=0.4,step=8", entropy).encode_batch(clips[:1], [0])
        rows = {row.name: row for row in encoded.rows}
        assert list(rows) == ["kept", "latent", "segments", "residual"]
        assert rows["segments"].kind == rows["residual"].kind == "blob"
        assert rows["segments"].bytes == 4 * 32 * 32 * 3 / 8
        assert rows["residual"].bytes == np.ceil(4 * round(0.4 * SIDE * SIDE) * 3 * 7 / 8)
        assert encoded.bytes_total == len(encoded.data)
        sizes.append(rows["latent"].bytes)
    assert len(set(sizes)) > 1
    assert max(sizes) < 4 * 4 * 8 * 8 * 4 / 8 + 100


def test_coding_everything_is_smaller_and_says_the_same(pipeline, clips):
    for knobs in ("frames=16,pixels=1.0,step=2", "frames=4", "frames=1,pixels=0.2,step=32", "frames=1,pixels=0.0"):
        plain, coded = at(pipeline, knobs), at(pipeline, f"{knobs},entropy=all")
        for (a, _), (b, _) in zip(sent(plain, clips), sent(coded, clips), strict=True):
            assert a.symbols.keys() == b.symbols.keys()
            assert all((a.symbols[name] == b.symbols[name]).all() for name in a.symbols)
        pairs = zip(*(p.encode_batch(clips, range(3)) for p in (plain, coded)), strict=True)
        assert all(b.bytes_total < a.bytes_total for a, b in pairs)


def splitmix64(seed: int) -> int:
    """Its first number."""
    z = (seed + 1) * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def test_positions_are_alike_everywhere_and_random():
    found = residual.positions(np.array([0, 3]), 5, 7, 12)
    assert found.sum((1, 2)).tolist() == [12, 12]
    # Fixed by the stream's format: with any other it would not be read.
    for row, frame in enumerate((0, 3)):
        order = sorted(range(35), key=lambda pixel: splitmix64((frame << 32) + pixel))
        assert np.flatnonzero(found[row]).tolist() == sorted(order[:12])
    assert (found[1] == residual.positions(np.array([3]), 5, 7, 12)[0]).all()
    assert (found[0] != found[1]).any()
    few, more = (residual.positions(np.array([2]), 64, 64, n) for n in (500, 900))
    assert (few <= more).all()
    quarters = residual.positions(np.arange(16), 64, 64, 2048).reshape(16, 2, 32, 2, 32).mean((0, 2, 4))
    assert np.abs(quarters - 0.5).max() < 0.01


@pytest.mark.parametrize("step", [2, 3, 7, 16, 64])
def test_every_difference_of_levels_has_a_symbol_within_its_bits(step):
    a, b = (grid.astype(np.uint8).reshape(1, 256, 256, 1).repeat(3, -1) for grid in np.mgrid[:256, :256])
    mask = np.ones((1, 256, 256), bool)
    symbols = residual.quantise(a, b, mask, step)
    assert np.abs(symbols).max() == spec.largest(step) < 2 ** (spec.residual_bits(step) - 1)
    restored = residual.correct(b, mask, symbols, step)
    assert np.abs(restored.astype(int) - a).max() <= step / 2


def test_fixed_bits_come_back():
    values = np.random.default_rng(0).integers(0, 32, 77)
    data = pack_bits(values, 5)
    assert len(data) == packed_size(5, 77) == 49
    assert (unpack_bits(data, 5, 77, "x") == values).all()
    for wrong in (data[:-1], data + b"\0", data[:-1] + b"\xff"):
        with pytest.raises(CorruptStream, match="x: "):
            unpack_bits(wrong, 5, 77, "x")


@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 4, 8), (5, 32, 20), (16, 32, 32)])
def test_segmentations_come_back_through_tables(shape):
    counts = SegmentTables()
    rng = np.random.default_rng(1)
    steps = rng.integers(0, 8, (shape[0], 4, 4)).astype(np.uint8)
    smooth = steps[:, np.arange(shape[1])[:, None] * 4 // shape[1], np.arange(shape[2]) * 4 // shape[2]]
    noise = rng.integers(0, 8, shape).astype(np.uint8)
    counts.see(smooth)
    counts.finish()
    tables = channel_tables(counts.counts.numpy())
    sizes = []
    for classes in (smooth, noise):
        kept = classes.copy()
        chunks: dict[str, tuple] = {}
        segments.write_coded(classes, tables, _Store(chunks))
        assert (classes == kept).all()
        assert (segments.read_coded(shape, tables, _Store(chunks)) == classes).all()
        sizes.append(sum(_bits(values, prior) for values, prior in chunks.values()))
    assert sizes[0] < sizes[1]


class _Store:
    """A Sink and Source that keeps symbols as they are."""

    def __init__(self, chunks):
        self.chunks = chunks

    def symbols(self, name, values, prior, *, side=False):
        if isinstance(values, int):
            stored, written = self.chunks[name]
            assert stored.size == values
            assert (written.index == prior.index).all()
            return stored
        self.chunks[name] = values, prior
        return None


def _bits(values, prior) -> float:
    freqs = np.stack([table.freqs / table.freqs.sum() for table in prior.tables])
    return float(-np.log2(freqs[prior.index, values]).sum())


def test_a_plot_shows_the_three_parts(pipeline, clips):
    shown = make_panels(at(pipeline, "frames=2,pixels=0.0"), clips[:1])
    assert [panel.title.split()[0] for panel in shown] == ["source:", "segmentation", "synthesised", "received:"]
    assert len(np.unique(shown[1].heat[~np.isnan(shown[1].heat)])) > 2
    assert shown[2].image.shape[0] == SIDE


# -- what may go wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entropy", "name", "content", "says"),
    [
        ("latent", "kept", np.zeros(16, bool), "keeps no frame"),
        ("latent", "segments", b"\0" * 767, "2048 numbers of 3 bits"),
        ("latent", "residual", b"\xff" * 2460, "more than 255 levels"),
        ("all", "segments.1", np.full(128, 8), "no such class"),
        ("all", "segments.1", np.full(128, -1), "no such class"),
    ],
)
def test_what_was_never_written_is_refused(pipeline, clips, entropy, name, content, says):
    """Chunks with right checksums, so that nothing but the Encoder's own bounds can tell."""
    point = at(pipeline, f"frames=2,pixels=0.1,step=2,entropy={entropy}", "pack")
    [(latent, _)] = sent(point, clips[:1])
    encoder = point.stages.encoder

    class Forging(PacketSink):
        def symbols(self, here, values, prior, *, side=False):
            super().symbols(here, content if here == name else values, Counted(), side=side)

        def blob(self, here, data, *, side=False):
            super().blob(here, content if here == name else data, side=side)

    class Believing(PacketSource):
        def symbols(self, here, count, prior):
            return super().symbols(here, count, Counted())

    sink = Forging(point.stages.entropy)
    encoder.write(latent, sink)
    packed = sink.pack(point.header, 0, dict(point.composition.call))
    [packet] = point.records([Encoded(packed.data)])
    with pytest.raises(CorruptStream, match=says):
        encoder.read(Believing(packet, point.stages.entropy))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (13, 30), (64, 48), (9, 200)])
def test_stills_of_any_size_go_through(height, width):
    features = {"image": TensorSpec((3, height, width))}
    encoder = DeepISC(features).eval()
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, height, width))).float() / 255
    for share in (0.0, 0.5, 1.0):
        params = {"frames": 4, "pixels": share, "step": 2, "entropy": "all"}
        wanted = spec.encoder(features, params)
        for row, latent in enumerate(encoder.encode({"image": image}, encoder.analyse({"image": image}), {}, params)):
            assert {n: TensorSpec(a.shape, a.dtype.name) for n, a in latent.symbols.items()} == dict(wanted.latent)
            restored = encoder.restore(latent).features["image"]
            assert restored.shape == (1, 3, height, width)
            if share == 1.0:
                assert (255 * (restored[0] - image[row])).abs().max() < 1.01
    with pytest.raises(UsageError, match="NaN"):
        encoder.encode({"image": image * float("nan")}, encoder.analyse({"image": image}), {}, params)


def test_clips_of_one_frame_and_what_it_cannot_take():
    one = {"frames": TensorSpec((1, 3, 16, 16)), "index": TensorSpec((1,), "int64")}
    params = {"frames": 1, "pixels": 0.5, "step": 2, "entropy": "latent"}
    x = {"frames": torch.rand(1, 1, 3, 16, 16).mul(255).round() / 255, "index": torch.zeros(1, 1, dtype=torch.int64)}
    encoder = DeepISC(one).eval()
    [latent] = encoder.encode(x, encoder.analyse(x), {}, params)
    assert encoder.restore(latent).features["frames"].shape == (1, 1, 3, 16, 16)
    with pytest.raises(SpecMismatch, match="more than the clip's 1"):
        spec.encoder(one, {**params, "frames": 4})
    with pytest.raises(SpecMismatch, match="leaves open"):
        spec.encoder({"image": TensorSpec((3, None, None))}, params)
    with pytest.raises(SpecMismatch, match="takes RGB frames"):
        spec.encoder({"maps": TensorSpec((64, 8, 8))}, params)
    with pytest.raises(SpecError, match="step"):
        compose_spec("deepisc:step=1+vit-nano")


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "data", "scale", "steps"),
    [
        (
            "deepisc:frames=2+huffman+vit-nano",
            "digits-motion",
            0.0001,
            ["frame attention", "appearance", "meaning", "histograms", "tuning"],
        ),
        ("deepisc+rans+resnet-nano", "digits-scenes", 0.001, ["appearance", "meaning", "histograms", "tuning"]),
    ],
)
def test_the_recipe_trains_clips_and_stills(tmp_path, text, data, scale, steps):
    card = train(text, data, tmp_path, scale=scale, request=semcodec.pipeline.weights.WeightsRequest(offline=True))
    assert [step["step"] for step in card["metrics"]] == steps
    assert all(np.isfinite(value) for step in card["metrics"] for name, value in step.items() if name != "step")
    pipeline = semcodec.compose(text, weights=str(tmp_path))
    encoder = pipeline.stages.encoder
    assert (encoder.tables.counts > 1).any()
    assert (encoder.quantiser.counts > 1).any()
    pixels, _ = open_dataset(data, "test", pipeline.request).batch([0])
    assert pipeline.decode(pipeline.encode(pixels[0])).logits is not None
    if data == "digits-scenes":
        given = semcodec.pipeline.weights.WeightsRequest({"encoder": str(tmp_path)}, offline=True)
        card = train(text, data, tmp_path / "tuned", scale=scale, request=given)
        assert [step["step"] for step in card["metrics"]] == ["tuning"]
        tuned = semcodec.compose(text, weights=str(tmp_path / "tuned")).stages.encoder
        assert torch.equal(tuned.segmentation.fine[0].weight, encoder.segmentation.fine[0].weight)
        assert not torch.equal(tuned.synthesiser.middle[0].weight, encoder.synthesiser.middle[0].weight)


def test_shipped_weights_say_how_they_were_made(pipeline):
    card = json.loads((Path(spec.__file__).parent / "weights" / "deepisc-vit-nano.json").read_text())
    assert card["spec"] == "deepisc+huffman+vit-nano"
    assert [step["step"] for step in card["recipe"]][-1] == "tuning"
    assert set(pipeline.digests) == {"encoder", "backbone"}
