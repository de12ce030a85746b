"""Residual networks: cuts, the published form of Caffe, and heads that compute some channels alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.composition.composition import compose_spec
from semcodec.composition.registry import get_registry
from semcodec.data.datasets import open_dataset
from semcodec.errors import SpecError, UsageError, WeightsError
from semcodec.pipeline import channel_pruning
from semcodec.pipeline.image_classifier import SequentialClassifier
from semcodec.pipeline.weights import fill, read_tensors
from semcodec.tensors import from_eight_bits
from semcodec.training.loop import Batch, Job
from semcodec_plugins.resnet import recipe, spec
from semcodec_plugins.resnet.backbone import ResNet18, ResNet34, ResNet50, ResNet50Caffe, ResNetNano

CLASSES = [f"class {i}" for i in range(5)]
MADE: dict[str, tuple[Any, Mapping[str, Any]]] = {
    "resnet18": (ResNet18, {}),
    "resnet34": (ResNet34, {}),
    "resnet50": (ResNet50, {}),
    "resnet50-caffe": (ResNet50Caffe, {"side": 64}),
    "resnet-nano": (ResNetNano, {}),
}


def random_norms(model: nn.Module) -> None:
    """Fresh ones do nothing, so that a fold that forgets them would pass."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            lows = {module.weight: 0.5, module.running_var: 0.5, module.bias: -1, module.running_mean: -1}
            for tensor, low in lows.items():
                tensor.data = torch.empty_like(tensor).uniform_(low, low + 1.5, generator=generator)


def made(name: str) -> SequentialClassifier:
    kind, params = MADE[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = kind(CLASSES, **params)
    random_norms(backbone)
    return backbone.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["resnet18", "resnet50-caffe", "resnet-nano"])
def backbone(request: pytest.FixtureRequest) -> SequentialClassifier:
    return made(request.param)


def image(backbone: SequentialClassifier, count: int = 2) -> dict[str, Tensor]:
    shape = backbone.spec.input["image"].shape
    return {"image": torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))}


@pytest.mark.parametrize("name", MADE)
def test_shapes_are_known_unbuilt_as_they_are_built(name: str):
    component = get_registry().find(name, "backbone")
    kind, params = MADE[name]
    assert get_registry().spec_function(component)({**params}) == kind(CLASSES, **params).spec


def test_cuts_of_the_paper():
    cuts = spec.resnet50({}).cuts
    assert list(cuts)[:6] == ["input", "stem", "layer1.0", "layer1.1", "layer1.2", "layer1"]
    assert list(cuts)[-1] == "layer4"
    assert cuts["stem"]["maps"].shape == (64, 56, 56)
    assert cuts["layer1.0"]["maps"].shape == (256, 56, 56)
    assert cuts["layer1"] == cuts["layer1.2"]


def test_halves_are_the_whole_to_the_bit_at_every_cut(backbone: SequentialClassifier):
    x = image(backbone)
    whole = backbone.model(backbone.normalised(x["image"]))
    assert torch.equal(backbone.tail(x, "input"), whole)
    assert not torch.allclose(whole[0], whole[1])
    for cut in backbone.spec.cuts:
        features = backbone.head(x, cut)
        assert torch.equal(backbone.tail(features, cut), whole), cut
        received = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in features.items()}
        assert torch.equal(backbone.tail(received, cut), whole), cut


@pytest.mark.parametrize("cut", spec.nano({}).cuts)
def test_each_half_works_with_the_weights_that_it_names(cut: str):
    """At every cut; the others are not a number. No weight is of both."""
    backbone = made("resnet-nano")
    x = image(backbone)
    features = backbone.head(x, cut)
    ends = {"head": backbone.head_state(cut), "tail": backbone.tail_state(cut)}
    only = {}
    for end, names in ends.items():
        only[end] = deepcopy(backbone)
        for name, tensor in only[end].state_dict().items():
            if not name.startswith(tuple(names)):
                tensor.fill_(float("nan") if tensor.is_floating_point() else -1)
    assert all(torch.equal(t, features[n]) for n, t in only["head"].head(x, cut).items())
    assert torch.equal(only["tail"].tail(features, cut), backbone.tail(features, cut))
    assert (not ends["head"]) == (cut == "input")
    used = {end: {n for n in backbone.state_dict() if n.startswith(tuple(names))} for end, names in ends.items()}
    assert used["head"].isdisjoint(used["tail"])
    assert used["head"] | used["tail"] == set(backbone.state_dict())
    if cut != "input":
        count = features["maps"].shape[1]
        kept = {"maps": torch.arange(0, count, 4)}
        whole, alone = (one.narrowed(cut, kept)(x)["maps"] for one in (backbone, only["head"]))
        assert torch.equal(whole, alone)


def test_advancing_is_what_the_head_does(backbone: SequentialClassifier):
    x = image(backbone)
    cuts = list(backbone.spec.cuts)
    at = backbone.head(x, "stem")
    for cut in cuts[1:]:
        assert torch.equal(backbone.advance(at, "stem", cut)["maps"], backbone.head(x, cut)["maps"]), cut


def test_a_narrowed_head_gives_the_channels_asked_for(backbone: SequentialClassifier):
    x = image(backbone)
    for cut in ("stem", "layer1.0", "layer1", "layer2.0", "layer4"):
        whole = backbone.head(x, cut)["maps"]
        total = whole.shape[1]
        for count in (1, 4, 16, total // 2, total):
            channels = torch.randperm(total, generator=torch.Generator().manual_seed(count))[:count].sort().values
            found = backbone.narrowed(cut, {"maps": channels})(x)["maps"]
            torch.testing.assert_close(found, whole[:, channels], atol=1e-5 * whole.abs().max().item(), rtol=1e-4)


def test_a_narrowed_head_computes_no_more(backbone: SequentialClassifier):
    """Of wider steps operations are counted as they run; fewer channels than a CPU's lanes are laid out otherwise."""
    from torch.utils.flop_counter import FlopCounterMode

    x = image(backbone, 1)
    for cut in ("stem", "layer1.0", "layer2.0"):
        total = backbone.spec.cuts[cut]["maps"].shape[0]
        head = backbone.narrowed(cut, {"maps": torch.arange(total // 2)})
        with FlopCounterMode(display=False) as some:
            head(x)
        with FlopCounterMode(display=False) as whole:
            backbone.head(x, cut)
        share = some.get_total_flops() / whole.get_total_flops()
        assert share == pytest.approx(backbone.narrowed_share(cut, total // 2), abs=1e-9)
        assert share < 0.96


def test_shares_of_multiplications():
    backbone = made("resnet50")
    assert backbone.narrowed_share("stem", 64) == 1
    assert backbone.narrowed_share("stem", 4) == pytest.approx(1 / 16)
    outside = 64 * 147 * 4 + 64 * 64 + 64 * 64 * 9  # per place of the maps; the stem's are twice as fine
    both = 2 * 64 * 256
    assert backbone.narrowed_share("layer1.0", 16) == pytest.approx((outside + both / 16) / (outside + both))


def normalisation(size: tuple[int, int]) -> channel_pruning.Image:
    mean, std = torch.rand(2, 3, 1, 1, generator=torch.Generator().manual_seed(0)) + 0.1
    return channel_pruning.Image(size, mean, std)


def test_few_channels_are_packed_and_many_are_not():
    step = channel_pruning.last_step(
        [made("resnet18").model.get_submodule(n) for n in ("conv1", "bn1", "act1", "maxpool")]
    )
    image = normalisation((64, 64))
    assert isinstance(step.kept(torch.arange(8), image), channel_pruning.Packed)
    assert not isinstance(step.kept(torch.arange(16), image), channel_pruning.Packed)
    assert not isinstance(step.kept(torch.arange(8), normalisation((66, 64))), channel_pruning.Packed)  # 33 rows
    assert not isinstance(step.kept(torch.arange(8)), channel_pruning.Packed)


@pytest.mark.parametrize("exporting", [False, True])
@pytest.mark.parametrize("count", [5, channel_pruning.GRAPH_LANES])
@pytest.mark.parametrize("pool", [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, ceil_mode=True)])
def test_packing_changes_nothing(pool: nn.MaxPool2d, count: int, exporting: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    torch.manual_seed(0)
    conv = nn.Conv2d(3, count, 7, 2, 3).requires_grad_(False)
    image = normalisation((32, 39))
    assert channel_pruning.Packed.fits(conv, pool, image)
    x = torch.rand(2, 3, 32, 39)
    expected = pool(conv((x - image.mean) / image.std).relu())
    torch.testing.assert_close(channel_pruning.Packed(conv, pool, nn.ReLU(), image)(x), expected, atol=1e-5, rtol=1e-5)


def test_weights_are_copied_when_a_head_is_narrowed():
    backbone = made("resnet18")
    x = image(backbone, 1)
    head = backbone.narrowed("stem", {"maps": torch.arange(32)})
    before = head(x)["maps"]
    backbone.model.conv1.weight.data.zero_()
    assert torch.equal(head(x)["maps"], before)


def caffe_trunk() -> dict[str, Tensor]:
    """Random, by torchvision's names, without what a Caffe trunk lacks."""
    torch.manual_seed(1)
    model = timm.create_model("resnet50")
    random_norms(model)
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith(("layer4.", "fc.")) and not name.endswith("num_batches_tracked")
    }


def caffe_reference(trunk: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
    """What Caffe computes to the end of ``layer3``, written out: BGR of 0-255, strides in the first 1x1."""

    def norm(x: Tensor, name: str) -> Tensor:
        parts = (trunk[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-5)

    x = pixels.flip(1) * 255 - torch.tensor([103.06, 115.9, 123.15]).view(3, 1, 1)
    x = norm(F.conv2d(x, trunk["conv1.weight"], stride=2, padding=3), "bn1").relu()
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    for stage, blocks in ((1, 3), (2, 4), (3, 6)):
        for block in range(blocks):
            at, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = norm(F.conv2d(x, trunk[f"{at}.conv1.weight"], stride=stride), f"{at}.bn1").relu()
            y = norm(F.conv2d(y, trunk[f"{at}.conv2.weight"], padding=1), f"{at}.bn2").relu()
            y = norm(F.conv2d(y, trunk[f"{at}.conv3.weight"]), f"{at}.bn3")
            if block == 0:
                x = norm(F.conv2d(x, trunk[f"{at}.downsample.0.weight"], stride=stride), f"{at}.downsample.1")
            x = (x + y).relu()
    return x


def test_a_caffe_trunk_computes_what_caffe_does():
    trunk = caffe_trunk()
    backbone = ResNet50Caffe(CLASSES, side=96).eval().requires_grad_(False)
    fill(backbone, backbone.adapt_init(trunk), "a trunk")
    pixels = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(5))
    expected = caffe_reference(trunk, pixels)
    found = backbone.head({"image": pixels}, "layer3")["maps"]
    assert found.shape == (2, 1024, 6, 6)
    torch.testing.assert_close(found, expected, atol=1e-3 * expected.abs().max().item(), rtol=1e-3)


def test_a_trunk_that_is_not_whole_is_one_line():
    trunk = caffe_trunk()
    del trunk["layer3.5.bn3.weight"]
    with pytest.raises(WeightsError, match=r"^[^\n]*layer3\.5\.bn3\.weight is missing$"):
        ResNet50Caffe(CLASSES, side=64).adapt_init(trunk)


def test_what_there_is_of_the_last_stage_comes_with_it():
    """A norm without its convolution was made for another."""
    parts = ("weight", "bias", "running_mean", "running_var")
    with_conv = {f"layer4.0.bn1.{part}": torch.full((512,), 3.0) for part in parts}
    with_conv["layer4.0.conv1.weight"] = torch.full((512, 1024, 1, 1), 3.0)
    alone = {f"layer4.0.bn2.{part}": torch.full((512,), 3.0) for part in parts}
    started = ResNet50Caffe(CLASSES, side=64).adapt_init(caffe_trunk() | with_conv | alone)
    assert all((started[f"model.{name}"] == 3).all() for name in with_conv)
    assert not any((started[f"model.{name}"] == 3).any() for name in alone)


def test_the_last_stage_learns_and_the_trunk_stays():
    backbone = ResNet50Caffe(CLASSES, side=64)
    backbone.load_state_dict(backbone.adapt_init(caffe_trunk()))
    job = Job({"backbone": backbone}, list(range(10)), pretrained=True)
    (step,) = recipe.last_stage(job)
    trunk = {name for name, _ in backbone.named_parameters() if not name.startswith(("model.layer4.", "model.fc."))}
    learned = {id(p) for module in step.learn for p in module.parameters()}
    assert {name for name, p in backbone.named_parameters() if id(p) not in learned} == trunk
    backbone.requires_grad_(False).eval()
    for module in step.learn:
        module.requires_grad_(True).train()
    optimiser = torch.optim.AdamW([p for module in step.learn for p in module.parameters()], lr=1e-3)
    pixels = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    losses = []
    for _ in range(4):
        loss, metrics = step.loss(Batch(pixels, torch.arange(8) % 5, np.random.default_rng(0), range(8)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        assert 0 <= metrics["top1"] <= 1
    assert losses[-1] < 0.8 * losses[0]


def test_a_caffe_network_wants_a_trunk():
    with pytest.raises(UsageError, match=r"^[^\n]*--init PATH[^\n]*$"):
        recipe.last_stage(Job({"backbone": nn.Identity()}, [0]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tensor8+resnet50-caffe:side=100", "multiple of 32"),
        ("tensor8+resnet50@layer5", "did you mean layer"),
        ("tensor8+resnet-nano@layer2.7", "its cuts are input, stem, layer1.0"),
    ],
)
def test_what_cannot_be_cut_is_one_line(text: str, says: str):
    with pytest.raises(SpecError) as error:
        compose_spec(text)
    assert says in str(error.value)


def test_the_embedded_network_recognises_scenes():
    data = open_dataset("digits-scenes", "test", compose_spec("tensor8+resnet-nano").request)
    pixels, labels = data.batch(range(200))
    component = get_registry().find("resnet-nano", "backbone")
    package, _, inside = component.weights[0].partition(":")
    tensors = read_tensors(Path(str(files(package) / inside)), "backbone.")
    backbone = ResNetNano(data.classes).eval()
    fill(backbone, tensors, "what ships")
    with torch.inference_mode():
        answers = backbone.tail({"image": from_eight_bits(pixels)}, "input").argmax(1)
    assert (answers == torch.from_numpy(labels)).float().mean() > 0.94


def test_the_embedded_networks_recipe_learns():
    backbone = made("resnet-nano").train().requires_grad_(True)
    (step,) = recipe.scenes(Job({"backbone": backbone}, list(range(32))))
    optimiser = torch.optim.AdamW(backbone.parameters(), lr=1e-3)
    pixels = torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    losses = []
    for _ in range(6):
        loss, _ = step.loss(Batch(pixels, torch.arange(8) % 5, np.random.default_rng(0), range(8)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.shared_data
def test_the_published_trunk_fits_and_half_precision_holds_it():
    path = Path(os.environ.get("SEMCODEC_DATA", ""), "../weights/resnet50_caffe_to_layer3.fp16.safetensors")
    if not path.is_file():
        pytest.skip(f"SEMCODEC_DATA names no folder beside {path.parent.name}/{path.name}")
    backbone = ResNet50Caffe(CLASSES, side=64).eval()
    fill(backbone, backbone.adapt_init(read_tensors(path)), "the trunk")
    state = backbone.state_dict()
    assert all(tensor.half().isfinite().all() for tensor in state.values())
    maps = backbone.head(image(backbone), "layer3")["maps"]
    backbone.load_state_dict({name: t.half().float() if t.is_floating_point() else t for name, t in state.items()})
    halved = backbone.head(image(backbone), "layer3")["maps"]
    assert (maps - halved).norm() < 0.01 * maps.norm()
