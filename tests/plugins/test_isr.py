"""ISR: a small picture goes, the whole size comes back, and the network learns what bicubic lacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semcodec.composition.composition import compose_spec
from semcodec.errors import CorruptStream, SpecError, WeightsError
from semcodec.interfaces import Partial
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.timing import Clock
from semcodec.pipeline.weights import WeightsRequest
from semcodec.specs import TensorSpec
from semcodec.training.loop import Batch, Job
from semcodec_plugins.isr.encoder import shrink
from semcodec_plugins.isr.recipe import CLEAN, encode_and_decode, recipe
from semcodec_plugins.isr.super_resolution import SuperResolution, bicubic

RANDOM = WeightsRequest.parse(["random"])


def scene(seed=0, side=96):
    """Smooth colours and a few hard edges, uint8 (side, side, 3)."""
    y, x = np.mgrid[:side, :side] / side
    rng = np.random.default_rng(seed)
    smooth = np.stack([np.sin(3 * x + rng.uniform(0, 6)), np.cos(4 * y), x * y], -1)
    image = (128 + 80 * smooth).astype(np.uint8)
    image[20:60, 30:50] = rng.integers(0, 256, 3)
    return image


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("coding", ["webp", "jpeg", "avif", "png"])
def test_a_small_picture_goes_and_the_whole_size_comes_back(scale, coding):
    pipeline = Pipeline.load(
        compose_spec(f"isr:{scale},coding={coding}+bicubic:{scale}+vit-nano-server"), RANDOM, classes=["a", "b"]
    )
    restored = pipeline.composition.stages.restored
    assert restored == {"image": TensorSpec((3, 96 // scale, 96 // scale))}
    assert pipeline.composition.stages.recovered == {"image": TensorSpec((3, 96, 96))}
    encoded = pipeline.encode(scene())
    assert pipeline.decode(encoded).logits.shape == (2,)
    assert [row.name for row in encoded.rows] == ["picture"]
    partial = pipeline.server.restore(pipeline.server.source(pipeline.records([encoded])[0]), Clock())
    image = pipeline.stages.recoverer.recover(partial)["image"]
    original = torch.from_numpy(scene()).permute(2, 0, 1)[None] / 255
    assert image.shape == original.shape
    assert (image - original).abs().mean() < 0.05


def test_a_smaller_scale_costs_more_and_png_is_exact():
    def sent(spec):
        return Pipeline.load(compose_spec(spec), RANDOM, classes=["a"]).encode(scene()).bytes_total

    assert sent("isr:2+bicubic:2+vit-nano-server") > sent("isr:4+bicubic:4+vit-nano-server")
    pipeline = Pipeline.load(compose_spec("isr:2,coding=png+bicubic+vit-nano-server"), RANDOM, classes=["a"])
    x = pipeline.features(scene()[None])
    encoder = pipeline.stages.encoder
    [latent] = encoder.encode(x, encoder.analyse(x), {}, dict(pipeline.composition.call))
    small = (shrink(x["image"], 2) * 255).round()
    assert torch.equal((encoder.restore(latent).features["image"] * 255).round(), small)


def test_scales_that_differ_are_refused_before_anything_is_built():
    with pytest.raises(SpecError, match="image"):
        compose_spec("isr:4+sr:2+vit-nano-server")
    with pytest.raises(SpecError, match="bicubic"):
        compose_spec("isr:4+bicubic:2+vit-nano-server")


def test_without_weights_sr_is_refused_and_bicubic_needs_none():
    composition = compose_spec("isr+vit-nano-edge")
    assert composition.recoverer.name == "sr"
    request = WeightsRequest.parse(["backbone=random"], offline=True)
    with pytest.raises(WeightsError, match="sr"):
        Pipeline.load(composition, request, classes=["a"])
    assert Pipeline.load(compose_spec("isr+bicubic+vit-nano-edge"), request, classes=["a"]).encode(scene()).bytes_total


def test_a_picture_of_another_size_is_refused():
    pipelines = [
        Pipeline.load(compose_spec(f"isr:{s}+bicubic:{s}+vit-nano-server"), RANDOM, classes=["a"]) for s in (2, 4)
    ]
    x = pipelines[0].features(scene()[None])
    large, small = (p.stages.encoder for p in pipelines)
    [latent] = small.encode(x, small.analyse(x), {}, dict(pipelines[1].composition.call))
    with pytest.raises(CorruptStream, match="24x24 where 48x48"):
        large.restore(latent)


def test_untrained_the_network_is_bicubic():
    torch.manual_seed(0)
    network = SuperResolution({}, scale=2)
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(network.recover(Partial({"image": image}))["image"], bicubic(image, 2).clamp(0, 1))


@pytest.mark.slow
def test_the_recipes_loss_teaches_the_network_more_than_bicubic():
    torch.manual_seed(0)
    network = SuperResolution({}, scale=2)
    [step] = recipe(Job({"recoverer": network}, [0] * 10, ready=frozenset({"backbone"})))
    true = torch.from_numpy(np.stack([scene(row)[16:48, 16:48] for row in range(4)])).permute(0, 3, 1, 2) / 255
    clean = next(seed for seed in range(99) if np.random.default_rng(seed).random() < CLEAN)
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(60):
        loss, metrics = step.loss(Batch(true, torch.zeros(4), np.random.default_rng(clean), range(4)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert metrics["l1"] < 0.9 * metrics["bicubic"]


def test_training_sees_every_coding_and_none():
    image = torch.from_numpy(scene()).permute(2, 0, 1)[None, :, ::4, ::4] / 255
    seen = {float((encode_and_decode(image, np.random.default_rng(seed)) - image).abs().mean()) for seed in range(12)}
    assert min(seen) < 1e-6
    assert len(seen) > 4


def test_the_loss_is_of_a_batch():
    network = SuperResolution({}, scale=4)
    [step] = recipe(Job({"recoverer": network}, [0] * 10, ready=frozenset({"backbone"})))
    loss, metrics = step.loss(Batch(torch.rand(2, 3, 32, 32), torch.zeros(2), np.random.default_rng(0), [0, 1]))
    assert loss.item() == pytest.approx(metrics["bicubic"])
