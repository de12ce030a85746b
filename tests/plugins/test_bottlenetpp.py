"""BottleNet++: the shapes of the paper both ways, what is sent is in [0, 1] and exact, and the quantiser is trained
through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from feature_jobs import job_of
from torch import nn

import semcodec
from semcodec.composition.composition import compose_spec
from semcodec.errors import SemcodecError, SpecError, UsageError
from semcodec.interfaces import Analysis
from semcodec.specs import TensorSpec
from semcodec.training.feature_steps import distance
from semcodec.training.loop import fit
from semcodec_plugins.bottlenetpp.encoder import BottleNetPP
from semcodec_plugins.bottlenetpp.recipe import recipe

CHANNELS, HEIGHT, WIDTH = 16, 8, 12
FEATURES = {"maps": TensorSpec((CHANNELS, HEIGHT, WIDTH))}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def maps(count: int = 3) -> torch.Tensor:
    return torch.randn(count, CHANNELS, HEIGHT, WIDTH).relu()


def made(ratio: int = 4, spatial: int = 2) -> BottleNetPP:
    """With statistics that are none of the initial ones, in use."""
    encoder = BottleNetPP(FEATURES, ratio=ratio, spatial=spatial)
    for _ in range(20):
        encoder.forward_train({"maps": maps(8)}, np.random.default_rng(0))
    encoder.eval()
    encoder.see({"maps": maps(16)})
    encoder.quantiser.finish()
    return encoder


def sent(encoder: BottleNetPP, x: torch.Tensor, bits: int = 8) -> list:
    return encoder.encode({"maps": x}, Analysis({"maps": x}), {}, {"bits": bits})


# -- structure --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spatial", [1, 2, 4])
@pytest.mark.parametrize("ratio", [2, 4, 8, 16])
def test_as_many_values_as_the_ratio_says_and_the_shape_comes_back(ratio, spatial):
    encoder, x = made(ratio, spatial), maps(1)
    [latent] = sent(encoder, x)
    symbols = latent.symbols["maps"]
    assert symbols.shape == (CHANNELS * spatial**2 // ratio, HEIGHT // spatial, WIDTH // spatial)
    assert symbols.size * ratio == x.numel()
    restored = encoder.restore(latent).features["maps"]
    assert restored.shape == x.shape
    assert restored.min() >= 0


def test_the_table_of_aecnn_is_matched_value_by_value():
    for ratio in (2, 4, 8, 16, 32, 64):
        for cut in ("stem", "layer1.0"):
            ours = compose_spec(f"bottlenetpp:{ratio}+rans+resnet50@{cut}").stages.latent["maps"]
            theirs = compose_spec(f"aecnn:{ratio}+rans+resnet50@{cut}").stages.latent["maps"]
            assert np.prod(ours.shape) == np.prod(theirs.shape)
            assert compose_spec(f"bottlenetpp:{ratio},spatial=1+rans+resnet50@{cut}").stages.latent["maps"].shape == (
                theirs.shape
            )


def test_nothing_is_random_in_use():
    encoder, x = made(), maps()
    state = torch.get_rng_state()
    first, second = sent(encoder, x), sent(encoder, x)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.symbols["maps"], b.symbols["maps"])
        assert torch.equal(encoder.restore(a).features["maps"], encoder.restore(b).features["maps"])
    assert torch.equal(torch.get_rng_state(), state)


def test_equal_features_give_equal_symbols_whatever_batch_threads_and_mode():
    encoder, x = made(), maps(5)
    threads = torch.get_num_threads()
    together = sent(encoder, x)
    try:
        torch.set_num_threads(2)
        again = sent(encoder, x)
    finally:
        torch.set_num_threads(threads)
    encoder.train()
    training = sent(encoder, x)
    for row in range(5):
        [alone] = sent(encoder.eval(), x[row : row + 1])
        for other in (alone, again[row], training[row]):
            assert np.array_equal(other.symbols["maps"], together[row].symbols["maps"])


@pytest.mark.parametrize("spatial", [1, 2])
def test_what_is_sent_is_what_was_trained(spatial):
    encoder, x = made(spatial=spatial), maps()
    with torch.no_grad():
        assert torch.allclose(encoder.exact(x).float(), encoder.compressed(x), atol=1e-5)
        [(partial, bits)] = encoder.forward_train({"maps": x}, np.random.default_rng(0))
    assert bits is None
    for row, latent in enumerate(sent(encoder, x)):
        restored = encoder.restore(latent).features["maps"]
        assert torch.allclose(partial.features["maps"][row : row + 1], restored, atol=2e-2)
        apart = (partial.features["maps"][row : row + 1] - restored).abs()
        assert float((apart > 1e-4).float().mean()) < 0.02  # a value on a cell's edge may round either way


def test_an_activation_of_one_stays_one():
    encoder = made()
    nn.init.constant_(encoder.reduce_norm.bias, 40.0)
    encoder.see({"maps": maps(4)})
    encoder.quantiser.finish()
    [latent] = sent(encoder, maps(1))
    assert latent.symbols["maps"].min() == 255
    assert encoder.quantiser.values(latent.symbols["maps"]).min() > 0.99


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(bad):
    encoder, x = made(), maps(1)
    x[0, 3, 3, 3] = bad
    with pytest.raises(SemcodecError, match="NaN or infinity"):
        sent(encoder, x)


# -- in a pipeline ----------------------------------------------------------------------------------------------------


def test_fewer_bits_and_higher_ratios_cost_fewer_bytes():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)

    def size(args: str) -> int:
        pipeline = semcodec.compose(f"bottlenetpp:{args}+rans+resnet-nano", weights="random")
        records = pipeline.encode_batch(pixels, [0, 1])
        assert len(pipeline.decode_batch(pipeline.records(records))) == 2
        return records[0].bytes_total

    assert size("4") > size("4,bits=4") > size("4,bits=1")
    assert size("4") > size("16") > size("64")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("bottlenetpp:ratio=5+rans+resnet-nano", "ratio=5 does not divide 64 channels.*use ratio=2 or 4"),
        ("bottlenetpp:ratio=64,spatial=4+rans+resnet-nano@layer4", "spatial=4 does not divide the 3x3"),
        ("bottlenetpp+rans+resnet-nano@stage9", "no cut"),
        ("bottlenetpp+rans+vit-nano", "no cut 'stem' that bottlenetpp wants"),
        ("bottlenetpp:ratio=2,spatial=4+rans+resnet50-caffe@layer3:256", "above the 67108864"),
        ("bottlenetpp:ratio=1+rans+resnet-nano", "ratio"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(spec, says):
    with pytest.raises(SpecError, match=says) as caught:
        compose_spec(spec)
    assert "\n" not in caught.value.message


def test_the_recipe_step_by_step(tmp_path):
    job = job_of("bottlenetpp:ratio=8+rans+resnet-nano")
    steps = recipe(job)
    assert [step.name for step in steps] == ["scale", "bottleneck", "fine-tune", "end to end", "histograms"]
    backbone, encoder = job.modules["backbone"], job.modules["encoder"]
    before = {name: t.clone() for name, t in backbone.state_dict().items()}
    fit(steps[:1], job, tmp_path / "scale")
    steps[1].samples, steps[1].lr = 24 * 32, 1e-2
    fit(steps[1:2], job, tmp_path / "alone")
    with torch.no_grad():
        x = backbone.head({"image": torch.from_numpy(job.dataset.pixels).movedim(-1, 1) / 255}, "stem")
        [(partial, _)] = encoder.forward_train(x, np.random.default_rng(0))
    assert distance(partial.features, x) < 0.8, "of 1, the variance of what is recovered"
    assert all(torch.equal(backbone.state_dict()[name], t) for name, t in before.items())
    fit(steps[2:], job, tmp_path / "all")
    assert encoder.quantiser.counts.max() > 1
    after = backbone.state_dict()
    assert any(not torch.equal(after[name], t) for name, t in before.items())
    statistics = [name for name in before if "running" in name]
    assert statistics
    assert all(torch.equal(after[name], before[name]) for name in statistics)


def test_training_on_no_images_is_refused():
    with pytest.raises(UsageError, match="no images"):
        recipe(job_of("bottlenetpp+rans+resnet-nano", 0))


def test_the_embedded_default_keeps_the_accuracy():
    pipeline = semcodec.compose("bottlenetpp+rans+resnet-nano")
    assert {source.shipped for source in pipeline.sources.values()} == {True}
    assert pipeline.sources["backbone"].path == pipeline.sources["encoder"].path, "they have learned together"
    record = pipeline.evaluate("digits-scenes", limit=100)
    plain = semcodec.compose("local+resnet-nano").evaluate("digits-scenes", limit=100)
    assert record["top1"] > plain["top1"] - 0.05
    assert record["ratio_float32"] > 16
