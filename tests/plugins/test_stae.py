"""STAE computes its equations, keeps exactly its budgets, and what it trains on is what its decoder restores."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import semcodec
from semcodec.coding.video_params import rate_factor
from semcodec.coding.videos import hold_fill
from semcodec.composition.composition import compose_spec
from semcodec.container.sinks import PacketSource
from semcodec.errors import CorruptStream, SpecError
from semcodec.interfaces import Analysis, Partial
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.selection import select
from semcodec.specs import SpecMismatch, TensorSpec
from semcodec.training.frame_attention import FrameAttention
from semcodec_plugins.stae import spec
from semcodec_plugins.stae.attention import SpatialAttention
from semcodec_plugins.stae.encoder import STAE
from semcodec_plugins.stae.recovery import CNN3D2D, Conv3d, Identity

SIDE = 32
PIXELS = SIDE * SIDE
FEATURES = {"frames": TensorSpec((16, 3, SIDE, SIDE)), "index": TensorSpec((16,), "int64")}
FRAMES = (1, 2, 4, 8, 16)
FRACTIONS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def clips(count: int, seed: int = 0) -> np.ndarray:
    """Smooth moving gradients with a little noise, uint8."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, (count, 1, 1, 1, 3)) + 0.3 * np.arange(16)[None, :, None, None, None]
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    wave = np.sin(phase + 3 * x[None, None, :, :, None]) + np.cos(2 * phase + 4 * y[None, None, :, :, None])
    noise = rng.normal(0, 2, wave.shape)
    return (127 + 55 * wave + noise).clip(0, 255).astype(np.uint8)


def floats(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(pixels, -1, -3).copy()).float() / 255


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2)])
def test_one_clip_is_convolved_as_several_are(stride):
    conv = Conv3d(4, 6, 3, stride, 1)
    clip = torch.rand(1, 4, 4, 24, 24).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        alone, together = conv(clip), conv(torch.cat([clip, clip]))
    torch.testing.assert_close(alone, together[:1], atol=1e-6, rtol=0)
    learned = conv(clip)
    learned.square().sum().backward()
    torch.testing.assert_close(learned.detach(), alone, atol=1e-5, rtol=0)
    assert conv.weight.grad is not None


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """Attentions that differ over frames and pixels more than untrained ones do."""
    made = semcodec.compose(f"stae:coding=raw,frames=4,pixels=0.4+rans+vit-nano:{SIDE}", weights="random")
    torch.manual_seed(5)
    for p in made.stages.encoder.parameters():
        nn.init.normal_(p, std=0.5)
    return made


def at(pipeline: Pipeline, spec: str) -> Pipeline:
    """The same models at another operating point."""
    return pipeline.replace(composition=compose_spec(f"{spec}+vit-nano:{SIDE}"))


def restored(pipeline: Pipeline, pixels: np.ndarray) -> list[Partial]:
    """What the server has after the bytes were read."""
    out = []
    for packet in pipeline.records(pipeline.encode_batch(pixels, range(len(pixels)))):
        source = PacketSource(packet, pipeline.stages.entropy)
        latent = pipeline.stages.encoder.read(source)
        source.finish()
        out.append(pipeline.stages.encoder.restore(latent))
    return out


# -- equations --------------------------------------------------------------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_equation_6():
    attention = FrameAttention(16).eval()
    x = torch.rand(3, 16, 3, 8, 10)
    first, _, second = attention.mlp
    a, b, c, d = (p.detach().double().numpy() for p in (first.weight, first.bias, second.weight, second.bias))
    values = x.double().numpy().reshape(3, 16, -1)

    def mlp(pooled):
        # Standardised over the clip's frames, with one step of 8 bits against still clips.
        pooled = (pooled - pooled.mean(1, keepdims=True)) / (pooled.std(1, keepdims=True) + 1 / 255)
        return np.maximum(pooled @ a.T + b, 0) @ c.T + d

    expected = sigmoid(mlp(values.mean(2)) + mlp(values.max(2)))
    got = attention(x)
    assert got.shape == (3, 16)
    assert np.abs(got.detach().numpy() - expected).max() < 1e-6
    assert np.ptp(expected) > 0.05


def test_equation_7():
    attention = SpatialAttention().eval()
    x = torch.rand(2, 4, 3, 9, 7)
    kernel, bias = (p.detach().double().numpy() for p in (attention.conv.weight, attention.conv.bias))
    values = x.double().numpy()
    pooled = np.stack([values.mean(2), values.max(2)], 2)
    padded = np.pad(pooled, ((0, 0),) * 3 + ((1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(3, 4))
    expected = sigmoid(np.einsum("bkphwij,pij->bkhw", windows, kernel[0]) + bias)
    got = attention(x)
    assert got.shape == (2, 4, 9, 7)
    assert np.abs(got.detach().numpy() - expected).max() < 1e-6
    assert np.ptp(expected) > 0.05


def test_pixels_are_scored_on_kept_frames_alone(pipeline):
    seen = []
    encoder = pipeline.stages.encoder
    hook = encoder.spatial_attention.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    pixels = clips(2)
    at(pipeline, "stae:coding=raw,frames=4,pixels=0.5+rans").encode_batch(pixels, [0, 1])
    hook.remove()
    assert [tuple(x.shape) for x in seen] == [(2, 4, 3, SIDE, SIDE)]
    scores = encoder.frame_attention(floats(pixels))
    kept = scores.topk(4).indices.sort(1).values
    assert torch.equal(seen[0], floats(pixels)[torch.arange(2)[:, None], kept])


# -- budgets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "fraction"), list(itertools.product(FRAMES, FRACTIONS)))
def test_budgets_are_kept_exactly(pipeline, frames, fraction):
    pixels = clips(1)
    point = at(pipeline, f"stae:coding=raw,frames={frames},pixels={fraction}+rans")
    (partial,) = restored(point, pixels)
    encoder = point.stages.encoder
    index = partial.features["index"][0]
    scores = encoder.frame_attention(floats(pixels))[0]
    assert index.tolist() == sorted(scores.topk(frames).indices.tolist())
    sent = floats(pixels)[0, index]
    got = partial.features["frames"][0]
    if fraction == 1.0:
        assert "frames" not in partial.present
        assert torch.equal(got, sent)
        return
    mask = partial.present["frames"][0]
    assert mask.shape == (frames, 1, SIDE, SIDE)
    assert mask.flatten(1).sum(1).tolist() == [round(fraction * PIXELS)] * frames
    # The pixels of highest M_SA, and no other, are there exactly.
    attention = encoder.spatial_attention(sent[None])[0].flatten(1)
    least = attention.masked_fill(mask.flatten(1) == 0, 2).amin(1)
    assert (attention.masked_fill(mask.flatten(1) == 1, -1).amax(1) <= least).all()
    assert torch.equal(got, sent * mask)


SELECTORS = {"top-k": "", "attention-threshold": ":0.5", "attention-sum": ":0.6", "random": ""}


@pytest.mark.parametrize(("frames", "pixels"), list(itertools.product(SELECTORS, SELECTORS)))
def test_every_selector_serves_frames_and_pixels(pipeline, frames, pixels):
    source = clips(4, 1)
    budget = ",pixels=0.4" if pixels in ("top-k", "random") else ""
    chosen = f"{frames}@frames{SELECTORS[frames]}+{pixels}@pixels{SELECTORS[pixels]}"
    point = at(pipeline, f"stae:coding=raw{budget}+{chosen}+rans")
    analysis = Analysis({"frames": floats(source)})
    with torch.inference_mode():
        masks, scores = select(point.stages.encoder, analysis, point.stages.budgeted(point.composition), range(4))
    parts = restored(point, source)
    for row, partial in enumerate(parts):
        kept = masks["frames"][row]
        count = int(kept.sum())
        assert torch.equal(partial.features["index"][0], kept.nonzero()[:, 0])
        mask = masks["pixels"][row, :count].view(count, 1, SIDE, SIDE).float()
        assert torch.equal(partial.present["frames"][0], mask)
        assert torch.equal(partial.features["frames"][0], floats(source)[row, kept] * mask)
    if "threshold" in frames:
        assert torch.equal(masks["frames"].sum(1), (scores["frames"] >= 0.5).sum(1).clamp(min=1))
    assert len(point.decode_batch(point.records(point.encode_batch(source, range(4))))) == 4


def test_samples_of_one_batch_may_keep_different_numbers_of_frames(pipeline):
    source = np.random.default_rng(3).integers(0, 256, (5, 16, SIDE, SIDE, 3), dtype=np.uint8)
    source[1::2] //= np.arange(1, 17, dtype=np.uint8)[:, None, None, None]  # other clips fade out
    scores = pipeline.stages.encoder.frame_attention(floats(source))
    threshold = round(scores.median().item(), 3)
    counts = (scores >= threshold).sum(1).clamp(min=1).tolist()
    assert len(set(counts)) > 2
    point = at(pipeline, f"stae:coding=raw+attention-threshold@frames:{threshold}+attention-sum@pixels:0.5+rans")
    together = restored(point, source)
    assert [p.features["index"].shape[1] for p in together] == counts
    logits = [p.logits for p in point.decode_batch(point.records(point.encode_batch(source, range(5))))]
    for i, partial in enumerate(together):
        (alone,) = restored(point, source[i : i + 1])
        assert torch.equal(partial.features["index"], alone.features["index"])
        assert torch.equal(partial.present["frames"], alone.present["frames"])
        assert torch.equal(partial.features["frames"], alone.features["frames"])
        assert np.abs(point.decode(point.encode(source[i])).logits - logits[i]).max() < 1e-5


def test_the_full_pixel_budget_skips_spatial_attention_and_recovery(pipeline):
    calls = []
    stages = pipeline.stages
    hooks = [
        module.register_forward_hook(lambda *_: calls.append(1))
        for module in (stages.encoder.spatial_attention, stages.recoverer)
    ]
    point = at(pipeline, "stae:coding=raw,frames=4,pixels=1.0+rans")
    (partial,) = restored(point, clips(1))
    assert stages.recoverer.recover(partial) is partial.features
    point.decode(point.encode(clips(1)[0]))
    assert not calls
    point = at(pipeline, "stae:coding=raw,frames=4,pixels=0.9+rans")
    point.decode(point.encode(clips(1)[0]))
    assert len(calls) == 2
    for hook in hooks:
        hook.remove()


def test_more_frames_than_there_are_is_refused():
    with pytest.raises(SpecError, match="frames"):
        compose_spec(f"stae:coding=raw,frames=17+vit-nano:{SIDE}")
    with pytest.raises(SpecError, match="pixels"):
        compose_spec(f"stae:coding=raw,pixels=1.5+vit-nano:{SIDE}")


def test_the_papers_own_rate_is_reported(pipeline):
    point = at(pipeline, "stae:coding=raw,frames=8,pixels=0.5+rans")
    assert dict(point.composition.stages.figures) == {"S of eq. (1), bytes": 4 * 8 * 3 * 0.5 * PIXELS}


# -- coding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["jpeg", "webp", "h264", "h265", "av1"])
@pytest.mark.parametrize("fraction", [1.0, 0.4])
def test_pictures_are_smaller_and_keep_the_mask_exact(pipeline, coding, fraction):
    source = clips(1)
    raw = at(pipeline, f"stae:coding=raw,frames=4,pixels={fraction}+rans")
    point = at(pipeline, f"stae:coding={coding},frames=4,pixels={fraction},quality=75+rans")
    assert point.encode(source[0]).bytes_total < 0.65 * raw.encode(source[0]).bytes_total
    (exact,), (lossy,) = restored(raw, source), restored(point, source)
    assert torch.equal(exact.features["index"], lossy.features["index"])
    error = (exact.features["frames"] - lossy.features["frames"]).abs()
    assert error.mean() < 0.03
    if fraction == 1.0:
        assert not lossy.present
        return
    assert torch.equal(exact.present["frames"], lossy.present["frames"])
    assert (lossy.features["frames"] * (1 - exact.present["frames"]) == 0).all()


def test_quality_costs_bytes(pipeline):
    sizes = [
        at(pipeline, f"stae:coding=jpeg,quality={q}+rans").encode(clips(1)[0]).bytes_total for q in (30, 50, 75, 90)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


@pytest.mark.parametrize(("coding", "worst"), [("h264", 51), ("h265", 51), ("av1", 63)])
def test_the_qualities_of_video_are_all_of_its_codec(coding, worst):
    factors = [rate_factor(coding, quality) for quality in range(1, 101)]
    assert factors[0] == worst and factors[-1] == 0
    assert factors == sorted(factors, reverse=True) and set(factors) >= set(range(0, worst + 1, 2))


@pytest.mark.parametrize("coding", ["h264", "h265", "av1"])
def test_frames_that_stand_still_cost_next_to_nothing_as_video(pipeline, coding):
    clip = np.repeat(clips(1)[0][:1], 16, axis=0)

    def payload(frames, how):
        packet = at(pipeline, f"stae:coding={how},frames={frames},pixels=1.0,quality=90+rans").encode(clip)
        return packet.bytes_payload

    assert payload(16, coding) < min(2 * payload(1, coding), payload(16, "webp"))


def test_a_dropped_pixel_is_filled_with_what_it_last_was():
    rng = np.random.default_rng(0)
    frames = rng.integers(1, 255, (3, 4, 5, 3)).astype(np.uint8)
    mask = np.ones((3, 4, 5), bool)
    mask[1:, 0] = mask[0, 1] = mask[1, 2] = False
    mask[:, 3] = False
    filled = hold_fill(frames, mask)
    assert np.array_equal(filled[mask], frames[mask])
    assert np.array_equal(filled[1:, 0], np.stack([frames[0, 0]] * 2)), "held"
    assert np.array_equal(filled[0, 1], frames[1, 1]), "what it first will be"
    assert np.array_equal(filled[1, 2], frames[0, 2])
    assert (filled[:, 3] > 0).all(), "what no frame has is smooth"


def test_frames_too_small_for_a_codec_are_refused_in_words():
    with pytest.raises(SpecMismatch, match="coding=av1 takes frames with even sides of at least 32, not 24x24"):
        spec.encoder(
            {"frames": TensorSpec((16, 3, 24, 24))}, {"frames": 4, "pixels": 0.4, "coding": "av1", "quality": 30}
        )


def test_a_video_that_is_not_the_one_due_is_refused(pipeline):
    point = at(pipeline, "stae:coding=h265,frames=4,pixels=1.0+rans")
    [latent] = point.device.prepare(clips(1), [0])[0].latents
    good = latent.side["video"]
    for bad in (b"", good[: len(good) // 2], b"\0" * 50):
        latent.side["video"] = bad
        with pytest.raises(CorruptStream):
            point.stages.encoder.restore(latent)


def test_the_mask_is_counted_as_side_information(pipeline):
    packet = at(pipeline, "stae:coding=raw,frames=4,pixels=0.4+rans").encode(clips(1)[0])
    whole = at(pipeline, "stae:coding=raw,frames=4,pixels=1.0+rans").encode(clips(1)[0])
    assert packet.bytes_total == len(packet.data) == packet.bytes_payload + packet.bytes_side + packet.bytes_header
    assert packet.bytes_side > whole.bytes_side
    assert sum(row.side_bytes for row in packet.rows) == packet.bytes_side


# -- training's view --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "fraction"), [(1, 0.4), (4, 0.7), (16, 0.5), (4, 1.0), (16, 1.0)])
def test_forward_is_what_the_decoder_restores(pipeline, frames, fraction):
    source = clips(3, 2)
    point = at(pipeline, f"stae:coding=raw,frames={frames},pixels={fraction}+rans")
    partial, complete = point.stages.encoder(floats(source), point.stages.budgeted(point.composition), range(3))
    for row, received in enumerate(restored(point, source)):
        assert partial.features.keys() == received.features.keys()
        assert partial.present.keys() == received.present.keys()
        assert torch.equal(partial.features["index"][row : row + 1], received.features["index"])
        # The factor that carries the gradient may cost a value its last bit.
        assert (partial.features["frames"][row : row + 1] - received.features["frames"]).abs().max() < 1e-6
        for name, value in received.present.items():
            assert torch.equal(partial.present[name][row : row + 1], value)
        assert (complete[row] - floats(source)[row, received.features["index"][0]]).abs().max() < 1e-6


def test_both_attentions_learn_and_only_from_what_they_chose():
    encoder = STAE(FEATURES)
    pipeline = semcodec.compose(f"stae:coding=raw,frames=4,pixels=0.4+rans+vit-nano:{SIDE}", weights="random")
    partial, _ = encoder(floats(clips(2)), pipeline.stages.budgeted(pipeline.composition), range(2))
    weight = torch.randn_like(partial.features["frames"])
    (partial.features["frames"] * weight).sum().backward()
    for attention in (encoder.frame_attention, encoder.spatial_attention):
        for name, parameter in attention.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all()
        assert any(p.grad.abs().max() > 0 for p in attention.parameters())

    encoder.zero_grad()
    keep = {target: (selector, 1.0) for target, (selector, _) in pipeline.stages.budgeted(pipeline.composition).items()}
    partial, _ = encoder(floats(clips(2)), keep, range(2))
    assert not partial.features["frames"].requires_grad  # a budget that drops nothing is not scored


# -- recovery ---------------------------------------------------------------------------------------------------------


def recovery() -> CNN3D2D:
    net = CNN3D2D({"frames": TensorSpec((None, 3, SIDE, SIDE))}).eval()
    for p in net.parameters():
        nn.init.normal_(p, std=0.2)
    return net


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 15, 16])
def test_received_pixels_pass_and_missing_ones_are_filled(frames):
    net = recovery()
    mask = (torch.rand(2, frames, 1, SIDE, SIDE) < 0.4).float()
    sent = torch.rand(2, frames, 3, SIDE, SIDE) * mask
    partial = Partial({"frames": sent, "index": torch.arange(frames).expand(2, -1)}, {"frames": mask})
    with torch.no_grad():
        features = net.recover(partial)
    out = features["frames"]
    assert torch.equal(out * mask, sent)
    assert out.min() >= 0
    assert out.max() <= 1
    filled = out.masked_select(mask.expand_as(out) == 0)
    assert filled.std() > 0.01
    assert features["index"] is partial.features["index"]
    assert torch.equal(sent, partial.features["frames"])


def test_a_full_mask_leaves_frames_as_they_are():
    frames = torch.rand(1, 4, 3, SIDE, SIDE)
    assert torch.equal(recovery()(frames, torch.ones(1, 4, 1, SIDE, SIDE)), frames)


def test_recovery_sees_other_frames_and_learns():
    net = recovery()
    mask = (torch.rand(1, 4, 1, SIDE, SIDE) < 0.5).float()
    frames = (torch.rand(1, 4, 3, SIDE, SIDE) * mask).requires_grad_()
    out = net(frames, mask)
    (gradient,) = torch.autograd.grad(((out * (1 - mask))[:, 0]).sum(), frames, retain_graph=True)
    assert gradient[:, 1:].abs().max() > 0
    out.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_what_is_missing_may_stay_zero(pipeline):
    partial = Partial({"frames": torch.zeros(1, 4, 3, SIDE, SIDE)}, {"frames": torch.zeros(1, 4, 1, SIDE, SIDE)})
    assert Identity({}).recover(partial) is partial.features
    point = semcodec.compose(f"stae:coding=raw,frames=4,pixels=0.4+none+rans+vit-nano:{SIDE}", weights="random")
    assert set(point.digests) == {"encoder", "backbone"}
    assert point.decode(point.encode(clips(1)[0])).logits is not None
