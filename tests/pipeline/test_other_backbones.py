"""An Encoder's weights that learned behind one head, used with another backbone that has the same head."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import semcodec
from semcodec.errors import WeightsError
from semcodec.pipeline.device import Device
from semcodec.pipeline.server import Server
from semcodec.pipeline.weights import WeightsRequest
from semcodec.training import train

SPEC, EMBEDS = "layered:blocks=1,levels=2+timm/test_vit@block2", "layered:blocks=1,levels=2+timm-embed/test_vit@block2"
SEVERAL = f"{SPEC}+timm-embed/test_vit@block2"
SMALL = 1 / 1600  # of the samples: about a batch or two a step


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A ViT of timm's, another with another head, and what ``layered`` learned behind the first."""
    import timm

    root = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    state = timm.create_model("test_vit", num_classes=3).state_dict()
    save_file(state, root / "vit.safetensors")
    save_file({**state, "cls_token": state["cls_token"] + 1}, root / "other.safetensors")
    (root / "pictures").mkdir()
    draw = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(draw.integers(0, 256, (160, 160, 3), dtype=np.uint8)).save(root / "pictures" / f"{i}.png")
    request = WeightsRequest({"backbone": str(root / "vit.safetensors")}, True)
    train.train(SPEC, str(root / "pictures"), root / "run", request=request, objective="distil", scale=SMALL)
    return root


@pytest.fixture
def pixels():
    return np.random.default_rng(1).integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)


def given(files, backbone="vit"):
    return {"backbone": str(files / f"{backbone}.safetensors"), "encoder": str(files / "run")}


def test_the_card_names_the_head(files):
    assert len(json.loads((files / "run" / "card.json").read_text())["head"]) == 16


def test_the_same_head_is_served_by_one_encoder(files, pixels):
    first, second = semcodec.compose(SPEC, weights=given(files)), semcodec.compose(EMBEDS, weights=given(files))
    assert (first.composition.task, second.composition.task) == ("classification", "retrieval")
    encoded = [pipeline.encode_batch(pixels, [0, 1]) for pipeline in (first, second)]
    chunks = [[one.data[:-4] for one in some] for some in encoded]  # checksums are of the stream's header as well
    assert chunks[0] == chunks[1]
    assert len(second.decode_batch(second.records(encoded[1]))) == 2


@pytest.mark.parametrize("load", [semcodec.compose, Device.load, Server.load])
def test_another_head_is_refused_by_each_end(files, load):
    with pytest.raises(WeightsError, match="learned behind another head than timm-embed/test_vit's up to block2"):
        load(EMBEDS, weights=given(files, "other"))


def test_a_stream_for_both_takes_it_as_well(files, pixels):
    vit, encoder = str(files / "vit.safetensors"), str(files / "run")
    weights = {"timm/test_vit": vit, "timm-embed/test_vit": vit, "encoder": encoder}
    pipeline = semcodec.compose(SEVERAL, weights=weights)
    records = pipeline.records(pipeline.encode_batch(pixels, [0, 1]))
    for task in ("classification", "retrieval"):
        assert len(pipeline.alone(task).decode_batch(records)) == 2


def test_an_encoder_of_another_cut_is_not_taken(files):
    with pytest.raises(WeightsError, match="holds no weights of"):
        semcodec.compose(EMBEDS.replace("block2", "block1"), weights=given(files))
