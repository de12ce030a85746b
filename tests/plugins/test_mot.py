"""MOT and A-MOT: random patches in one round or two, and an autoencoder that rebuilds the rest."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch

from semcodec.coding.patches import pasted, picture_of, split, spread, whole
from semcodec.composition.composition import compose_spec
from semcodec.container.packets import read_packets
from semcodec.container.sinks import PacketSink, PacketSource
from semcodec.container.v2 import bytes_behind
from semcodec.errors import CorruptStream, SpecError
from semcodec.interfaces import Partial
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.specs import TensorSpec
from semcodec.training import loop
from semcodec.training.loop import Job
from semcodec_plugins.mot.autoencoder import MaskedAutoencoder, smooth
from semcodec_plugins.mot.recipe import recipe

RANDOM = WeightsRequest.parse(["random"])
FEATURES = {"image": TensorSpec((3, 32, 48))}


def scene(seed=0, height=96, width=96):
    y, x = np.mgrid[:height, :width] / 96
    rng = np.random.default_rng(seed)
    smooth_part = np.stack([np.sin(3 * x + rng.uniform(0, 6)), np.cos(4 * y), x * y], -1)
    image = (128 + 80 * smooth_part).astype(np.uint8)
    image[10:25, 12:30] = rng.integers(0, 256, 3)
    return image


def load(spec):
    return Pipeline.load(compose_spec(spec), RANDOM, classes=["a", "b", "c"])


def autoencoder(features=FEATURES):
    torch.manual_seed(0)
    network = MaskedAutoencoder(features, dim=64, depth=1).eval()
    torch.nn.init.normal_(network.predict.weight, std=0.05)
    return network


def holes(share, seed=1, count=2):
    """Image (count, 3, 32, 48) with whole patches of 8x8 missing, and its mask."""
    draw = torch.Generator().manual_seed(seed)
    mask = (torch.rand(count, 1, 4, 6, generator=draw) < share).float()
    present = mask.repeat_interleave(8, 2).repeat_interleave(8, 3)
    return torch.rand(count, 3, 32, 48, generator=draw) * present, present


def test_pictures_hold_the_kept_patches():
    image, mask = scene(height=32, width=48), np.random.default_rng(0).random((4, 6)) < 0.4
    picture = picture_of(image, mask, 8)
    assert picture.shape[0] * picture.shape[1] >= mask.sum() * 64
    assert np.array_equal(pasted(picture, mask, 8), image * spread(mask, 8)[..., None])
    with pytest.raises(CorruptStream, match="is due"):
        pasted(picture[8:], mask, 8)


def test_patches_on_a_grid_are_an_image_with_holes():
    image, mask = scene(height=32, width=48), np.random.default_rng(0).random((4, 6)) < 0.4
    patches = torch.from_numpy(split(image, 8)[mask]).permute(0, 3, 1, 2)[None] / 255
    index, grid = torch.from_numpy(np.flatnonzero(mask))[None], torch.from_numpy(mask)[None]
    partial = whole(Partial({"patches": patches, "index": index, "grid": grid}))
    expected = torch.from_numpy(image * spread(mask, 8)[..., None]).permute(2, 0, 1) / 255
    assert torch.equal(partial.features["image"][0], expected)
    assert torch.equal(partial.present["image"][0, 0] > 0, torch.from_numpy(spread(mask, 8)))


def test_what_came_passes_and_the_rest_depends_on_it():
    network = autoencoder()
    image, present = holes(0.5)
    with torch.no_grad():
        out = network.recover(Partial({"image": image}, {"image": present}))["image"]
        other = network.recover(Partial({"image": image.flip(0)}, {"image": present}))["image"]
    kept = present.expand_as(image) > 0
    assert torch.equal(out[kept], image[kept])
    assert not torch.allclose(out[~kept], other[~kept])
    assert 0 <= out.min() <= out.max() <= 1


def test_samples_that_keep_different_numbers_go_together():
    network = autoencoder()
    few, many = holes(0.2, count=1), holes(0.9, seed=2, count=1)
    together = [torch.cat(pair) for pair in zip(few, many, strict=True)]
    with torch.no_grad():
        both = network.recover(Partial({"image": together[0]}, {"image": together[1]}))["image"]
        alone = [network.recover(Partial({"image": i}, {"image": p}))["image"] for i, p in (few, many)]
    assert torch.allclose(both, torch.cat(alone), atol=1e-5)


def test_smooth_fill_of_a_ramp_is_nearly_the_ramp():
    ramp = torch.linspace(0, 1, 48).expand(1, 3, 32, 48).contiguous()
    _, present = holes(0.6, count=1)
    filled = smooth(ramp * present, present)
    assert torch.equal(filled[present.expand_as(ramp) > 0], ramp[present.expand_as(ramp) > 0])
    mean = (ramp * present).sum() / (3 * present.sum())
    missing = 1 - present
    assert ((filled - ramp) * missing).abs().sum() < 0.4 * ((mean - ramp) * missing).abs().sum()
    assert torch.equal(smooth(ramp * 0, present * 0), torch.full_like(ramp, 0.5))


def test_training_beats_the_smooth_fill(tmp_path):
    class Scenes:
        name, classes, varies = "scenes", ["a"], False

        def __len__(self):
            return 64

        def batch(self, rows):
            return np.stack([scene(row, 32, 48) for row in rows]), np.zeros(len(rows), np.int64)

    torch.manual_seed(0)
    network = MaskedAutoencoder(FEATURES, dim=64, depth=1)
    job = Job({"recoverer": network}, Scenes(), ready=frozenset({"backbone"}))
    steps = recipe(job)
    steps[0].samples = 32 * 80
    [last] = loop.fit(steps, job, tmp_path, half=False)
    assert last["mse"] < 0.9 * last["smooth fill"], last


def test_mot_sends_what_its_budget_says_at_random():
    pipeline = load("mot:40+vit-nano-server")
    assert pipeline.composition.recoverer.name == "mae"
    assert pipeline.composition.stages.recovered == {"image": TensorSpec((3, 96, 96))}
    records = pipeline.encode_batch(np.stack([scene(), scene()]), [0, 1])
    assert [r.kept for r in records] == [{"keep": 40}] * 2
    assert records[0].data != records[1].data  # of one image: another draw for another sample
    assert pipeline.decode(records[0]).logits.shape == (3,)


ADAPTIVE = "a-mot:first=30,keep=70,side=8"


@pytest.mark.parametrize("patches", ["raw", "webp", "jpeg", "avif"])
def test_a_second_round_is_sent_only_where_the_server_doubts(patches):
    sure, unsure = (load(f"{ADAPTIVE},patches={patches},sure={s}+vit-nano-server") for s in ("100.0", "0.0"))
    one, two = sure.encode(scene()), unsure.encode(scene())
    assert one.kept["keep"] == 30
    assert two.kept["keep"] == 70
    assert one.bytes_total < two.bytes_total
    for pipeline, record, count in ((sure, one, 30), (unsure, two, 70)):
        partial = restored(pipeline, record.data)
        assert partial.features["patches"].shape == (1, count, 3, 8, 8)
        true = torch.from_numpy(scene()).permute(2, 0, 1)[None] / 255
        image, present = whole(partial).features["image"], whole(partial).present["image"]
        error = (image - true * present).abs().sum() / (3 * present.sum())
        assert error < (1e-6 if patches == "raw" else 0.08)


def test_rounds_are_layers_and_both_are_counted():
    pipeline = load(f"{ADAPTIVE},sure=0.0+vit-nano-server")
    record = pipeline.encode(scene())
    assert sum(row.bytes for row in record.rows) + record.bytes_header == len(record.data)
    assert {row.layer for row in record.rows} == {0, 1}
    assert next(row.name for row in record.rows if row.layer == 1) == "reply"
    [packet] = pipeline.records([record])
    tail = bytes_behind(packet, 1)
    partial = restored(pipeline, record.data[:-tail])
    assert partial.features["patches"].shape[1] == 30
    assert pipeline.decode(record.data[:-tail]).layers == (1, 2)


def test_the_second_round_of_another_image_is_refused():
    pipeline = load(f"{ADAPTIVE},sure=0.0+vit-nano-server")
    encoder = pipeline.stages.encoder
    x = pipeline.features(scene()[None])
    masks = {t: torch.arange(144)[None] < n for t, n in (("first", 30), ("keep", 70))}
    [latent] = encoder.encode(x, encoder.analyse(x), masks, dict(pipeline.composition.call))

    class Swapped:
        def __init__(self, source):
            self.source, self.params, self.symbols = source, source.params, source.symbols
            self.layer = source.layer

        def blob(self, name, most):
            data = self.source.blob(name, most)
            return data[:1] + bytes(4) if name == "reply" else data

    sink = PacketSink(pipeline.stages.entropy)
    encoder.write(latent, sink)
    data = sink.pack(pipeline.header, 0, dict(pipeline.composition.call)).data
    [packet] = read_packets(BytesIO(data), pipeline.header)
    with pytest.raises(CorruptStream, match="another first"):
        encoder.read(Swapped(PacketSource(packet, pipeline.stages.entropy)))


def restored(pipeline, data):
    [packet] = read_packets(BytesIO(data), pipeline.header)
    source = PacketSource(packet, pipeline.stages.entropy)
    latent = pipeline.stages.encoder.read(source)
    source.finish()
    return pipeline.stages.encoder.restore(latent)


def test_what_does_not_fit_is_refused():
    with pytest.raises(SpecError, match="counts both rounds"):
        compose_spec("a-mot:first=80,keep=40,side=8+vit-nano-server")
    with pytest.raises(SpecError, match="patches of 14x14"):
        compose_spec("a-mot:side=14+vit-nano-server")
    with pytest.raises(SpecError, match="multiple of 32"):
        compose_spec("mot:side=8+mae:dim=100+vit-nano-server")
