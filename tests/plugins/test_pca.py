"""PCA fits by a stream what sklearn fits at once, sends ordered components in layers, and each prefix decodes."""

from __future__ import annotations

import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
import torch
from feature_jobs import images, job_of
from sklearn import decomposition
from torch import nn

import semcodec
from semcodec.composition.composition import compose_spec
from semcodec.container.packets import Packet, read_packets
from semcodec.container.sinks import PacketSource
from semcodec.container.v2 import bytes_behind
from semcodec.data.datasets import open_dataset
from semcodec.errors import SemcodecError, SpecError, TruncatedStream, UsageError
from semcodec.interfaces import Analysis
from semcodec.pipeline.timing import Clock
from semcodec.specs import TensorSpec
from semcodec.training.loop import fit
from semcodec.training.principal_components import Covariance
from semcodec_plugins.pca.encoder import PCA, PCAAdapt
from semcodec_plugins.pca.recipe import fitting, pca, pca_adapt

CHANNELS, SIDE = 16, 10
FEATURES = {"fine": TensorSpec((CHANNELS, SIDE, SIDE)), "coarse": TensorSpec((6, SIDE // 2, SIDE // 2))}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def maps(count: int = 4, channels: int = CHANNELS, side: int = SIDE) -> torch.Tensor:
    """Channels mixed from few sources of very different strength, far from zero mean."""
    mixing = torch.randn(channels, channels, generator=torch.Generator().manual_seed(1))
    strength = torch.logspace(0.5, -1.5, channels)
    sources = torch.randn(count, channels, side, side) * strength[:, None, None]
    return torch.einsum("dc,bchw->bdhw", mixing, sources) + 3


def both(count: int = 4) -> dict[str, torch.Tensor]:
    return {"fine": maps(count), "coarse": maps(count, 6, SIDE // 2)}


def fitted(kind: type[PCA] = PCA, rank: int = 0, count: int = 32) -> PCA:
    """As the recipe does it, without a backbone."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        x = both(count)
    encoder = kind(FEATURES, rank=rank).eval()
    for name, basis in encoder.bases.items():
        covariance = Covariance(x[name].shape[1])
        for part in x[name].split(8):
            covariance.see(part)
        basis.fit(covariance.components())
        basis.quantiser.see_range(basis.project(x[name], basis.rank))
        basis.quantiser.finish_ranges()
        basis.even_steps()
        basis.quantiser.see(basis.project(x[name], basis.rank))
        basis.quantiser.finish()
    return encoder


def sent(encoder: PCA, x: dict[str, torch.Tensor], components: int = 64, group: int = 4, bits: int = 8) -> list:
    return encoder.encode(x, Analysis(x), {}, {"components": components, "group": group, "bits": bits})


def error(encoder: PCA, x: dict[str, torch.Tensor], **params: int) -> float:
    """Of the fine map, over its variance."""
    restored = torch.cat([encoder.restore(latent).features["fine"] for latent in sent(encoder, x, **params)])
    return float((restored - x["fine"]).square().mean() / x["fine"].var())


# -- the fit ----------------------------------------------------------------------------------------------------------


def test_it_is_what_sklearn_finds():
    x = maps(40)
    covariance = Covariance(CHANNELS)
    for part in x.split((1, 7, 32)):
        covariance.see(part)
    found = covariance.components()
    rows = x.movedim(1, -1).reshape(-1, CHANNELS).double().numpy()
    reference = decomposition.PCA().fit(rows)
    ratio = (found.variances / found.variances.sum()).numpy()
    assert np.abs(ratio - reference.explained_variance_ratio_).max() < 1e-4
    assert np.abs(found.variances.numpy() / reference.explained_variance_ - 1).max() < 1e-6
    assert np.abs(found.mean.numpy() - reference.mean_).max() < 1e-6
    alignment = np.abs((found.vectors.numpy() * reference.components_).sum(1))
    assert alignment.min() > 1 - 1e-6
    assert ratio[0] > 0.3


def test_batches_of_any_size_give_the_same_even_far_from_zero():
    x = maps(24) * 1e-2 + 1e4
    found = []
    for size in (1, 5, 24):
        covariance = Covariance(CHANNELS)
        for part in x.split(size):
            covariance.see(part)
        found.append(covariance.components())
    direct = torch.cov(x.double().transpose(0, 1).flatten(1)).trace()
    for one in found:
        assert torch.allclose(one.variances, found[0].variances, rtol=1e-6, atol=1e-12)
        assert float(one.variances.sum()) == pytest.approx(float(direct), rel=1e-9)


def test_memory_does_not_grow_with_the_number_of_images():
    covariance = Covariance(CHANNELS)

    def held() -> int:
        return sum(value.nbytes for value in vars(covariance).values() if torch.is_tensor(value))

    covariance.see(maps(1))
    first = held()
    for _ in range(30):
        covariance.see(maps(8))
    assert held() == first == 8 * (CHANNELS + CHANNELS**2)
    assert covariance.count == 241 * SIDE**2
    assert all(torch.is_tensor(value) or isinstance(value, int) for value in vars(covariance).values())


def test_one_image_is_enough_and_none_is_not():
    covariance = Covariance(CHANNELS)
    with pytest.raises(UsageError, match="no images to calibrate on"):
        covariance.components()
    covariance.see(torch.full((1, CHANNELS, 1, 1), 2.0))
    found = covariance.components()
    assert found.variances.sum() == 0
    assert torch.allclose(found.vectors @ found.vectors.T, torch.eye(CHANNELS, dtype=torch.float64))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(bad):
    x = both()
    x["coarse"][1, 2, 3, 3] = bad
    with pytest.raises(UsageError, match="NaN or infinity"):
        Covariance(6).see(x["coarse"])
    with pytest.raises(SemcodecError, match="NaN or infinity"):
        sent(fitted(), x)


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_every_component_adds_what_it_explains():
    encoder, x = fitted(), both()
    errors = [error(encoder, x, components=count) for count in range(1, CHANNELS + 1)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3
    share = [encoder.explained(count)["fine"] for count in range(1, CHANNELS + 1)]
    assert np.abs(1 - np.array(share) - errors).max() < 0.05
    assert encoder.explained(6)["coarse"] == pytest.approx(1, abs=1e-5)


def test_more_bits_are_closer_and_steps_are_equal():
    encoder, x = fitted(), both()
    errors = [error(encoder, x, bits=bits) for bits in range(1, 9)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 100
    quantiser = encoder.bases["fine"].quantiser
    width = quantiser.high - quantiser.low
    assert torch.allclose(width, width[:1].expand(CHANNELS), rtol=5e-3)
    used = [len(np.unique(values)) for values in sent(encoder, x)[0].symbols["fine"]]
    assert used[0] > 4 * used[-1], "what varies less takes fewer levels"


def test_a_prefix_of_the_components_is_the_same_as_sending_fewer():
    encoder, x = fitted(), both(1)
    [whole] = sent(encoder, x)
    for count in (1, 5, 12):
        [less] = sent(encoder, x, components=count)
        for name, values in less.symbols.items():
            assert np.array_equal(values, whole.symbols[name][:count])
            assert len(values) == min(count, len(whole.symbols[name]))


def test_rank_bounds_what_is_kept():
    encoder = fitted(rank=5)
    [latent] = sent(encoder, both(1))
    assert {name: len(values) for name, values in latent.symbols.items()} == {"fine": 5, "coarse": 5}
    assert torch.equal(encoder.bases["fine"].vectors, fitted().bases["fine"].vectors[:5])


def test_equal_features_give_equal_symbols_whatever_batch_and_threads():
    encoder, x = fitted(), both(5)
    threads = torch.get_num_threads()
    together = sent(encoder, x)
    try:
        torch.set_num_threads(2)
        again = sent(encoder, x)
    finally:
        torch.set_num_threads(threads)
    for row in range(5):
        [alone] = sent(encoder, {name: t[row : row + 1] for name, t in x.items()})
        for name, values in together[row].symbols.items():
            assert np.array_equal(alone.symbols[name], values)
            assert np.array_equal(again[row].symbols[name], values)


# -- in a pipeline ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """Fitted by the recipe on a few images, around an untrained network."""
    made = semcodec.compose("pca:components=10,group=4+rans+resnet-nano@stem", weights="random")
    job = job_of("pca+rans+resnet-nano@stem")
    job.modules["encoder"], job.modules["backbone"] = made.stages.encoder, made.stages.backbone
    card = fit(pca(job), job, tmp_path_factory.mktemp("pca"))
    assert [step["step"] for step in card] == ["covariance", "ranges", "histograms"]
    shares = [value for name, value in card[-1].items() if "explain" in name]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1, abs=1e-3)
    return made


def received(pipeline, data: bytes):
    [packet] = read_packets(BytesIO(data), pipeline.header)
    return packet, pipeline.server.restore(pipeline.server.source(packet), Clock()).features["maps"]


def test_every_layer_is_an_end_at_which_a_packet_decodes(pipeline):
    [whole] = pipeline.encode_batch(images(1), [0])
    [packet] = pipeline.records([whole])
    assert isinstance(packet, Packet)
    assert packet.layers_total == 3
    ends = [len(whole.data) - bytes_behind(packet, layers) for layers in (1, 2, 3)]
    wanted = pipeline.stages.backbone.head(pipeline.features(images(1)), "stem")["maps"]
    errors = []
    for layer, (end, count) in enumerate(zip(ends, (4, 8, 10), strict=True), 1):
        found, maps_ = received(pipeline, whole.data[:end])
        assert found.layers_present == layer
        alone = pipeline.replace(composition=pipeline.composition.with_call(components=count))
        _, same = received(alone, alone.encode_batch(images(1), [0])[0].data)
        assert torch.equal(maps_, same)
        errors.append(float((maps_ - wanted).square().mean()))
        with pytest.raises(TruncatedStream):
            received(pipeline, whole.data[: end - 1])
    assert errors == sorted(errors, reverse=True)
    assert len(pipeline.decode_batch(list(read_packets(BytesIO(whole.data[: ends[0]]), pipeline.header)))) == 1


def test_fewer_components_and_bits_cost_fewer_bytes(pipeline):
    def size(**params: int) -> int:
        return (
            pipeline.replace(composition=pipeline.composition.with_call(**params))
            .encode_batch(images(1), [0])[0]
            .bytes_total
        )

    sizes = [size(components=count) for count in (1, 4, 16, 64)]
    assert sizes == sorted(set(sizes))
    assert size(bits=4) < size(bits=6) < size(bits=8)
    pixels = size(components=1) - 40  # one component, at most 8 bits a place
    assert pixels < 24 * 24


@pytest.mark.parametrize("cut", ["input", "layer1.0", "layer4"])
def test_any_cut_with_maps_will_do(cut):
    made = semcodec.compose(f"pca:2+rans+resnet-nano@{cut}", weights="random")
    encoded = made.encode_batch(images(2), [0, 1])
    assert len(made.decode_batch(made.records(encoded))) == 2


def test_several_tensors_share_layers():
    encoder, x = fitted(), both(1)
    [latent] = sent(encoder, x, group=4)
    composition = semcodec.compose("pca+rans+resnet-nano@stem", weights="random")
    sink = semcodec.container.sinks.PacketSink(composition.stages.entropy)
    encoder.write(latent, sink)
    assert [(row.name, row.layer) for row in sink.rows] == [
        ("fine", 0), ("coarse", 0), ("fine", 1), ("coarse", 1), ("fine", 2), ("fine", 3),
    ]  # fmt: skip
    data = sink.pack(composition.header, 0, {"components": 64, "group": 4, "bits": 8}).data
    [packet] = read_packets(BytesIO(data), composition.header)
    source = PacketSource(packet, composition.stages.entropy)
    read = encoder.read(source)
    source.finish()
    assert all(np.array_equal(read.symbols[name], values) for name, values in latent.symbols.items())


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("pca:rank=65+rans+resnet-nano@stem", "more than the 64 channels"),
        ("pca+rans+resnet-nano@stage9", "no cut"),
        ("pca:components=0+rans+resnet-nano@stem", "components"),
        ("pca+rans+vit-nano", "takes feature maps"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(spec, says):
    with pytest.raises(SpecError, match=says) as caught:
        compose_spec(spec)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("recipe", [pca, pca_adapt])
def test_calibration_on_no_images_is_refused(recipe):
    with pytest.raises(UsageError, match="no images to calibrate on"):
        recipe(job_of("pca-adapt+rans+resnet-nano@stem", 0))


# -- the 1x1 convolution ----------------------------------------------------------------------------------------------


def test_untrained_the_convolution_changes_nothing():
    x = both(1)
    plain, adapting = fitted(), fitted(PCAAdapt)
    [latent] = sent(plain, x)
    restored = adapting.restore(latent).features
    assert all(torch.allclose(restored[name], t, atol=1e-5) for name, t in plain.restore(latent).features.items())


def test_training_sees_what_the_decoder_restores():
    encoder, x = fitted(PCAAdapt), both(2)
    for layer in encoder.adapt:
        nn.init.normal_(layer.weight, std=0.2)
    counts = set()
    for seed in range(12):
        [(partial, bits)] = encoder.forward_train(x, np.random.default_rng(seed))
        assert bits is None
        count = int(np.random.default_rng(seed).choice([1, 2, 4, 8, 16, 16]))
        counts.add(count)
        for row, latent in enumerate(sent(encoder, x, components=count)):
            for name, values in encoder.restore(latent).features.items():
                assert torch.allclose(partial.features[name][row : row + 1], values, atol=1e-4)
    assert len(counts) > 2


def test_the_convolution_learns_and_nothing_else_does(tmp_path):
    job = job_of("pca-adapt+rans+resnet-nano@stem", 32)
    steps = pca_adapt(job)
    assert [step.name for step in steps] == ["covariance", "ranges", "histograms", "adapt", "end to end"]
    backbone = {name: t.clone() for name, t in job.modules["backbone"].state_dict().items()}
    fit(steps[:3], job, tmp_path / "fit")
    encoder = job.modules["encoder"]
    before = {name: t.clone() for name, t in encoder.state_dict().items()}
    fit(steps[3:4], job, tmp_path / "adapt")
    after = encoder.state_dict()
    changed = {name for name, t in before.items() if not torch.equal(after[name], t)}
    assert changed == {"adapt.0.weight", "adapt.0.bias"}
    assert all(torch.equal(job.modules["backbone"].state_dict()[name], t) for name, t in backbone.items())


def test_fitting_again_gives_the_same(tmp_path):
    found = []
    for run in ("a", "b"):
        job = job_of("pca+rans+resnet-nano@stem", 32)
        fit(fitting(job), job, tmp_path / run)
        found.append(job.modules["encoder"].state_dict())
    assert all(torch.equal(found[1][name], t) for name, t in found[0].items())


# -- what ships -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    return semcodec.compose("pca:8,bits=5+rans+resnet-nano@stem")


def test_the_embedded_default_keeps_the_accuracy(shipped):
    assert {source.shipped for source in shipped.sources.values()} == {True}
    record = shipped.evaluate("digits-scenes", limit=100)
    plain = semcodec.compose("local+resnet-nano").evaluate("digits-scenes", limit=100)
    assert record["top1"] > plain["top1"] - 0.05
    assert record["ratio_float32"] > 60
    assert 0.8 < shipped.stages.encoder.explained(8)["maps"] < 1


def test_a_packet_decodes_in_another_process(shipped, tmp_path):
    pixels, _ = open_dataset("digits-scenes", "test", shipped.request).batch(range(2))
    encoded = shipped.encode_batch(pixels, range(2))
    here = [answer.index for answer in shipped.decode_batch(shipped.records(encoded))]
    (tmp_path / "two.sem").write_bytes(shipped.stream(encoded))
    code = (
        "import sys; from semcodec.container.packets import read_stream; "
        "from semcodec.pipeline.server import Server; "
        "header, records = read_stream(open(sys.argv[1], 'rb').read()); "
        "print([p.index for p in Server.load(header).decode_batch(list(records))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "two.sem"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(here)
