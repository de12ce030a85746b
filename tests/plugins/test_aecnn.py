"""AECNN computes its equations, sends the most important channels alone, and recovers the others from all of them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from feature_jobs import job_of
from torch import nn

import semcodec
from semcodec.composition.composition import compose_spec
from semcodec.container.sinks import PacketSource
from semcodec.errors import SemcodecError, SpecError
from semcodec.interfaces import Analysis, Partial
from semcodec.specs import TensorSpec
from semcodec.training.feature_steps import around, distance
from semcodec.training.loop import fit
from semcodec_plugins.aecnn.attention import Importance, channel_attention, most_important, scaled
from semcodec_plugins.aecnn.encoder import AECNN, float_entropy
from semcodec_plugins.aecnn.recipe import recipe
from semcodec_plugins.aecnn.recovery import FeatureRecovery

CHANNELS, SIDE = 16, 12
FEATURES = {"maps": TensorSpec((CHANNELS, SIDE, SIDE))}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def maps(count: int = 3) -> torch.Tensor:
    """Positive, with channels of very different means and peaks."""
    scale = torch.logspace(-1, 1, CHANNELS)[torch.randperm(CHANNELS)].view(-1, 1, 1)
    return torch.randn(count, CHANNELS, SIDE, SIDE).relu() * scale


def calibrated(ratio: int = 4) -> AECNN:
    encoder = AECNN(FEATURES, ratio=ratio).eval()
    x = maps(16)
    importance = Importance()
    importance.see(x)
    encoder.prune(importance.mean())
    encoder.quantiser.see_range(x[:, encoder.kept])
    encoder.quantiser.finish_ranges()
    encoder.quantiser.see(x[:, encoder.kept])
    encoder.quantiser.finish()
    return encoder


def sent(encoder: AECNN, x: torch.Tensor, bits: int = 8) -> list:
    given = {"maps": x[:, encoder.kept]}
    return encoder.encode(given, Analysis(given), {}, {"bits": bits})


# -- equations --------------------------------------------------------------------------------------------------------


def test_equations_5_to_7():
    x = maps()
    values = x.double().numpy()

    def normalised(pooled):
        return (pooled - pooled.mean(1, keepdims=True)) / np.sqrt(pooled.var(1, keepdims=True) + 1e-5)

    total = normalised(values.mean((2, 3))) + normalised(values.max((2, 3)))
    expected = 1 / (1 + np.exp(-total))
    got = channel_attention(x)
    assert got.shape == (3, CHANNELS)
    assert np.abs(got.double().numpy() - expected).max() < 1e-5
    assert np.ptp(expected) > 0.3
    assert torch.equal(scaled(x), x * got[:, :, None, None])


def test_equation_8_is_the_mean_over_all_samples_whatever_the_batches():
    x = maps(10)
    importance = Importance()
    for part in x.split((1, 4, 5)):
        importance.see(part)
    assert torch.allclose(importance.mean(), channel_attention(x).mean(0), atol=1e-6)


def test_the_least_important_channels_are_pruned():
    importance = torch.tensor([0.5, 0.9, 0.1, 0.9, 0.3, 0.5])
    assert most_important(importance, 3).tolist() == [0, 1, 3]
    assert most_important(importance, 1).tolist() == [1]
    encoder = calibrated(8)
    ranked = encoder.importance.argsort(descending=True)[: CHANNELS // 8]
    assert encoder.kept.tolist() == sorted(ranked.tolist())


def test_equation_9_takes_every_received_channel_and_no_other():
    recovery = FeatureRecovery(FEATURES, ratio=4)
    for layer in recovery.children():
        nn.init.normal_(layer.weight, std=0.3)
    kept = torch.tensor([2, 3, 8, 15])
    present = torch.zeros(1, CHANNELS, 1, 1)
    present[:, kept] = 1
    x = maps(1).requires_grad_()
    out = recovery.recover(Partial({"maps": x}, {"maps": present}))["maps"]
    assert torch.equal(out[:, kept], x[:, kept])
    pruned = [c for c in range(CHANNELS) if c not in kept]
    for channel in pruned:
        (reached,) = torch.autograd.grad(out[0, channel].square().sum(), x, retain_graph=True)
        touched = reached[0].abs().sum((1, 2)) > 0
        assert touched.nonzero()[:, 0].tolist() == kept.tolist()


def test_recovery_puts_each_channel_at_its_place_whichever_were_received():
    recovery = FeatureRecovery(FEATURES, ratio=4).eval()
    nn.init.normal_(recovery.linear.weight)
    x, present = maps(2), torch.zeros(2, CHANNELS, 1, 1)
    rows = [[0, 5, 6, 11], [1, 2, 3, 4]]
    for row, kept in enumerate(rows):
        present[row, kept] = 1
    out = recovery.recover(Partial({"maps": x * present}, {"maps": present}))["maps"]
    for row, kept in enumerate(rows):
        pruned = [c for c in range(CHANNELS) if c not in kept]
        generated = recovery(x[row : row + 1, kept])[0]
        assert torch.allclose(out[row, pruned], generated, rtol=1e-4, atol=1e-4)
        assert torch.equal(out[row, kept], x[row, kept])


def test_untrained_recovery_takes_nothing_away():
    present = torch.zeros(1, CHANNELS, 1, 1)
    present[:, :4] = 1
    x = maps(1) * present
    assert torch.equal(FeatureRecovery(FEATURES, ratio=4).recover(Partial({"maps": x}, {"maps": present}))["maps"], x)


def test_recovery_leaves_alone_what_it_has_not_learned():
    recovery = FeatureRecovery(FEATURES, ratio=4)
    nn.init.normal_(recovery.linear.weight)
    x, area = maps(1), torch.ones(1, 1, SIDE, SIDE)
    area[..., :3] = 0
    few = torch.zeros(1, CHANNELS, 1, 1)
    few[:, :3] = 1
    for present in (area, few):
        given = x * present
        assert torch.equal(recovery.recover(Partial({"maps": given}, {"maps": present}))["maps"], given)


# -- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(1, 9))
def test_training_sees_what_the_decoder_restores(bits):
    encoder, x = calibrated(), maps()
    encoder.trained_bits = (bits,)
    [(partial, cost)] = encoder.forward_train({"maps": x}, np.random.default_rng(0))
    assert cost is None
    for row, latent in enumerate(sent(encoder, x, bits)):
        assert int(latent.symbols["maps"].max()) < 1 << bits
        restored = encoder.restore(latent)
        assert torch.equal(partial.present["maps"][row : row + 1], restored.present["maps"])
        assert torch.allclose(partial.features["maps"][row : row + 1], restored.features["maps"], atol=1e-4)


def test_more_bits_are_closer():
    encoder, x = calibrated(), maps()
    errors = []
    for bits in range(1, 9):
        restored = torch.cat([encoder.restore(one).features["maps"] for one in sent(encoder, x, bits)])
        errors.append(float((restored - x)[:, encoder.kept].square().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 100


def test_pruned_channels_are_zero_and_marked():
    encoder = calibrated()
    partial = encoder.restore(sent(encoder, maps())[0])
    present = partial.present["maps"]
    assert present.shape == (1, CHANNELS, 1, 1)
    assert present.flatten().nonzero()[:, 0].tolist() == encoder.kept.tolist()
    assert (partial.features["maps"] * (1 - present) == 0).all()


def test_equal_features_give_equal_bytes_whatever_batch_and_threads():
    encoder, x = calibrated(), maps(5)
    threads = torch.get_num_threads()
    together = sent(encoder, x, 5)
    try:
        torch.set_num_threads(2)
        again = sent(encoder, x, 5)
    finally:
        torch.set_num_threads(threads)
    for row in range(5):
        [alone] = sent(encoder, x[row : row + 1], 5)
        assert alone.symbols["maps"].tobytes() == together[row].symbols["maps"].tobytes()
        assert again[row].symbols["maps"].tobytes() == together[row].symbols["maps"].tobytes()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(bad):
    encoder, x = calibrated(), maps(1)
    x[0, encoder.kept[0], 3, 3] = bad
    with pytest.raises(SemcodecError, match="NaN or infinity"):
        sent(encoder, x)


def test_the_papers_figures():
    point = compose_spec("aecnn:ratio=16+rans+resnet50-caffe@stem:side=128")
    assert list(point.stages.figures.values()) == [4 * 64 * 32 * 32 / 16]
    assert float_entropy(torch.zeros(3, 8, 8)) == 0
    assert float_entropy(torch.arange(64.0).view(1, 8, 8)) == pytest.approx(6)
    encoder = calibrated()
    figures = encoder.figures({"maps": maps()[:, encoder.kept]})
    assert [len(values) for values in figures.values()] == [3]
    assert all(0 < value < np.log2(4 * SIDE * SIDE) for value in figures["entropy_bits"])


# -- in a pipeline ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline():
    made = semcodec.compose("aecnn+rans+resnet-nano", weights="random")
    made.stages.encoder.kept.copy_(torch.arange(1, 1 + made.stages.encoder.count))
    return made


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


def test_the_device_computes_the_kept_channels_alone(pipeline):
    encoder, backbone = pipeline.stages.encoder, pipeline.stages.backbone
    x = pipeline.features(images(2))
    with torch.inference_mode():
        given, whole = pipeline.head(x)["maps"], backbone.head(x, "stem")["maps"]
    assert given.shape[1] * 4 == whole.shape[1]
    assert torch.allclose(given, whole[:, encoder.kept], atol=1e-4)


def test_what_arrives_is_what_was_sent(pipeline):
    encoder = pipeline.stages.encoder
    encoded = pipeline.encode_batch(images(2), [0, 1])
    with torch.inference_mode():
        given = pipeline.head(pipeline.features(images(2)))
    latents = encoder.encode(given, Analysis(given), {}, {"bits": 8})
    for record, latent in zip(pipeline.records(encoded), latents, strict=True):
        source = PacketSource(record, pipeline.stages.entropy)
        read = encoder.read(source)
        source.finish()
        assert np.array_equal(read.symbols["maps"], latent.symbols["maps"])
    assert len(pipeline.decode_batch(pipeline.records(encoded))) == 2


def test_without_recovery_it_is_the_pruned_network():
    composition = compose_spec("aecnn:ratio=16+none+rans+resnet-nano")
    assert composition.recoverer.name == "none"
    assert compose_spec("aecnn:ratio=16+rans+resnet-nano").recoverer.item.__str__() == "fr:16"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("aecnn:ratio=2+rans+resnet-nano@input", "does not divide the 3 channels"),
        ("aecnn:ratio=3+rans+resnet-nano", "ratio"),
        ("aecnn+rans+resnet-nano@stage9", "no cut"),
        ("aecnn:bits=9+rans+resnet-nano", "bits"),
        ("aecnn:ratio=4+fr:8+rans+vit-nano", "no cut"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(spec, says):
    with pytest.raises(SpecError, match=says) as caught:
        compose_spec(spec)
    assert "Traceback" not in str(caught.value)


# -- training ---------------------------------------------------------------------------------------------------------


def test_where_the_pruned_network_is_compared():
    cuts = compose_spec("aecnn+rans+resnet50-caffe:side=128").source.cuts
    assert around(cuts, "stem") == ("input", "layer1")
    assert around(cuts, "layer1.0") == ("stem", "layer1")
    assert around(cuts, "layer4") == ("layer4.2", "layer4")


def test_algorithm_1_step_by_step(tmp_path):
    job = job_of("aecnn:ratio=8+rans+resnet-nano", 64)
    before = {name: tensor.clone() for name, tensor in job.modules["backbone"].state_dict().items()}
    steps = recipe(job)
    assert [step.name for step in steps] == [
        "attention", "importance", "ranges before", "histograms before", "recovery", "fine-tune", "end to end",
        "ranges after", "histograms after",
    ]  # fmt: skip
    fit(steps[:4], job, tmp_path / "pruned")
    encoder, backbone = job.modules["encoder"], job.modules["backbone"]
    # The module's network has learned and is left; what is pruned is the network as it was.
    attended = job.auxiliary["attended"].state_dict()
    assert any(not torch.equal(attended[name], tensor) for name, tensor in before.items())
    assert all(torch.equal(backbone.state_dict()[name], tensor) for name, tensor in before.items())
    assert torch.equal(encoder.kept, most_important(encoder.importance, 8))
    assert encoder.importance.min() > 0
    assert encoder.quantiser.counts.max() > 1
    fit(steps[4:], job, tmp_path / "tuned")
    after = backbone.state_dict()
    learned = {name.split(".")[1] for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert {"conv1", "layer1", "layer3", "fc"} <= learned
    norms = [name for name in before if "running" in name]
    assert norms
    assert all(torch.equal(after[name], before[name]) for name in norms)


def test_the_pruned_network_is_trained_as_long_as_the_recovered_one():
    recovered, pruned = recipe(job_of("aecnn+rans+resnet-nano", 64)), recipe(job_of("aecnn+none+rans+resnet-nano", 64))
    assert "recovery" not in [step.name for step in pruned]
    assert sum(step.samples for step in recovered) == sum(step.samples for step in pruned)


def test_bits_that_the_spec_names_are_trained_alone():
    job = job_of("aecnn+none+rans+resnet-nano", 64)
    recipe(job)
    assert len(set(job.modules["encoder"].trained_bits)) > 3
    job.call = {"bits": 2}
    recipe(job)
    assert job.modules["encoder"].trained_bits == (2,)


def test_importance_on_no_images_is_refused():
    with pytest.raises(SemcodecError, match="no images"):
        recipe(job_of("aecnn+rans+resnet-nano", 0))


def test_recovery_learns(tmp_path):
    job = job_of("aecnn:ratio=8+rans+resnet-nano", 256)
    steps = [step for step in recipe(job) if step.name in {"importance", "ranges before", "recovery"}]
    fit(steps, job, tmp_path, half=False)
    image = {"image": torch.from_numpy(job.dataset.batch(slice(0, 32))[0]).movedim(-1, -3).float() / 255}
    with torch.no_grad():
        whole = job.modules["backbone"].head(image, "stem")
        [(partial, _)] = job.modules["encoder"].forward_train(whole, np.random.default_rng(0))
        errors = [distance(got, whole).item() for got in (partial.features, job.recover(partial))]
    assert errors[1] < 0.5 * errors[0]


def test_a_packet_decodes_in_another_process(tmp_path):
    """With the weights that ship."""
    made = semcodec.compose("aecnn+rans+resnet-nano")
    encoded = made.encode_batch(images(2), [0, 1])
    (tmp_path / "two.smc").write_bytes(made.stream(encoded))
    code = "import sys, semcodec.cli as c; c.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "decode", str(tmp_path / "two.smc")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for prediction in made.decode_batch(made.records(encoded)):
        assert prediction.name in done.stdout
