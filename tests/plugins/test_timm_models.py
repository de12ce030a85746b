"""timm's classifiers: some patches alone, the class token's attention, pixels and names by timm's own config."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from semcodec.component import Component
from semcodec.composition.registry import get_registry
from semcodec.errors import SemcodecError, UsageError, WeightsError
from semcodec.pipeline import sequential_graph
from semcodec.pipeline.weights import fill
from semcodec.training.loop import Batch, Job
from semcodec_plugins.timm_models import spec, tokens
from semcodec_plugins.timm_models.backbone import DeiTTiny, ImageClassifier, TimmBackbone
from semcodec_plugins.timm_models.builtin import CONFIG, OFFSETS, ViTNanoEdge
from semcodec_plugins.timm_models.recipe import recipe

CLASSES = [f"class {i}" for i in range(7)]
SMALL = {
    "input_size": (3, 64, 64),
    "crop_pct": 0.875,
    "interpolation": "bilinear",
    "mean": (0.5,) * 3,
    "std": (0.2,) * 3,
}
SHAPE = {"img_size": 64, "depth": 3, "num_classes": len(CLASSES)}


def small(name: str = "vit_tiny_patch16_224", **options: Any) -> ImageClassifier:
    """A ViT of 16 patches whose positions and prefix tokens are far from zero."""
    torch.manual_seed(0)
    model = timm.create_model(name, **SHAPE, **options)
    for parameter_name, parameter in model.named_parameters():
        if "token" in parameter_name or "pos_embed" in parameter_name:
            torch.nn.init.normal_(parameter)
        elif "head" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.5)
    return ImageClassifier(CLASSES, model, SMALL).eval().requires_grad_(False)


def patches(image: Tensor, side: int, index: Tensor) -> dict[str, Tensor]:
    grid = image.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    return {"patches": grid[torch.arange(len(image))[:, None], index], "index": index}


def raster(model: ImageClassifier, batch: int) -> Tensor:
    return torch.arange(model.model.patch_embed.num_patches).expand(batch, -1)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


VITS = {
    "plain": {},
    "distilled": {"name": "deit_tiny_distilled_patch16_224"},
    "registers": {"reg_tokens": 4, "no_embed_class": True},
    "unpositioned class": {"no_embed_class": True},
    "mean of tokens": {"class_token": False, "global_pool": "avg"},
    "normed before": {"pre_norm": True},
}


@pytest.fixture(scope="module", params=VITS.values(), ids=VITS)
def vit(request: pytest.FixtureRequest) -> ImageClassifier:
    return small(**request.param)


def test_all_patches_are_the_whole_image(vit: ImageClassifier, image: Tensor):
    whole = vit.tail({"image": image}, "input")
    torch.testing.assert_close(vit.tail(patches(image, 16, raster(vit, 3)), "input"), whole, atol=1e-5, rtol=0)


def test_cut_anywhere_it_is_the_same_model_to_the_bit(vit: ImageClassifier, image: Tensor):
    whole = vit.model(vit.normalised(image))
    cuts = vit.spec.cuts
    assert list(cuts) == ["input", "embed", "block1", "block2", "block3"]
    assert cuts["block2"]["tokens"].grid == (4, 4)
    for cut in cuts:
        features = vit.head({"image": image}, cut)
        assert {name: tensor.shape[1:] for name, tensor in features.items()} == {
            n: s.shape for n, s in cuts[cut].items()
        }
        assert torch.equal(vit.tail(features, cut), whole), cut
    for cut, to in itertools.pairwise(cuts):
        there = vit.advance(vit.head({"image": image}, cut), cut, to)
        assert all(torch.equal(there[name], tensor) for name, tensor in vit.head({"image": image}, to).items())


def test_kept_patches_alone_go_through_every_cut(vit: ImageClassifier, image: Tensor):
    some = patches(image, 16, torch.tensor([[1, 4, 5, 14], [0, 2, 9, 15], [3, 6, 7, 8]]))
    answer = vit.tail(some, "input")
    for cut in list(vit.spec.cuts)[1:]:
        features = vit.head(some, cut)
        assert features["tokens"].shape[1] == 4
        assert torch.equal(vit.tail(features, cut), answer), cut
        assert torch.equal(features["index"], some["index"])
        samples = [{name: t[row : row + 1, : 2 + row] if name in ("tokens", "index") else t[row : row + 1]
                    for name, t in features.items()} for row in range(3)]  # fmt: skip
        for rows, batch in vit.collate(samples):
            alone = torch.cat([vit.tail(samples[row], cut) for row in rows])
            torch.testing.assert_close(vit.tail(batch, cut), alone, atol=1e-5, rtol=0)


def test_patches_may_come_in_any_order(vit: ImageClassifier, image: Tensor):
    whole = vit.tail({"image": image}, "input")
    some = patches(image, 16, raster(vit, 3).flip(1))
    torch.testing.assert_close(vit.tail(some, "input"), whole, atol=1e-5, rtol=0)


def test_some_patches_are_the_tokens_that_the_whole_has_less_those_left_out(vit: ImageClassifier, image: Tensor):
    """The reference embeds the whole image and drops tokens after positions, as timm's own modules run."""
    index = torch.tensor([[1, 4, 5, 14], [0, 2, 9, 15], [3, 6, 7, 8]])
    model, prefix = vit.model, vit.model.num_prefix_tokens
    x = model._pos_embed(model.patch_embed((image - 0.5) / 0.2))
    rows = torch.cat([torch.arange(prefix).expand(3, -1), index + prefix], 1)
    x = x[torch.arange(3)[:, None], rows]
    expected = model.forward_head(model.norm(model.blocks(model.norm_pre(x))))
    torch.testing.assert_close(vit.tail(patches(image, 16, index), "input"), expected, atol=1e-5, rtol=0)


def test_samples_of_different_counts_answer_as_each_alone_and_in_order(vit: ImageClassifier, image: Tensor):
    counts = [12, 1, 5, 16, 6]
    samples = [patches(image[i % 3 : i % 3 + 1], 16, torch.arange(count)[None]) for i, count in enumerate(counts)]
    samples.append({"image": image[:1]})
    out = torch.empty(len(samples), len(CLASSES))
    for rows, batch in vit.collate(samples):
        out[rows] = vit.tail(batch, "input")
    alone = torch.cat([vit.tail(sample, "input") for sample in samples])
    torch.testing.assert_close(out, alone, atol=1e-5, rtol=0)


def test_what_is_padded_with_means_nothing(image: Tensor):
    vit = small()
    some = patches(image, 16, raster(vit, 3)[:, :5])
    padded = {
        "patches": torch.cat([some["patches"], torch.full((3, 2, 3, 16, 16), 9.0)], 1),
        "index": torch.nn.functional.pad(some["index"], (0, 2), value=tokens.PADDING),
    }
    torch.testing.assert_close(vit.tail(padded, "input"), vit.tail(some, "input"), atol=1e-5, rtol=0)


def test_buckets_waste_at_most_an_eighth_or_eight_tokens():
    counts = torch.randint(1, 197, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    samples = [{"patches": torch.zeros(1, n, 1, 1, 1), "index": torch.zeros(1, n, dtype=torch.int64)} for n in counts]
    batches = tokens.bucket(samples, pad=True)
    assert sorted(row for rows, _ in batches for row in rows) == list(range(300))
    assert len(batches) < 30
    for rows, batch in batches:
        longest = batch["index"].shape[1]
        assert longest == max(counts[row] for row in rows)
        assert all(longest <= max(counts[row] + 8, counts[row] * 9 / 8) for row in rows)
        assert (batch["index"] != tokens.PADDING).sum(1).tolist() == [counts[row] for row in rows]


def test_fewer_patches_cost_fewer_operations(image: Tensor):
    from torch.utils.flop_counter import FlopCounterMode

    vit = small()
    with FlopCounterMode(display=False) as some:
        vit.tail(patches(image, 16, raster(vit, 3)[:, :4]), "input")
    with FlopCounterMode(display=False) as whole:
        vit.tail({"image": image}, "input")
    assert some.get_total_flops() < 0.3 * whole.get_total_flops()  # 5 of 17 tokens, and attention falls faster


def unfused_attention(vit: ImageClassifier, image: Tensor) -> list[Tensor]:
    """Every block's matrix (B, heads, tokens, tokens), as timm makes it when attention is not fused."""
    found: list[Tensor] = []
    for block in vit.model.blocks:
        block.attn.fused_attn = False
    hooks = [b.attn.attn_drop.register_forward_hook(lambda _, __, out: found.append(out)) for b in vit.model.blocks]
    vit.tail({"image": image}, "input")
    for hook, block in zip(hooks, vit.model.blocks, strict=True):
        hook.remove()
        block.attn.fused_attn = True
    return found


@pytest.mark.parametrize("name", ["plain", "distilled", "registers"])
@pytest.mark.parametrize("scores", ["mean", "rollout"])
def test_attention_is_that_of_an_unfused_model(name: str, scores: str, image: Tensor):
    vit = small(**VITS[name])
    logits, row = vit.attend({"image": image}, scores)
    torch.testing.assert_close(logits, vit.tail({"image": image}, "input"), atol=1e-5, rtol=0)
    matrices = [matrix.mean(1) for matrix in unfused_attention(vit, image)]
    expected = matrices[-1]
    if scores == "rollout":
        expected = torch.eye(matrices[0].shape[-1])
        for matrix in matrices:
            expected = (0.5 * matrix + 0.5 * torch.eye(matrix.shape[-1])) @ expected
    expected = expected[:, 0, vit.model.num_prefix_tokens :]
    assert row.shape == (3, 16)
    assert row.dtype == torch.float32
    torch.testing.assert_close(row, expected / expected.sum(1, keepdim=True), atol=1e-5, rtol=0)


def test_attending_leaves_no_trace(image: Tensor):
    vit = small()
    vit.attend({"image": image}, "rollout")
    assert not any(module._forward_hooks for module in vit.modules())
    assert all(block.attn.fused_attn for block in vit.model.blocks)


def test_models_without_the_structure_refuse_in_one_line(image: Tensor):
    with torch.random.fork_rng():
        resnet = TimmBackbone(CLASSES, model="resnet18").eval()
    assert resnet.spec.patch is None
    assert len(resnet.spec.accepts("input")) == 1
    for refused in (
        lambda: resnet.tail(patches(image, 16, torch.zeros(3, 1, dtype=torch.int64)), "input"),
        lambda: resnet.attend({"image": image}),
        lambda: small(**VITS["mean of tokens"]).attend({"image": image}),
    ):
        with pytest.raises(SemcodecError, match=r"^[^\n]+$"):
            refused()
    assert resnet.tail({"image": torch.rand(1, 3, 224, 224)}, "input").shape == (1, len(CLASSES))


def test_pooling_over_all_tokens_refuses_padding(image: Tensor):
    vit = small(**VITS["mean of tokens"])
    with pytest.raises(SemcodecError, match="pools over all tokens"):
        vit.tail(patches(image, 16, torch.tensor([[0, -1]] * 3)), "input")


def test_pixels_are_as_timm_says():
    model = TimmBackbone(CLASSES, model="test_vit")
    config = timm.get_pretrained_cfg("test_vit")
    image = model.spec.input["image"]
    assert image.shape == config.input_size
    assert (model.spec.crop, model.spec.interpolation) == (config.crop_pct, config.interpolation)
    assert model.mean.flatten().tolist() == pytest.approx(config.mean)
    assert model.std.flatten().tolist() == pytest.approx(config.std)


def test_deit_is_known_unbuilt_as_it_is_built():
    assert DeiTTiny(CLASSES).spec == spec.deit_tiny({})
    assert ViTNanoEdge(CLASSES).spec == spec.nano_edge({})


def test_state_dicts_of_timm_fit():
    ours = DeiTTiny(CLASSES)
    theirs = timm.create_model("deit_tiny_patch16_224", num_classes=len(CLASSES)).eval()
    fill(ours, ours.adapt(theirs.state_dict()), "timm")
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs((image - ours.mean) / ours.std)
        torch.testing.assert_close(ours.eval().tail({"image": image}, "input"), expected, atol=1e-5, rtol=0)
    theirs.reset_classifier(5)
    with pytest.raises(WeightsError, match=r"^timm does not fit the model: model\.head\.\w+ is"):
        fill(ours, ours.adapt(theirs.state_dict()), "timm")


def test_published_classes():
    names = DeiTTiny.published_classes()
    assert names == TimmBackbone.published_classes(model="resnet18")
    assert names is not None
    assert (len(names), names[0]) == (1000, "tench, Tinca tinca")
    assert TimmBackbone.published_classes(model="vit_tiny_patch16_224.augreg_in21k") != names


@pytest.mark.parametrize(
    ("name", "says"),
    [("resnet5O", "resnet50"), ("resnet50.nobody", "a1_in1k"), ("zzzzzz", "list_models")],
)
def test_a_name_that_timm_has_not_is_one_line(name: str, says: str):
    with pytest.raises(UsageError, match=r"^[^\n]+$") as error:
        TimmBackbone(CLASSES, model=name)
    assert says in str(error.value)


def component(name: str) -> Component:
    return get_registry().find(name, "backbone")


def test_the_embedded_stem_sees_each_patch_alone():
    torch.manual_seed(0)
    vit = ViTNanoEdge(CLASSES).eval()
    assert vit.model.patch_embed.num_patches == 144
    image = torch.rand(2, 3, 96, 96)
    other = image.clone()
    other[:, :, 8:16, 8:16] = 0
    with torch.no_grad():
        changed = (vit.model.patch_embed(image) != vit.model.patch_embed(other)).any(2).any(0)
        assert changed.nonzero().flatten().tolist() == [13]
        whole = vit.tail({"image": image}, "input")
        torch.testing.assert_close(vit.tail(patches(image, 8, raster(vit, 2)), "input"), whole, atol=1e-5, rtol=0)


def test_records_name_their_usual_edge():
    assert component("deit-base").traits["edge"] == "deit-tiny"
    assert component("vit-nano-server").traits["edge"] == "vit-nano-edge"
    assert CONFIG["input_size"] == (3, spec.SIDE, spec.SIDE)


def test_a_fresh_embedded_head_looks_at_one_neighbour():
    torch.manual_seed(0)
    model = ViTNanoEdge(CLASSES).eval().model
    listening, heard = tokens.listening(model, len(model.blocks))
    with torch.no_grad():
        listening(torch.randn(4, 3, 96, 96))
        matrix = tokens.attention(*heard[0])[:, :, 1:, 1:]
    inner = torch.arange(144).view(12, 12)[2:10, 2:10].flatten()
    for head, (rows, columns) in enumerate(OFFSETS[0][: matrix.shape[1]]):
        most = matrix[:, head, inner].argmax(-1)
        assert (most == inner + 12 * rows + columns).float().mean() > 0.95


def test_the_recipe_learns_from_teacher_and_labels():
    """Both losses fall on one batch that is repeated, and what is trained is what the step says."""
    torch.manual_seed(0)
    backbone = ViTNanoEdge(CLASSES)
    labels = torch.arange(8) % len(CLASSES)
    job = Job({"backbone": backbone}, list(labels))
    pixels = torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    for step in recipe(job):
        optimiser = torch.optim.AdamW([p for module in step.learn for p in module.parameters()], lr=2e-3)
        losses = []
        for _ in range(6):
            loss, metrics = step.loss(Batch(pixels, labels, np.random.default_rng(0), range(8)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            assert 0 <= metrics["top1"] <= 1
        assert losses[-1] < 0.95 * losses[0]
    assert {"teacher", "reader"} == set(job.auxiliary)


FAMILIES = {
    "resnet18": ("layer1.0", "layer1"),
    "resnetv2_50x1_bit": ("stages.0.blocks.0", "stages.0"),
    "regnetx_002": ("s1.b1", "s1"),
    "convnext_atto": ("stages.0.blocks.0", "stages.0"),
    "mobilenetv3_small_050": ("blocks.1.0", "blocks.1"),
    "efficientnet_b0": ("blocks.1.0", "blocks.1"),
    "densenet121": ("features.denseblock1", "features.denseblock4"),
}


def convolutional(name: str) -> ImageClassifier:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=len(CLASSES))
    return ImageClassifier(CLASSES, model, SMALL).eval().requires_grad_(False)


@pytest.mark.parametrize("name", FAMILIES)
def test_any_convolutional_family_is_cut_after_its_blocks(name: str, image: Tensor):
    backbone = convolutional(name)
    cuts = backbone.spec.cuts
    assert list(cuts)[:2] == ["input", "stem"]
    block, stage = FAMILIES[name]
    assert {block, stage} <= set(cuts)
    assert len(cuts) >= 6
    whole = backbone.model(backbone.normalised(image))
    assert torch.equal(backbone.tail({"image": image}, "input"), whole)
    for cut in cuts:
        features = backbone.head({"image": image}, cut)
        assert all(tensor.shape[1:] == cuts[cut][key].shape for key, tensor in features.items())
        assert torch.equal(backbone.tail(features, cut), whole), cut
    stem = backbone.head({"image": image}, "stem")
    assert torch.equal(backbone.advance(stem, "stem", stage)["maps"], backbone.head({"image": image}, stage)["maps"])


@pytest.mark.parametrize("name", ["resnet18d", "mobilenetv3_small_050"])
def test_a_narrowed_head_gives_the_channels_asked_for(name: str, image: Tensor):
    """Where the last step is a plain block or convolution it is narrowed; elsewhere all are computed."""
    backbone = convolutional(name)
    for cut in ("stem", list(backbone.spec.cuts)[3]):
        whole = backbone.head({"image": image}, cut)["maps"]
        channels = torch.arange(1, whole.shape[1], 3)
        found = backbone.narrowed(cut, {"maps": channels})({"image": image})["maps"]
        torch.testing.assert_close(found, whole[:, channels], atol=1e-4, rtol=1e-4)
        share = backbone.narrowed_share(cut, len(channels))
        assert (share < 1) == (name == "resnet18d")


class Chained(nn.Module):
    """Two blocks in a container; ``link`` makes the features of the image and what they give."""

    def __init__(self, link: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.link = link

    def forward_features(self, x: Tensor) -> Tensor:
        return self.link(x, self.blocks(x))

    def forward_head(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_what_is_no_chain_is_not_cut():
    """Also where it is written over in place, so that it is the same tensor with other values."""
    assert sequential_graph.find(Chained(lambda x, y: y), (3, 8, 8)).links == ("blocks.0", "blocks.1")
    for link in (lambda x, y: x + y, lambda x, y: y.add_(x), lambda x, y: y.relu_()):
        assert sequential_graph.find(Chained(link), (3, 8, 8)) is None
    assert list(convolutional("dla46_c").spec.cuts) == ["input"]


def test_looking_for_cuts_leaves_no_trace():
    model = timm.create_model("resnet18").train()
    sequential_graph.find(model, (3, 64, 64))
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert model.bn1.num_batches_tracked == 0
