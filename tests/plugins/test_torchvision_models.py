"""torchvision's models: cut anywhere they are the library's own, to the bit of each other and to 1e-5 of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semcodec.boxes import corners
from semcodec.errors import SemcodecError, UsageError, WeightsError
from semcodec.pipeline.weights import Weights, load
from semcodec_plugins.torchvision_models import names
from semcodec_plugins.torchvision_models.backbone import TorchvisionBackbone

CLASSES = ["background", "cat", "dog"]
SMALL = {"lraspp_mobilenet_v3_large": 64, "deeplabv3_mobilenet_v3_large": 64, "fcn_resnet50": 64}
DETECTORS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": 64,
    "retinanet_resnet50_fpn": 64,
    "fcos_resnet50_fpn": 64,
    "ssdlite320_mobilenet_v3_large": None,
}


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    torch.manual_seed(0)


def made(name, side):
    model = TorchvisionBackbone(CLASSES, model=name, side=side).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def through(model, image):
    """The answer from the input, after each cut was compared with it."""
    whole = model.tail({"image": image}, "input")
    for cut, declared in model.spec.cuts.items():
        features = model.head({"image": image}, cut)
        assert {name: tuple(x.shape[1:]) for name, x in features.items()} == {n: t.shape for n, t in declared.items()}
        before = {name: x.clone() for name, x in features.items()}
        assert torch.equal(model.tail(features, cut), whole), cut
        assert all(torch.equal(x, before[name]) for name, x in features.items()), cut
    return whole


@pytest.mark.parametrize(("name", "side"), SMALL.items())
@torch.inference_mode()
def test_segmentation_is_the_librarys(name, side):
    model = made(name, side)
    assert model.spec.task == "segmentation" and len(model.spec.cuts) > 5
    image = torch.rand(2, 3, side, side)
    whole = through(model, image)
    assert whole.shape == (2, 3, side, side)
    expected = model.model(model.normalised(image))["out"]
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "side"), DETECTORS.items())
@torch.inference_mode()
def test_boxes_are_the_librarys(name, side):
    model = made(name, side)
    getattr(model.model, "roi_heads", model.model).score_thresh = 0.0  # untrained, it is sure of nothing
    assert model.spec.task == "detection" and {"fpn", "maps"} & model.spec.cuts.keys()
    transform = model.model.transform
    image = torch.rand(1, 3, model.side, model.side)
    resized = transform(list(image))[0].tensors  # to its own size, which moves last bits, and so untrained ties
    torch.testing.assert_close(resized, model.normalised(image), atol=1e-5, rtol=1e-5)
    transform.resize = lambda picture, target: (picture, target)
    [found] = through(model, image)
    [expected] = model.model(list(image))
    expected = {name: values[expected["labels"] > 0] for name, values in expected.items()}  # 0 is the background
    count = len(expected["boxes"])
    assert count > 10 and (found[count:] == 0).all()
    scores = found[:count, 4:]
    assert ((scores > 0).sum(1) <= 1).all()
    torch.testing.assert_close(corners(found[:count, :4]), expected["boxes"], atol=1e-5 * model.side, rtol=1e-5)
    torch.testing.assert_close(scores.amax(1), expected["scores"], atol=1e-5, rtol=1e-5)
    assert torch.equal(scores.argmax(1) + 1, expected["labels"])


def test_names_and_sides_that_cannot_be():
    with pytest.raises(UsageError, match="did you mean fcn_resnet50"):
        names.check("fcn_resnet5")
    with pytest.raises(UsageError, match="takes pictures of 300 pixels"):
        names.side_of("ssd300_vgg16", 320)
    with pytest.raises(UsageError, match="no multiple of 32"):
        names.side_of("retinanet_resnet50_fpn", 100)
    assert names.side_of("fcn_resnet50", None) == 520 and names.side_of("fasterrcnn_resnet50_fpn", None) == 800


def test_all_that_torchvision_has_is_listed():
    from torchvision.models import detection, list_models, segmentation

    assert sorted(list_models(segmentation)) == sorted(names.SEGMENTING)
    known = [name for name in list_models(detection) if not name.startswith(("keypointrcnn", "maskrcnn"))]
    assert sorted(known) == sorted(names.DETECTING)


def test_published_classes_and_addresses():
    voc = TorchvisionBackbone.published_classes(model="fcn_resnet50", side=None)
    assert voc[0] == "background" and voc[15] == "person" and len(voc) == 21
    coco = TorchvisionBackbone.published_classes(model="ssd300_vgg16", side=None)
    assert coco[0] == "person" and len(coco) == 90
    assert names.address("fcn_resnet50", side=520).startswith("https://download.pytorch.org/")


def test_a_file_of_torchvisions_form_is_read(tmp_path):
    """As it is published: torch's own form under the hash, with a classifier that only training reads."""
    model = made("lraspp_mobilenet_v3_large", 64)
    state = {name: t + 1 if name.endswith("classifier.bias") else t for name, t in model.model.state_dict().items()}
    path = tmp_path / "lraspp_mobilenet_v3_large-d234d4ea.pth"
    torch.save({**state, "aux_classifier.0.weight": torch.zeros(1)}, path)
    load(model, Weights("backbone", str(path), path))
    assert torch.equal(
        model.model.state_dict()["classifier.low_classifier.bias"], state["classifier.low_classifier.bias"]
    )
    path.write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match="no readable checkpoint of tensors"):
        load(model, Weights("backbone", str(path), path))


def test_halves_name_all_weights_between_them():
    model = made("fasterrcnn_mobilenet_v3_large_320_fpn", 64)
    for cut in ("4", "fpn"):
        head, tail = model.head_state(cut), set(model.tail_state(cut))
        used = {name for name in model.state_dict() if name.startswith(tuple(head))}
        assert used and used | tail == set(model.state_dict()) and not used & tail


def test_detectors_are_not_trained_and_segmentation_is():
    masks = [np.zeros((64, 64), np.uint8), np.ones((30, 60), np.uint8)]
    model = made("lraspp_mobilenet_v3_large", 64)
    loss, figures = model.task_loss({"image": torch.rand(2, 3, 64, 64)}, "input", masks)
    assert torch.isfinite(loss) and 0 <= figures["accuracy"] <= 1
    detector = made("fasterrcnn_mobilenet_v3_large_320_fpn", 64)
    with pytest.raises(SemcodecError, match="are not trained here"):
        detector.task_loss({}, "input", [])
