"""Learned image codecs: CompressAI's models, their integers through our stages, their checkpoints, their traps."""

from __future__ import annotations

import pickle
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tape import Tape

from semcodec.composition.composition import compose_spec
from semcodec.composition.registry import get_registry
from semcodec.errors import CorruptStream, UsageError, WeightsError
from semcodec.interfaces import Analysis
from semcodec.pipeline import weights
from semcodec.specs import SpecMismatch, TensorSpec
from semcodec.testing import outcomes
from semcodec.training.loop import Batch, Job

pytest.importorskip("compressai", reason="pip install 'semcodec[learned]'")

from semcodec_plugins.entropy.arithmetic import Rans
from semcodec_plugins.learned import network, recipe, spec
from semcodec_plugins.learned.coder_bridge import Written, on
from semcodec_plugins.learned.encoder import Learned

SIZE = (3, 70, 33)
FEATURES = {"image": TensorSpec(SIZE)}


pytestmark = pytest.mark.usefixtures("one_thread")


def build(name, features=FEATURES, seed=0, **params):
    size = "16" if spec.MODELS[name].one else "8-16"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Learned(features, **{"model": name, "quality": 1, "metric": "mse", "size": size, **params}).eval()


def image(*shape, seed=0):
    return torch.rand(shape or (1, *SIZE), generator=torch.Generator().manual_seed(seed))


def louder(encoder, by=40.0):
    """Latents of untrained models are nearly all zero: larger ones say more."""
    with torch.no_grad():
        [module for module in encoder.net.g_a if isinstance(module, torch.nn.Conv2d)][-1].weight.mul_(by)
    return encoder


class Wire(Tape):
    """A tape that weighs symbols by rANS, which has an escape."""

    def symbols(self, name, values, prior, *, side=False):
        if not self._writing:
            return super().symbols(name, values, prior)
        self.chunks.append([name, values.copy(), side, len(Rans().encode(values, prior))])
        return None


def encode(encoder, x):
    return encoder.encode({"image": x}, Analysis({"image": x}), {}, {})


def send(encoder, latent):
    tape = Wire()
    encoder.write(latent, tape)
    return tape


def receive(encoder, tape):
    return encoder.restore(encoder.read(tape.rewind())).features["image"]


def theirs(name, encoder):
    """CompressAI's own model with the same weights, its own coder and tables."""
    from compressai.registry import MODELS

    net = MODELS[name](16) if spec.MODELS[name].one else MODELS[name](8, 16, *_groups(encoder))
    state = {n: t for n, t in encoder.net.state_dict().items() if n in net.state_dict()}
    net.load_state_dict({**net.state_dict(), **state})
    net.update(force=True)
    return net.eval()


def _groups(encoder):
    return [encoder.net.groups] if hasattr(encoder.net, "groups") else []


@pytest.mark.parametrize("name", spec.MODELS)
def test_every_model_sends_an_image_of_odd_size(name):
    encoder = louder(build(name))
    x = image()
    [latent] = encode(encoder, x)
    tape = send(encoder, latent)
    due = encoder.restore(latent).features["image"]
    assert due.shape == x.shape
    assert torch.equal(receive(encoder, tape), due)
    assert any(array.any() for array in latent.symbols.values())
    checked = spec.MODELS[name].context in (spec.CHECKERBOARD, spec.RASTER)
    assert (tape.chunks[-1][0] == "check") == checked
    again = send(encoder, encode(encoder, x)[0])
    for a, b in zip(tape.chunks, again.chunks, strict=True):
        assert np.array_equal(a[1], b[1])


@pytest.mark.parametrize("name", [n for n in spec.MODELS if n not in ("cheng2020-attn", "elic2022-chandelier")])
def test_what_is_decoded_is_what_compressai_decodes(name):
    """To the bit, but for means of y, which are of sums in another order or of a network in integers."""
    encoder = louder(build(name), 4.0)
    net = theirs(name, encoder)
    x = image()
    with torch.no_grad():
        sent = net.compress(encoder._padded(x))
        wanted = net.decompress(sent["strings"], sent["shape"])["x_hat"][:, :, : SIZE[1], : SIZE[2]]
    [latent] = encode(encoder, x)
    tape = send(encoder, latent)
    got = receive(encoder, tape)
    if name.startswith("mbt2018"):
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)
    else:
        assert torch.equal(got, wanted)
    if encoder.model.context != spec.CHECKERBOARD:  # untrained, its tables fit so badly that escapes cost most
        own = sum(len(string[0]) for string in sent["strings"])
        assert tape.payload < 1.1 * own + 40


@pytest.mark.parametrize("name", ["bmshj2018-factorized", "mbt2018-mean", "mbt2018"])
def test_images_restored_together_are_those_restored_alone(name):
    encoder = build(name)
    latents = [encode(encoder, image(seed=seed))[0] for seed in range(6)]
    for one, several in zip(map(encoder.restore, latents), encoder.restore_batch(latents), strict=True):
        torch.testing.assert_close(several.features["image"], one.features["image"], atol=1e-6, rtol=0)


def test_a_scale_network_in_integers_is_the_network():
    encoder = build("mbt2018-mean", seed=3)
    z = torch.randint(-20, 20, (2, 8, 2, 3), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        floats = encoder.net.h_s(z)
        with on(Written()):
            exact = encoder.net.h_s(z)
            permuted = encoder.net.h_s(z.flip(0)).flip(0)
    torch.testing.assert_close(exact, floats, atol=0.02, rtol=0.01)
    assert torch.equal(exact, permuted)
    assert torch.equal(exact * 2**network.VALUES, (exact * 2**network.VALUES).round())


@pytest.mark.parametrize("name", ["bmshj2018-factorized", "mbt2018", "elic2022-official"])
def test_nan_and_huge_values_are_refused_and_never_hang(name):
    encoder = build(name)
    for bad in (float("nan"), float("inf")):
        x = image()
        x[0, 1, 3, 3] = bad
        with pytest.raises(UsageError, match="NaN or infinity"):
            encode(encoder, x)
    for by in (1e12, float("nan")):
        with pytest.raises(UsageError, match="look at the input or weights"):
            encode(louder(deepcopy(encoder), by), image())


@pytest.mark.parametrize("name", ["bmshj2018-hyperprior", "mbt2018", "elic2022-official"])
def test_damaged_bytes_end_in_one_line(name):
    small = (3, 20, 33)
    encoder = louder(build(name, {"image": TensorSpec(small)}))
    tape = send(encoder, encode(encoder, image(1, *small))[0])
    rng = np.random.default_rng(0)
    refused = 0
    for chunk in (*tape.chunks[:5], tape.chunks[-1]):
        good = chunk[1]
        if isinstance(good, bytes):
            bads = (b"", good[:1], good[:4], rng.bytes(8), rng.bytes(len(good)), good + bytes(4))
        else:
            bads = (good * 0 + 2**31 - 1, rng.integers(-(2**31), 2**31, good.size).astype(np.int32), good[:-1])
        for bad in bads:
            chunk[1] = bad
            try:
                assert torch.isfinite(receive(encoder, tape)).all()
            except CorruptStream:
                refused += 1
        chunk[1] = good
    assert refused > 3
    receive(encoder, tape)


def test_networks_that_round_otherwise_are_noticed():
    encoder = louder(build("mbt2018"))
    tape = send(encoder, encode(encoder, image())[0])
    tape.chunks[-1][1] = bytes(4)
    with pytest.raises(CorruptStream, match="round otherwise than the sender's"):
        receive(encoder, tape)


def test_a_copy_codes_as_the_original():
    encoder = louder(build("bmshj2018-hyperprior"))
    tape = send(encoder, encode(encoder, image())[0])
    for copy in (deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(receive(copy, tape), receive(encoder, tape))


@pytest.mark.parametrize("shape", [(1, 1), (1, 65), (16, 16)])
def test_the_smallest_images(shape):
    encoder = build("bmshj2018-hyperprior", {"image": TensorSpec((3, *shape))})
    [latent] = encode(encoder, image(1, 3, *shape))
    assert receive(encoder, send(encoder, latent)).shape == (1, 3, *shape)


@pytest.mark.parametrize("update", [True, False])
def test_a_checkpoint_of_compressai_is_read(update, tmp_path):
    from compressai.models import ScaleHyperprior

    torch.manual_seed(7)
    net = ScaleHyperprior(8, 16)
    with torch.no_grad():
        net.entropy_bottleneck.quantiles[:, 0, 1] = 0.25
    if update:
        net.update(force=True)
    path = tmp_path / "own.pth.tar"
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, path)
    encoder = build("bmshj2018-hyperprior")
    assert weights.read_card(path) == {}
    weights.load(encoder, weights.Weights("encoder", str(path), path))
    assert torch.equal(encoder.net.g_a[0].weight, net.g_a[0].weight)
    assert (encoder.net.entropy_bottleneck.quantiles[:, 0, 1] == 0.25).all()
    if update:
        cdf = net.entropy_bottleneck._quantized_cdf[0]
        low = int(net.entropy_bottleneck._offset[0]) + 127
        assert encoder.counts[0, low : low + 3].tolist() == cdf[:4].diff().tolist()
    [latent] = encode(encoder, image())
    receive(encoder, send(encoder, latent))
    with pytest.raises(WeightsError, match="does not fit the model"):
        weights.load(build("bmshj2018-factorized"), weights.Weights("encoder", str(path), path))


def test_what_is_no_checkpoint_of_tensors_is_one_line(tmp_path):
    path = tmp_path / "code.pth.tar"
    for content in (b"nothing", pickle.dumps(print)):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="no readable checkpoint of tensors"):
            weights.read_tensors(path)
    torch.save({"state_dict": {"x": "text"}}, path)
    with pytest.raises(WeightsError, match="no state_dict of tensors"):
        weights.read_tensors(path)


def test_published_weights_are_those_of_the_zoo_and_offline_is_one_line(monkeypatch, tmp_path):
    from compressai.zoo.image import cfgs, model_urls

    for name, known in model_urls.items():
        for metric, urls in known.items():
            for quality, url in urls.items():
                params = {"model": name, "metric": metric, "quality": quality, "size": None}
                assert spec.published(**params) == url
                assert spec.channels(params) == (*cfgs[name][quality], *cfgs[name][quality])[:2]
    assert spec.published(model="elic2022-official", metric="mse", quality=1, size=None) is None
    assert spec.published(model="mbt2018", metric="mse", quality=1, size="8-16") is None
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path))

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("semcodec.pipeline.hub.unreachable", lambda address: None)
    composition = compose_spec("learned/mbt2018-mean:quality=2+resnet-nano", get_registry())
    with pytest.raises(WeightsError, match=r"mbt2018-mean-2-\w+.pth.tar cannot be fetched \(no network\)"):
        weights.find(composition, "encoder", weights.WeightsRequest())
    assert weights.find(composition, "encoder", weights.WeightsRequest(offline=True)) is None
    found = weights.find(composition, "encoder", weights.WeightsRequest({"encoder": "random"}))
    assert found is not None and found.path is None


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"model": "bmshj2018-factorised"}, "did you mean bmshj2018-factorized"),
        ({"model": "cheng2020-attn", "quality": 7}, "qualities of 1 to 6"),
        ({"size": "8"}, None),
        ({"size": "eight"}, "size is N-M"),
        ({"size": "513"}, "2 to 512 channels"),
        ({"size": "99999999"}, "2 to 512 channels"),
        ({"model": "cheng2020-attn", "size": "8-16"}, "size is N"),
        ({"size": "8-15"}, "even number"),
        ({"features": {"frames": TensorSpec((4, 3, 8, 8))}}, "takes an RGB image"),
        ({"features": {"image": TensorSpec((3, None, 8))}}, "known size"),
    ],
)
def test_the_spec_refuses(params, reason):
    params = {"model": "bmshj2018-factorized", "quality": 3, "metric": "mse", "size": None, **params}
    features = params.pop("features", FEATURES)
    if reason is None:
        assert spec.encoder(features, params).latent["y"].shape == (8, 5, 3)
        return
    with pytest.raises(SpecMismatch, match=reason):
        spec.encoder(features, params)


@pytest.mark.parametrize("name", ["bmshj2018-factorized", "mbt2018-mean", "cheng2020-anchor-checkerboard"])
def test_training_for_the_task_sees_what_the_decoder_restores(name):
    """Rounded latents, and a gradient that does not know it."""
    encoder = louder(build(name), 4.0)
    x = image()
    due = encoder.restore(encode(encoder, x)[0]).features["image"]
    encoder.train()
    [(partial, bits)] = encoder.forward_train({"image": x}, np.random.default_rng(0))
    assert (partial.features["image"] - due).abs().max() < 1e-3
    (partial.features["image"].square().mean() + bits.mean()).backward()
    assert all(p.grad.abs().max() > 0 for p in encoder.net.g_a.parameters() if p.ndim > 1)
    [(noisy, again)] = encoder.noisy({"image": x}, np.random.default_rng(0))
    assert again.item() == pytest.approx(bits.item(), rel=0.01)
    if name != "cheng2020-anchor-checkerboard":  # which rounds anyway
        assert (noisy.features["image"] - due).abs().max() > 1e-3


class Plain:
    """Smooth pictures, without labels of any use."""

    varies = False

    def __len__(self):
        return 16

    def batch(self, rows):
        y, x = np.mgrid[:32, :32]
        pictures = [128 + 60 * np.sin((x + 3 * row) / 9) + 60 * np.cos((y - row) / 7) for row in rows]
        pixels = np.repeat(np.stack(pictures)[:, :, :, None], 3, 3)
        return pixels.astype(np.uint8), np.zeros(len(rows), np.int64)


def test_the_recipe_trains_for_pixels():
    encoder = build("bmshj2018-factorized", {"image": TensorSpec((3, 32, 32))}, quality=3, size="4-8")
    dataset = Plain()
    job = Job({"encoder": encoder, "backbone": torch.nn.Identity()}, dataset, ready=frozenset({"backbone"}))
    [step] = recipe.recipe(job)
    before = encoder.counts.clone()
    pixels = torch.from_numpy(dataset.batch(range(4))[0]).movedim(-1, 1) / 255
    optimiser = torch.optim.Adam(torch.nn.ModuleList(step.learn).parameters(), 2e-2)
    encoder.train()
    losses = []
    for i in range(80):
        loss, figures = step.loss(Batch(pixels, None, np.random.default_rng(i), range(4)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    assert set(figures) == {"mse", "bpp"}
    encoder.requires_grad_(False).eval()
    step.finish()
    assert not torch.equal(before, encoder.counts)
    [latent] = encode(encoder, pixels[:1])
    tape = send(encoder, latent)
    assert torch.equal(receive(encoder, tape), encoder.restore(latent).features["image"])
    # The estimate of training is what the tables cost.
    with torch.no_grad():
        [(_, bits)] = encoder.forward_train({"image": pixels[:1]}, np.random.default_rng(0))
    assert tape.bytes == pytest.approx(float(bits) / 8, rel=0.1, abs=8)


@pytest.mark.slow
@pytest.mark.parametrize("name", spec.MODELS)
def test_conformance(name):
    record = get_registry().find(f"learned/{name}", "encoder")
    size = "16" if spec.MODELS[name].one else "8-16"
    params = {"size": {"default": size}, "quality": {"values": (3,), "low": 3, "high": 3}}
    record = replace(record, params=tuple(replace(p, **params.get(p.name, {})) for p in record.params))
    failed = [(outcome.check, outcome.reason) for outcome in outcomes(record) if outcome.result == "failed"]
    assert not failed
