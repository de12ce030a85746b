"""The video ViT is VideoMAE on 16 frames, costs less on fewer, and starts from other libraries' weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from foreign_checkpoints import NAMES, SIDE, hugging_face, image_vit, shake
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import semcodec
from semcodec.errors import WeightsError
from semcodec.pipeline import foreign, weights
from semcodec_plugins.video_vit.video import MEAN, STD, ViTNano, ViTTiny

SPEC = f"png+vit-tiny:{SIDE}"


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def clips(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16, SIDE, SIDE, 3), dtype=np.uint8)


def tail(model: nn.Module, frames: torch.Tensor, index: list[int]) -> torch.Tensor:
    """Logits of the frames ``index`` of clips (B, 16, 3, H, W)."""
    rows = torch.tensor(index).expand(len(frames), -1)
    with torch.no_grad():
        return model.tail({"frames": frames[:, index], "index": rows}, "input")


def seen(model: nn.Module, frames: torch.Tensor, index: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that enter the first block, (B, n, D), and what of them is position."""
    caught = {}
    hooks = [
        model.embed.register_forward_hook(lambda _, __, out: caught.update(embedded=out)),
        model.blocks[0].register_forward_pre_hook(lambda _, args: caught.update(tokens=args[0])),
    ]
    tail(model, frames, index)
    for hook in hooks:
        hook.remove()
    return caught["tokens"], caught["tokens"] - caught["embedded"].flatten(1, 2)


def table(positions: np.ndarray, dim: int) -> np.ndarray:
    """The lines of VideoMAE's ``get_sinusoid_encoding_table``, at any positions (N,): (N, dim)."""
    angles = np.array([[p / np.power(10000, 2 * (j // 2) / dim) for j in range(dim)] for p in positions])
    angles[:, 0::2] = np.sin(angles[:, 0::2])
    angles[:, 1::2] = np.cos(angles[:, 1::2])
    return angles


# -- VideoMAE's checkpoints -------------------------------------------------------------------------------------------


def rewrite(folder, change) -> None:
    """Save the folder's tensors anew after ``change(tensors)``."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(change(tensors), path, {"format": "pt"})


def old_names(tensors):
    """q_bias and v_bias, as checkpoints on the hub have them."""
    for name in list(tensors):
        for long, short in (("query.bias", "q_bias"), ("value.bias", "v_bias")):
            if name.endswith(long):
                tensors[name.replace(long, short)] = tensors.pop(name)
    return tensors


def new_names(tensors):
    for name in list(tensors):
        for long, short in (("query.bias", "q_bias"), ("value.bias", "v_bias")):
            if name.endswith(short):
                tensors[name.replace(short, long)] = tensors.pop(name)
    return tensors


@pytest.fixture(scope="module")
def videomae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videomae")
    return hugging_face(folder), folder


def reference(model, pixels: np.ndarray) -> np.ndarray:
    """Logits through VideoMAE's own processor, with the mean and deviation that its checkpoints on the hub name."""
    from transformers import VideoMAEImageProcessor
    from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    processor = VideoMAEImageProcessor(
        do_resize=False, do_center_crop=False, image_mean=IMAGENET_DEFAULT_MEAN, image_std=IMAGENET_DEFAULT_STD
    )
    values = torch.cat([processor(list(clip), return_tensors="pt")["pixel_values"] for clip in pixels])
    with torch.no_grad():
        return model(values).logits.numpy()


def served(pipeline, pixels: np.ndarray) -> np.ndarray:
    encoded = pipeline.encode_batch(pixels, range(len(pixels)))
    return np.stack([p.logits for p in pipeline.decode_batch(pipeline.records(encoded))])


@pytest.mark.parametrize("names", [None, old_names, new_names])
def test_logits_of_a_videomae_checkpoint(videomae, tmp_path, names):
    model, folder = videomae
    if names:
        for file in folder.iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        folder = tmp_path
        rewrite(folder, names)
        wanted, other = ("q_bias", "query.bias") if names is old_names else ("query.bias", "q_bias")
        keys = load_file(folder / "model.safetensors")
        assert any(key.endswith(wanted) for key in keys)
        assert not any(key.endswith(other) for key in keys)
    pipeline = semcodec.compose(SPEC, weights={"backbone": str(folder)})
    pixels = clips(3)
    expected = reference(model, pixels)
    assert np.ptp(expected) > 0.5  # the five logits really differ
    assert np.abs(served(pipeline, pixels) - expected).max() < 1e-4
    assert pipeline.classes == NAMES
    assert pipeline.decode(pipeline.encode(pixels[0])).name == NAMES[expected[0].argmax()]
    assert pipeline.sources["backbone"].origin == str(folder)


def test_a_checkpoint_without_biases(tmp_path):
    model = hugging_face(tmp_path, qv_bias=False)
    pipeline = semcodec.compose(SPEC, weights=str(tmp_path))
    assert np.abs(served(pipeline, clips(1)) - reference(model, clips(1))).max() < 1e-4


def refused(folder, *words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        semcodec.compose(SPEC, weights={"backbone": str(folder)})
    message = str(caught.value)
    assert message.isprintable()
    assert all(word in message for word in words), message


def test_a_checkpoint_without_mean_pooling_is_refused(tmp_path):
    hugging_face(tmp_path, use_mean_pooling=False)
    refused(tmp_path, "mean pooling", "fine-tuned")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {k: v for k, v in t.items() if not k.startswith("classifier")}, ["classifier.weight"]),
        (lambda t: {k: v for k, v in t.items() if "layer.3.attention.attention.key" not in k}, ["layer.3"]),
        (lambda t: {k: v for k, v in t.items() if ".layer." not in k}, ["blocks.0"]),
        (lambda t: {k: v for k, v in t.items() if ".layer.11." not in k}, ["blocks.11"]),
        (lambda t: {**t, "classifier.weight": torch.zeros(3, 192)}, ["classifier.bias", "(5,)", "(3,)"]),
        (lambda t: {"some.weight": torch.zeros(1)}, ["neither", "VideoMAE"]),
    ],
)
def test_a_checkpoint_that_lacks_something_is_refused(videomae, tmp_path, change, words):
    for file in videomae[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    rewrite(tmp_path, change)
    refused(tmp_path, *words)


def test_labels_that_cannot_be_read_are_done_without(videomae, tmp_path):
    for file in videomae[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for text in ('{"id2label": {"1": "run"}}', "{", "{}", '{"id2label": 3}', '{"id2label": {"0": "run"}}', "[]"):
        (tmp_path / "config.json").write_text(text)
        pipeline = semcodec.compose(f"png+vit-tiny:{SIDE}", weights={"backbone": str(tmp_path)})
        assert pipeline.classes == [f"class {i}" for i in range(5)]


def test_a_checkpoint_of_another_size_is_refused(videomae):
    with pytest.raises(WeightsError, match=r"does not fit the model: .*\(\d+.*not \("):
        semcodec.compose(f"png+vit-small:{SIDE}", weights={"backbone": str(videomae[1])})
    with pytest.raises(WeightsError, match="does not fit the model"):
        semcodec.compose(f"png+vit-nano:{SIDE}", weights={"backbone": str(videomae[1])})


# -- an image ViT's ---------------------------------------------------------------------------------------------------


def test_an_image_vit_as_weights_is_refused_with_what_to_do(tmp_path):
    path = tmp_path / "deit.safetensors"
    save_file(image_vit(depth=1), path)
    with pytest.raises(WeightsError, match="image ViT") as caught:
        semcodec.compose(SPEC, weights={"backbone": str(path)})
    assert "--init PATH" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_still_clip_embeds_as_its_picture_does():
    tensors = image_vit()
    model = ViTTiny(NAMES, side=SIDE).eval()
    own = {name: value.clone() for name, value in model.state_dict().items()}
    weights.fill(model, model.adapt_init(tensors), "deit")
    picture = torch.rand(1, 3, SIDE, SIDE)
    tokens, position = seen(model, picture[:, None].expand(-1, 16, -1, -1, -1), list(range(16)))
    normal = (picture - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    kernel, bias = tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"]
    patches = nn.functional.conv2d(normal, kernel, bias, stride=16).flatten(2).transpose(1, 2)
    embedded = (tokens - position).unflatten(1, (8, -1))
    assert (embedded - patches[:, None]).abs().max() < 1e-4
    assert patches.abs().mean() > 0.1
    state = model.state_dict()
    for name in ("blocks.7.attn.qkv.weight", "blocks.11.mlp.fc2.bias", "norm.weight"):
        assert torch.equal(state[name], tensors[name])
        assert not torch.equal(state[name], own[name])
    assert torch.equal(state["classifier.weight"], own["classifier.weight"])


def test_an_image_vits_positions_are_kept_beside_quiet_sinusoids():
    tensors = image_vit()
    whole = ViTTiny(NAMES, side=224).adapt_init(tensors)
    assert (whole["embed.place"] - tensors["pos_embed"][0, 1:]).abs().max() < 1e-5
    assert whole["embed.loudness"] < 0.2
    smaller = ViTTiny(NAMES, side=SIDE).adapt_init(tensors)["embed.place"]
    assert smaller.shape == ((SIDE // 16) ** 2, 192)
    assert (smaller.mean(0) - tensors["pos_embed"][0, 1:].mean(0)).abs().max() < 0.01
    del tensors["pos_embed"]
    with pytest.raises(WeightsError, match="pos_embed is missing"):
        ViTTiny(NAMES, side=SIDE).adapt_init(tensors)


def test_an_image_vit_of_another_size_is_refused():
    tiny, nano = ViTTiny(NAMES, side=SIDE), ViTNano(NAMES, side=SIDE)
    for model, tensors, words in (
        (tiny, image_vit(384), r"\(384, 3, 16, 16\)"),
        (tiny, image_vit(patch=8), r"\(192, 3, 8, 8\)"),
        (tiny, {"blocks.0.norm1.weight": torch.ones(192)}, "no weights of a timm image ViT"),
        (nano, image_vit(128), "convolutional stem"),
    ):
        with pytest.raises(WeightsError, match=words):
            model.adapt_init(tensors)
    for depth, word in ((11, "blocks.11.norm1.weight is missing"), (13, "blocks.12.* is not part of the model")):
        with pytest.raises(WeightsError, match=word):
            weights.fill(tiny, tiny.adapt_init(image_vit(depth=depth)), "deit")


# -- fewer frames -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    model = shake(ViTTiny(NAMES, side=SIDE), 1)
    model.embed.place.data.zero_()  # VideoMAE's positions alone
    model.embed.loudness.data.fill_(1)
    return model


def test_sixteen_frames_have_videomaes_positions(tiny):
    from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

    _, position = seen(tiny, torch.rand(2, 16, 3, SIDE, SIDE), list(range(16)))
    expected = get_sinusoid_encoding_table(8 * 4, 192)
    assert (position - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    "index",
    [[0], [9], [15], [3, 4], [0, 15], [2, 9, 11], [1, 2, 5, 13], [0, 1, 4, 5, 8, 13, 15], list(range(15))],
    ids=len,
)
def test_kept_frames_pair_into_tubelets_at_their_mean_index(tiny, index):
    frames = torch.rand(2, 16, 3, SIDE, SIDE)
    tokens, position = seen(tiny, frames, index)
    places = (SIDE // 16) ** 2
    assert tokens.shape == (2, -(-len(index) // 2) * places, 192)
    pairs = np.array([*index, index[-1]] if len(index) % 2 else index).reshape(-1, 2)
    tubelet = (pairs.mean(1) - 0.5) / 2  # frames 2t and 2t + 1, of mean 2t + 1/2, are tubelet t
    expected = table((tubelet[:, None] * places + np.arange(places)).ravel(), 192)
    assert np.abs(position[0].numpy() - expected).max() < 1e-5
    # A lone frame is one that stands still.
    normal = (frames - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        alone = tiny.embed(normal[:, pairs[-1]][:, None]).flatten(1, 2)
    assert (tokens[:, -places:] - position[:, -places:] - alone).abs().max() < 1e-4


def test_pairs_in_their_places_are_the_full_clips_tokens(tiny):
    frames = torch.rand(1, 16, 3, SIDE, SIDE)
    full, _ = seen(tiny, frames, list(range(16)))
    some, _ = seen(tiny, frames, [4, 5, 14, 15])
    assert (some.unflatten(1, (2, 4)) - full.unflatten(1, (8, 4))[:, [2, 7]]).abs().max() < 1e-5


def test_head_numbers_the_frames(tiny):
    features = tiny.head({"frames": torch.rand(2, 16, 3, SIDE, SIDE)}, "input")
    assert features["index"].tolist() == [list(range(16))] * 2
    assert features["index"].dtype == torch.int64


@pytest.mark.parametrize("model", [ViTTiny, ViTNano])
def test_fewer_frames_cost_the_server_less(model):
    model = model(NAMES, side=64).eval()
    frames = torch.rand(1, 16, 3, 64, 64)
    flops = {}
    for kept in (1, 2, 3, 4, 8, 16):
        with FlopCounterMode(display=False) as counter:
            tail(model, frames, list(range(kept)))
        flops[kept] = counter.get_total_flops()
    assert flops[1] == flops[2]
    assert flops[3] == flops[4]
    for kept in (2, 4, 8):  # attention falls with the square, all else in proportion
        assert flops[kept] <= kept / 16 * flops[16] * 1.01
        assert flops[kept] > 0.5 * kept / 16 * flops[16]


def test_a_batch_is_its_samples(tiny):
    frames = torch.rand(3, 16, 3, SIDE, SIDE)
    together = tail(tiny, frames, [1, 6, 9])
    alone = torch.cat([tail(tiny, frames[i : i + 1], [1, 6, 9]) for i in range(3)])
    assert (together - alone).abs().max() < 1e-4


def test_names_come_from_the_config_beside_the_weights(videomae):
    assert foreign.class_names(videomae[1] / "model.safetensors") == NAMES
    config = json.loads((videomae[1] / "config.json").read_text())
    assert config["id2label"]["2"] == "sit"


# -- cuts -------------------------------------------------------------------------------------------------------------


def test_cut_anywhere_it_is_the_same_model_to_the_bit():
    model = ViTNano(NAMES, side=SIDE).eval()
    frames = torch.rand(2, 16, 3, SIDE, SIDE)
    places = (SIDE // 16) ** 2
    with torch.no_grad():
        whole = model.tail(model.head({"frames": frames}, "input"), "input")
        for cut in ("embed", "block1", "block2", "block3", "block4"):
            features = model.head({"frames": frames}, cut)
            assert features["tokens"].shape == (2, 8 * places, 128)
            assert torch.equal(model.tail(features, cut), whole), cut


@pytest.mark.parametrize("kept", [1, 5, 8])
def test_dropped_frames_make_fewer_tokens_before_the_cut(kept):
    model = ViTNano(NAMES, side=SIDE).eval()
    frames, index = (
        torch.rand(2, 16, 3, SIDE, SIDE),
        sorted(np.random.default_rng(kept).permutation(16)[:kept].tolist()),
    )
    some = {"frames": frames[:, index], "index": torch.tensor(index).expand(2, -1)}
    with torch.no_grad():
        for cut in ("embed", "block2"):
            features = model.head(some, cut)
            assert features["tokens"].shape[1] == -(-kept // 2) * (SIDE // 16) ** 2
            assert torch.equal(model.tail(features, cut), tail(model, frames, index))
