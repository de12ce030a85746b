"""ultralytics' models that segment: the same at every cut, and pixels where its own code puts objects."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

import semcodec
from semcodec.composition.composition import compose_spec, resolve_backbone
from semcodec.composition.registry import get_registry
from semcodec.errors import SemcodecError, UsageError

if find_spec("ultralytics") is None:  # imported by the plugin alone, which keeps it quiet
    pytest.skip("needs the extra yolo", allow_module_level=True)

from semcodec_plugins.yolo import upstream
from semcodec_plugins.yolo.segmenters import CONFIDENCE, LIMIT, OVERLAP

OBJECTS = ("yolov8n-seg", "yolo11n-seg", "yolo26n-seg")
CLASSES = ["background", "one", "two", "three"]
SIDE = 64


@pytest.fixture(autouse=True)
def _pillow_as_it_was(monkeypatch):
    """Tests that import ultralytics themselves have it change how Pillow opens files, for every test after them."""
    monkeypatch.setattr(Image, "open", Image.open)


def built(name, classes=CLASSES):
    """Untrained, but with batch norms that are not neutral."""
    torch.manual_seed(0)
    bound = resolve_backbone(f"backbone/yolo/{name}:side={SIDE}").bound
    made = get_registry().load(bound.component)(classes, **bound.build)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=(*OBJECTS, "yolo26n-sem"))
def model(request):
    return built(request.param)


@pytest.fixture(scope="module")
def image():
    return {"image": torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))}


def test_cut_before_any_layer_it_is_the_same_model_to_the_bit(model, image):
    whole = model.tail(image, "input")
    assert whole.shape[:2] == (2, len(CLASSES)) and whole.dtype == torch.float32 and whole.isfinite().all()
    assert model.spec.task == "segmentation"
    for cut in model.spec.cuts:
        assert torch.equal(model.tail(model.head(image, cut), cut), whole), cut


def choosy(name):
    """A model whose last layer finds few, small objects in maps that are drawn at random; and such maps."""
    model, draw = built(name), torch.Generator().manual_seed(2)
    last = model.model[-1]
    shapes = [model.spec.cuts[model.last][f"layer{number}"].shape for number in model.reads[-1]]
    maps = [3 * torch.randn(2, *shape, generator=draw) for shape in shapes]
    chosen = last.one2one if model.end2end else last.one2many
    for scale in chosen["box_head"]:
        bins = torch.arange(len(scale[-1].bias)) % last.reg_max
        scale[-1].weight.zero_()
        scale[-1].bias.copy_(torch.where(bins == 1, 9.0, 0.0) if last.reg_max > 1 else torch.full((4,), 0.7))
    for scale in chosen["cls_head"]:
        scale[-1].weight.copy_(torch.randn(scale[-1].weight.shape, generator=draw))
    scores = last.forward_head(maps, **chosen)["scores"]
    for scale in chosen["cls_head"]:
        scale[-1].bias -= scores.quantile(0.95) + 1.1  # an object in twenty places: 1.1 less is the least score
    return model, maps


@pytest.mark.parametrize("name", OBJECTS)
@torch.inference_mode()
def test_pixels_are_of_objects_where_ultralytics_puts_these(name):
    """By its own suppression and masks; where objects of one class alone are, of that class."""
    model, maps = choosy(name)
    ops, suppression = upstream.ultralytics("utils.ops"), upstream.ultralytics("utils.nms")
    (out, prototypes), _ = model.model[-1](maps)
    found = suppression.non_max_suppression(
        out.clone(), CONFIDENCE, OVERLAP, max_det=LIMIT, nc=len(CLASSES) - 1, end2end=model.end2end
    )
    for answer, objects, protos in zip(model.detect(maps).argmax(1), found, prototypes, strict=True):
        masks = ops.process_mask(protos, objects[:, 6:], objects[:, :4].clone(), (SIDE, SIDE)).bool()
        classes = torch.stack([(masks[objects[:, 5] == i]).any(0) for i in range(len(CLASSES) - 1)])
        alone = classes.sum(0) == 1
        assert 1 < len(objects) < LIMIT and alone.any()
        assert torch.equal(answer > 0, masks.any(0))
        assert torch.equal(answer[alone] - 1, classes[:, alone].int().argmax(0))


def test_where_nothing_is_found_all_is_background(image):
    model = built("yolov8n-seg")
    for scale in model.model[-1].cv3:
        torch.nn.init.constant_(scale[-1].bias, -20.0)
    assert not model.tail(image, "input").argmax(1).any()


def test_semantic_logits_are_those_of_ultralytics(image):
    model = built("yolo26n-sem")
    reference = upstream.build("yolo26n-sem", len(CLASSES)).eval()
    reference.load_state_dict(model.state_dict())
    with torch.inference_mode():
        assert torch.equal(model.tail(image, "input"), reference(image["image"]))


def test_only_pixels_learn(image):
    masks = [np.zeros((8, 8), np.uint8)] * 2
    loss, _ = built("yolo26n-sem").task_loss(image, "input", masks)
    assert loss > 0
    with pytest.raises(SemcodecError, match="use them as published"):
        built("yolov8n-seg").task_loss(image, "input", masks)


def test_names_say_the_task_before_anything_is_built():
    assert compose_spec("jpeg+yolo/yolo11n-seg").task == "segmentation"
    assert compose_spec("jpeg+yolo/yolo26n-sem").task == "segmentation"
    assert compose_spec("jpeg+yolo/yolo11n").task == "detection"
    with pytest.raises(UsageError, match="did you mean"):
        semcodec.compose("jpeg+yolo/yolo11n-segm", weights="random")


@pytest.mark.parametrize(("name", "count", "some"), [("yolo11n-seg", 81, "person"), ("yolo26n-sem", 19, "road")])
def test_masks_of_pictures_come_back(name, count, some):
    pipeline = semcodec.compose(f"tensor8+yolo/{name}@5:side={SIDE}", weights="random")
    assert len(pipeline.classes) == count and some in pipeline.classes
    [answer] = pipeline.decode_batch(
        pipeline.records(pipeline.encode_batch(np.full((1, SIDE, SIDE, 3), 90, np.uint8), [0]))
    )
    assert answer.mask.max() < count
