"""SDT: a poor image, the server's reply, and the patches that it asked for."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch

from semcodec.composition.composition import compose_spec
from semcodec.container.packets import read_packets
from semcodec.container.sinks import PacketSource
from semcodec.container.v2 import bytes_behind
from semcodec.errors import SpecError, UsageError
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest

RANDOM = WeightsRequest.parse(["random"])


def scene(seed=0):
    y, x = np.mgrid[:96, :96] / 96
    rng = np.random.default_rng(seed)
    image = (128 + 80 * np.stack([np.sin(9 * x + seed), np.cos(7 * y), x * y], -1)).astype(np.uint8)
    image[20:60, 30:50] = rng.integers(0, 256, (40, 20, 3))
    return image


def load(args, server="vit-nano-server"):
    return Pipeline.load(compose_spec(f"sdt:{args}+{server}"), RANDOM, classes=["a", "b", "c"])


def received(pipeline, data):
    [packet] = read_packets(BytesIO(data), pipeline.header)
    source = PacketSource(packet, pipeline.stages.entropy)
    latent = pipeline.stages.encoder.read(source)
    source.finish()
    return latent, pipeline.stages.encoder.restore(latent).features["image"]


def test_the_server_is_the_pipelines_own_model_unless_another_is_named():
    own, other = load("keep=20"), load("keep=20,server=vit-nano-edge")
    assert own.stages.encoder.server is own.stages.backbone
    assert other.stages.encoder.server is not other.stages.backbone
    assert type(other.stages.encoder.server).__name__ == "ViTNanoEdge"
    assert not own.header.weights  # what asks is not needed to decode


@pytest.mark.parametrize("patches", ["raw", "webp", "jpeg", "avif"])
def test_asked_patches_are_pasted_over_the_enlarged_image(patches):
    pipeline = load(f"keep=30,sure=0.0,patches={patches},detail=90")
    record = pipeline.encode(scene())
    latent, image = received(pipeline, record.data)
    mask = latent.symbols["asked"]
    assert mask.sum() == record.kept["keep"] == 30
    there = torch.from_numpy(mask.repeat(8, 0).repeat(8, 1))
    true = torch.from_numpy(scene()).permute(2, 0, 1) / 255
    poor = pipeline.stages.encoder._enlarge(latent.side["first"])[0]
    error = (image[0] - true).abs().mean(0)
    assert torch.equal(image[0][:, ~there], poor[:, ~there])
    if patches == "raw":
        assert error[there].max() < 1e-6
    assert error[there].mean() < (poor - true).abs().mean(0)[there].mean()


def test_the_patches_asked_for_are_those_of_most_attention_on_the_poor_image():
    pipeline = load("keep=10,sure=0.0")
    latent, _ = received(pipeline, pipeline.encode(scene()).data)
    poor = pipeline.stages.encoder._enlarge(latent.side["first"])
    with torch.inference_mode():
        _, attention = pipeline.stages.backbone.attend({"image": poor})
    assert set(np.flatnonzero(latent.symbols["asked"])) == set(attention[0].topk(10).indices.tolist())


@pytest.mark.parametrize("coding", ["raw", "webp"])
def test_chunks_keep_their_names(coding):
    """Checksums run over them, so that another name is another format."""
    rows = load(f"keep=10,sure=0.0,patches={coding}").encode(scene()).rows
    second = ["second"] if coding == "webp" else ["second.tables", *(f"second.{step}" for step in range(7))]
    assert [row.name for row in rows] == ["first", "reply", "asked", "asked.0", *second]


def test_a_sure_server_asks_for_nothing():
    sure, unsure = load("keep=30,sure=100.0"), load("keep=30,sure=0.0")
    one, two = sure.encode(scene()), unsure.encode(scene())
    assert one.kept == {"keep": 0}
    assert [row.name for row in one.rows] == ["first", "reply"]
    assert one.bytes_total < two.bytes_total
    assert sum(row.bytes for row in two.rows) + two.bytes_header == len(two.data)
    latent, image = received(sure, one.data)
    assert torch.equal(image, sure.stages.encoder._enlarge(latent.side["first"]))


def test_the_first_round_alone_decodes():
    pipeline = load("keep=30,sure=0.0")
    record = pipeline.encode(scene())
    [packet] = pipeline.records([record])
    cut = record.data[: -bytes_behind(packet, 1)]
    prediction = pipeline.decode(cut)
    assert prediction.layers == (1, 2)
    latent, image = received(pipeline, cut)
    assert torch.equal(image, pipeline.stages.encoder._enlarge(latent.side["first"]))


def test_a_coarser_first_image_costs_less():
    sizes = [load(f"scale={scale},sure=100.0").encode(scene()).bytes_total for scale in (1, 2, 4)]
    assert sizes == sorted(sizes, reverse=True)


def test_other_selectors_choose_what_is_asked_for():
    pipeline = Pipeline.load(
        compose_spec("sdt:sure=0.0+attention-sum:0.3+vit-nano-server"), RANDOM, classes=["a", "b", "c"]
    )
    assert 0 < pipeline.encode(scene()).kept["keep"] < 144


def test_what_does_not_fit_is_refused():
    with pytest.raises(SpecError, match="made for classification"):
        compose_spec("sdt+vit-nano")
    with pytest.raises(SpecError, match="its server takes"):
        compose_spec("sdt:server=vit-nano-edge+deit-tiny")
    encoder = load("keep=20").stages.encoder
    with pytest.raises(UsageError, match="NaN"):
        encoder.analyse({"image": torch.full((1, 3, 96, 96), float("nan"))})
