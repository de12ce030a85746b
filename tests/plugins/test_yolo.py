"""YOLO detectors: cut anywhere they are the same model; anchors, decoding and loss; ultralytics does nothing beside."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from semcodec.boxes import Boxes
from semcodec.composition.composition import resolve_backbone
from semcodec.composition.registry import get_registry
from semcodec.errors import SpecError, UsageError, WeightsError
from semcodec.pipeline import weights
from semcodec.tasks.detection import nms
from semcodec_plugins.yolo import spec

if find_spec("ultralytics") is None:  # imported by the plugin alone, which keeps it quiet
    pytest.skip("needs the extra yolo", allow_module_level=True)

from semcodec_plugins.yolo import upstream
from semcodec_plugins.yolo.anchors import ANCHORS, STRIDES, AnchorDetect, assign, complete_iou
from semcodec_plugins.yolo.backbone import UltralyticsDetector, YOLOv5N
from semcodec_plugins.yolo.graph import GraphDetector

CLASSES = ["one", "two", "three"]
ULTRALYTICS = ("yolov5nu", "yolov8n", "yolo11n")


@pytest.fixture(autouse=True)
def _pillow_as_it_was(monkeypatch):
    """Tests that import ultralytics themselves have it change how Pillow opens files, for every test after them."""
    monkeypatch.setattr(Image, "open", Image.open)


def detector(name: str, side: int = 64, classes: list[str] = CLASSES) -> tuple[GraphDetector, spec.BackboneSpec]:
    """Untrained, but with batch norms that are not neutral."""
    torch.manual_seed(0)
    resolved = resolve_backbone(f"backbone/{name}:side={side}")
    made = get_registry().load(resolved.bound.component)(classes, **resolved.bound.build)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return made.eval().requires_grad_(False), resolved.spec or made.spec


@pytest.fixture(scope="module", params=("yolov5n", *(f"yolo/{name}" for name in ULTRALYTICS)))
def cuttable(request: pytest.FixtureRequest) -> tuple[GraphDetector, spec.BackboneSpec]:
    return detector(request.param)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


# -- cuts --------------------------------------------------------------------------------------------------------------


def test_cut_before_any_layer_it_is_the_same_model_to_the_bit(cuttable, image):
    model, described = cuttable
    whole = model.tail({"image": image}, "input")
    places = (64 + 16 + 4) * (3 if isinstance(model, YOLOv5N) else 1)
    assert whole.shape == (2, places, 4 + len(CLASSES))
    assert whole.dtype == torch.float32
    for cut in described.cuts:
        assert torch.equal(model.tail(model.head({"image": image}, cut), cut), whole), cut


def test_the_spec_tells_what_crosses_each_cut(cuttable, image):
    model, described = cuttable
    assert list(described.cuts) == ["input", *map(str, range(1, len(model.model)))]
    for cut, features in described.cuts.items():
        given = model.head({"image": image}, cut)
        assert {name: tuple(x.shape[1:]) for name, x in given.items()} == {n: t.shape for n, t in features.items()}


def test_features_advance_from_cut_to_cut(cuttable, image):
    model, described = cuttable
    for cut, to in [*pairwise(described.cuts), ("5", "10"), ("5", "5")]:
        there = model.advance(model.head({"image": image}, cut), cut, to)
        wanted = model.head({"image": image}, to)
        assert there.keys() == wanted.keys()
        assert all(torch.equal(there[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("name", ["yolov5n", "yolo/yolov8n", "yolo/yolo11n"])
def test_a_cut_carries_only_what_later_layers_read(name):
    """Numbers of elements that others have counted in the three families, for 640 pixels."""
    _, described = detector(name, 640)
    counted = {"5": 409_600, "7": 614_400, "10": 716_800}
    for cut, layers in (("5", (4,)), ("7", (4, 6)), ("10", (4, 6, 9))):
        assert tuple(described.cuts[cut]) == tuple(f"layer{number}" for number in layers)
        elements = sum(t.size for t in described.cuts[cut].values())
        assert elements == counted[cut] + (409_600 if name == "yolo/yolo11n" else 0)  # twice the channels at layer 4


@pytest.mark.parametrize("name", ULTRALYTICS)
def test_it_is_the_model_that_ultralytics_builds(name, image):
    model, _ = detector(f"yolo/{name}")
    tasks = upstream.ultralytics("nn.tasks")
    reference = tasks.DetectionModel(upstream.configuration(name), ch=3, nc=len(CLASSES), verbose=False).eval()
    reference.load_state_dict(model.state_dict())
    with torch.inference_mode():
        assert torch.equal(model.tail({"image": image}, "input"), reference(image)[0].transpose(1, 2))


@pytest.mark.parametrize("size", spec.WIDTHS)
def test_the_table_of_yolov5_is_what_ultralytics_builds(size):
    component = get_registry().find(f"yolov5{size}")
    with torch.device("meta"):
        model = get_registry().load(component)(CLASSES, side=640).eval()
        features, cut = {"image": torch.empty(1, 3, 640, 640)}, "input"
    described = get_registry().spec_function(component)({"side": 640})
    assert model.reads == [layer.reads for layer in spec.YOLOV5]
    for to in list(described.cuts):
        features, cut = model.advance(features, cut, to), to
        assert {name: tuple(x.shape[1:]) for name, x in features.items()} == {
            name: t.shape for name, t in described.cuts[cut].items()
        }


def test_a_spec_names_a_cut_by_its_layer():
    assert resolve_backbone("yolov5n@5").cut == "5"
    with pytest.raises(SpecError, match="no cut '25'"):
        resolve_backbone("yolov5n@25")


# -- boxes -------------------------------------------------------------------------------------------------------------


def test_boxes_are_decoded_as_the_equations_say():
    head = AnchorDetect(2, (4, 4, 4))
    torch.manual_seed(2)
    raw = [torch.randn(1, 3, 64 // stride, 64 // stride, 7) for stride in STRIDES]
    out = head.decode(raw)
    assert out.shape == (1, 3 * (64 + 16 + 4), 6)
    row, column, anchor = 2, 5, 1
    x, y, w, h, objectness, *classes = (1 / (1 + math.exp(-v)) for v in raw[0][0, anchor, row, column].tolist())
    width, height = ANCHORS[0][anchor]
    wanted = [(2 * x - 0.5 + column) * 8, (2 * y - 0.5 + row) * 8, (2 * w) ** 2 * width, (2 * h) ** 2 * height]
    wanted += [objectness * score for score in classes]
    torch.testing.assert_close(out[0, anchor * 64 + row * 8 + column], torch.tensor(wanted))


def test_scores_and_boxes_of_a_head_that_chooses_itself_have_the_same_form(image):
    model, _ = detector("yolo/yolov10n")
    every = model.tail({"image": image}, "input")
    model.model[-1].end2end = True
    chosen = model.tail({"image": image}, "input")
    assert every.shape[2] == chosen.shape[2] == 4 + len(CLASSES)
    assert ((chosen[..., 4:] > 0).sum(2) == 1).all()
    raw = model.model[-1](model.detected({"image": image}, "input"))[0]
    best = raw[0, 0]
    torch.testing.assert_close(chosen[0, 0, :2], (best[:2] + best[2:4]) / 2)
    assert chosen[0, 0, 4 + int(best[5])] == best[4]


# -- the loss of anchors -----------------------------------------------------------------------------------------------


def test_a_box_is_given_to_its_cell_and_the_two_nearest_where_the_shape_is_near_an_anchors():
    anchors = torch.tensor([[1.0, 1.0], [2.0, 4.0], [9.0, 1.0]])
    row, anchor, cell = assign(torch.tensor([[2.3, 1.8, 2.0, 2.0]]), anchors, 8, 8)
    assert set(row.tolist()) == {0}
    assert {(a, *c) for a, c in zip(anchor.tolist(), map(tuple, cell.tolist()), strict=True)} == {
        (a, *c) for a in (0, 1) for c in ((2, 1), (1, 1), (2, 2))
    }  # 9 is more than four times 2


def test_no_box_is_given_to_a_cell_outside():
    _, _, cell = assign(torch.tensor([[0.2, 7.9, 1.0, 1.0]]), torch.tensor([[1.0, 1.0]]), 8, 8)
    assert [tuple(c) for c in cell.tolist()] == [(0, 7)]


def test_complete_iou_by_hand():
    one = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    assert complete_iou(one, one).item() == pytest.approx(1, abs=1e-5)
    beside = torch.tensor([[1.0, 0.0, 2.0, 2.0]])  # overlap 2 of 6; centres 1 apart, corners sqrt(13)
    assert complete_iou(one, beside).item() == pytest.approx(1 / 3 - 1 / 13, abs=1e-5)
    flat = torch.tensor([[0.0, 0.0, 2.0, 1.0]])  # overlap 2 of 4, another shape
    shape = 4 / math.pi**2 * (math.pi / 4 - math.atan(2)) ** 2
    assert complete_iou(one, flat).item() == pytest.approx(0.5 - shape**2 / (0.5 + shape), abs=1e-5)


def test_predictions_that_follow_the_loss_find_the_boxes():
    """The raw predictions themselves are learned: what the loss is least for is decoded to what was asked for."""
    wanted = [
        Boxes(torch.tensor([[3.0, 5.0, 17.0, 25.0], [30.0, 20.0, 62.0, 60.0]]), torch.tensor([0, 2])),
        Boxes(torch.tensor([[10.0, 12.0, 40.0, 50.0]]), torch.tensor([1])),
        Boxes.none(),
    ]
    head = AnchorDetect(3, (1, 1, 1))
    raw = [torch.zeros(3, 3, 64 // stride, 64 // stride, 8, requires_grad=True) for stride in STRIDES]
    optimiser = torch.optim.Adam(raw, 0.1)
    for _ in range(150):
        loss, figures = head.loss(raw, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert sum(figures.values()) == pytest.approx(loss.item(), rel=1e-4)
    for sample, truth in zip(head.decode([t.detach() for t in raw]), wanted, strict=True):
        found = nms(sample, confidence=0.5)
        assert len(found) == len(truth)
        if len(truth):
            overlap = box_iou(truth.xyxy, found.xyxy)
            assert (overlap.amax(1) > 0.95).all()
            assert torch.equal(found.classes[overlap.argmax(1)], truth.classes)


def labels() -> list[Boxes]:
    return [Boxes(torch.tensor([[4.0, 8.0, 40.0, 50.0], [20.0, 2.0, 60.0, 30.0]]), torch.tensor([1, 0])), Boxes.none()]


def test_the_loss_is_the_same_from_any_cut_and_reaches_what_was_sent(cuttable, image):
    model, _ = cuttable
    features = {name: x.requires_grad_() for name, x in model.head({"image": image}, "7").items()}
    loss, figures = model.task_loss(features, "7", labels())
    assert loss.item() == pytest.approx(model.task_loss({"image": image}, "input", labels())[0].item(), rel=1e-5)
    assert len(figures) == 3
    loss.backward()
    assert all(x.grad.abs().sum() > 0 for x in features.values())


@pytest.mark.parametrize("name", ULTRALYTICS)
def test_anchor_free_models_learn_by_ultralytics_own_loss(name, image):
    model, _ = detector(f"yolo/{name}")
    tasks = upstream.ultralytics("nn.tasks")
    reference = tasks.DetectionModel(upstream.configuration(name), ch=3, nc=len(CLASSES), verbose=False).eval()
    reference.load_state_dict(model.state_dict())
    reference.args = upstream.ultralytics("cfg").get_cfg()
    boxes = torch.tensor([[22.0, 29.0, 36.0, 42.0], [40.0, 16.0, 40.0, 28.0]]) / 64  # as ``labels``
    batch = {"img": image, "batch_idx": torch.zeros(2), "cls": torch.tensor([1.0, 0.0]), "bboxes": boxes}
    with torch.no_grad():
        wanted = reference.loss(batch)[0].sum() / len(image)
    assert model.task_loss({"image": image}, "input", labels())[0].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_images_without_any_object_have_a_finite_loss(cuttable, image):
    model, _ = cuttable
    loss, _ = model.task_loss({"image": image}, "input", [Boxes.none(), Boxes.none()])
    assert torch.isfinite(loss)


def test_it_can_be_used_for_training_after_it_was_used_without_gradient(cuttable, image):
    model, _ = cuttable
    with torch.inference_mode():
        model.tail({"image": image}, "input")
    x = image.clone().requires_grad_()
    model.tail({"image": x}, "input").sum().backward()
    assert x.grad.abs().sum() > 0


# -- weights and names -------------------------------------------------------------------------------------------------


def test_a_state_dict_of_ultralytics_loads_strictly(tmp_path):
    from safetensors.torch import save_file

    model, _ = detector("yolo/yolov8n")
    tasks = upstream.ultralytics("nn.tasks")
    other = tasks.DetectionModel(upstream.configuration("yolov8n"), ch=3, nc=len(CLASSES), verbose=False)
    save_file(other.state_dict(), tmp_path / "yolov8n.safetensors")
    weights.load(model, weights.Weights("backbone", "there", tmp_path / "yolov8n.safetensors"))
    assert all(torch.equal(t, other.state_dict()[name]) for name, t in model.state_dict().items())
    narrower, _ = detector("yolov5n")
    with pytest.raises(WeightsError, match="does not fit the model"):
        weights.load(narrower, weights.Weights("backbone", "there", tmp_path / "yolov8n.safetensors"))


@pytest.mark.parametrize("name", ["yolov5n", "yolo/yolov8n"])
def test_training_may_start_from_a_model_of_other_classes(name):
    model, _ = detector(name)
    before = {key: t.clone() for key, t in model.state_dict().items()}
    other, _ = detector(name, classes=["a", "b", "c", "d", "e"])
    for module in other.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight)
    weights.fill(model, model.adapt_init(other.state_dict()), "there")
    last = f"model.{len(model.model) - 1}."
    for key, tensor in model.state_dict().items():
        same_shape = tensor.shape == other.state_dict()[key].shape
        assert same_shape or key.startswith(last)
        assert torch.equal(tensor, other.state_dict()[key] if same_shape else before[key])


def test_a_pickle_is_refused_in_one_line_that_says_what_to_do(tmp_path):
    torch.save({"model": 1}, tmp_path / "yolov8n.pt")
    with pytest.raises(WeightsError, match="save its state_dict as safetensors") as error:
        weights.read_card(tmp_path / "yolov8n.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("yolov8", "did you mean yolov8"),
        ("yolov8n-pose", "that detects or segments"),
        ("yolov5n", "did you mean yolov5nu"),
        ("../yolov8n", "that detects or segments"),
        ("nonsense", "there are"),
    ],
)
def test_a_wrong_name_is_refused_with_those_near_it(model, says):
    with pytest.raises(UsageError, match=says) as error:
        UltralyticsDetector(CLASSES, model=model, side=64)
    assert "\n" not in str(error.value)


def test_sides_that_the_maps_do_not_divide_are_refused():
    with pytest.raises(SpecError, match="side=100 is no multiple of the 32 pixels"):
        resolve_backbone("yolov5n:side=100")
    with pytest.raises(UsageError, match="side=96 is no multiple of the 64 pixels"):
        UltralyticsDetector(CLASSES, model="yolov8n-p6", side=96)


def test_the_licence_of_what_is_loaded_is_told():
    rows = {row.name: row for row in get_registry().rows() if row.kind == "backbone"}
    assert {rows[name].license for name in ("yolov5n", "yolov5x", "yolo/*")} == {"AGPL-3.0"}
    assert get_registry().find("yolov5n").extra == "yolo"


def test_published_classes_are_those_of_coco():
    """As ultralytics lists them, in the order of its published weights."""
    import yaml

    folder = Path(upstream.ultralytics("cfg").__file__).parent
    listed = yaml.safe_load((folder / "datasets/coco.yaml").read_text())["names"]
    assert YOLOv5N.published_classes() == [listed[i] for i in range(80)]


# -- ultralytics -------------------------------------------------------------------------------------------------------

ALONE = """
import json, os, sys
before = dict(os.environ)
asked = []
WATCHED = ("socket.getaddrinfo", "socket.connect", "subprocess.Popen", "os.system")
def watch(event, arguments):
    if event in WATCHED and "ldconfig" not in repr(arguments):  # which is how ctypes looks for libraries
        asked.append((event, repr(arguments)[:200]))
sys.addaudithook(watch)
written = []
def opened(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        written.append(str(arguments[0]))
sys.addaudithook(opened)
import numpy, torch
from PIL import Image
save, read, printed = torch.save, Image.open, (repr(numpy.get_printoptions()), str(torch.rand(3, 100)[0, :3]))
torch.manual_seed(0); shown = str(torch.rand(3, 100))
from semcodec_plugins.yolo.backbone import UltralyticsDetector
model = UltralyticsDetector(["a"], model="yolov8n", side=64)
model.eval().tail({"image": torch.zeros(1, 3, 64, 64)}, "input")
torch.manual_seed(0)
import ultralytics.utils, ultralytics.utils.events
u = ultralytics.utils
folder = str(u.USER_CONFIG_DIR)
print(json.dumps({
    "asked": asked,
    "written": [path for path in written
                if not path.startswith((folder, os.devnull)) and "__pycache__" not in path],  # ctypes uses that too
    "same": [torch.save is save, Image.open is read,
             repr(numpy.get_printoptions()) == printed[0], str(torch.rand(3, 100)) == shown],
    # torch names its own cache once it looks at its compiler.
    "changed": sorted(pair for pair in set(os.environ.items()) ^ set(before.items()) if "TORCHINDUCTOR" not in pair[0]),
    "off": [u.ONLINE, u.AUTOINSTALL, u.SETTINGS["sync"], ultralytics.utils.events.events.enabled],
    "folder": folder,
}))
"""


def test_ultralytics_computes_and_does_nothing_else(tmp_path):
    """No name server is asked, nothing installed, no file written but in a folder that is gone afterwards."""
    quiet = {k: v for k, v in os.environ.items() if not k.startswith(("YOLO_", "PYTEST"))}
    environment = {**quiet, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["asked"] == []
    assert found["written"] == []
    assert found["same"] == [True] * 4
    assert dict(found["changed"]) == upstream.OFF
    assert found["off"] == [False, False, False, False]
    assert not Path(found["folder"]).exists()
    assert list(tmp_path.iterdir()) == []


# -- the published YOLOv5n ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared() -> Path:
    root = Path(os.environ.get("SEMCODEC_DATA", ""))
    if not (root / "coco128").exists() or not (root.parent / "weights/yolov5n_coco80.fp16.safetensors").exists():
        pytest.skip("SEMCODEC_DATA names no folder with coco128 and, beside it, weights of yolov5n")
    return root


@pytest.mark.shared_data
def test_the_published_yolov5n_loads_strictly_and_its_loss_is_that_of_a_trained_model(shared):
    from semcodec.data.datasets import open_dataset
    from semcodec.specs import InputRequest
    from semcodec.tensors import from_eight_bits

    resolved = resolve_backbone("yolov5n:side=320")
    model = YOLOv5N(YOLOv5N.published_classes(), side=320).eval()
    path = shared.parent / "weights/yolov5n_coco80.fp16.safetensors"
    dataset = open_dataset(str(shared / "coco128"), "test", InputRequest.of(resolved.spec))
    pixels, truth = dataset.batch(range(8))
    x = {"image": from_eight_bits(pixels)}
    with torch.no_grad():
        before = model.task_loss(x, "input", truth)[1]
        weights.load(model, weights.Weights("backbone", "there", path))
        after = model.task_loss(x, "input", truth)[1]
        found = [nms(sample, 0.5) for sample in model.tail(x, "input")]
    assert all(after[name] < 0.75 * before[name] for name in ("box", "cls"))
    assert sum(len(boxes) for boxes in found) > 8
    right = [
        bool((box_iou(b.xyxy[:1], t.xyxy)[0, t.classes == b.classes[0]] > 0.5).any())
        for b, t in zip(found, truth, strict=True)
        if len(b) and len(t)
    ]
    assert sum(right) >= 0.8 * len(right)  # the surest box of each image is one that is there


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_published_yolov5n_reaches_its_precision(shared):
    """About 0.5 on 64 images of COCO at 640 pixels."""
    pytest.importorskip("pycocotools")
    from semcodec.data.datasets import open_dataset
    from semcodec.specs import InputRequest
    from semcodec.tasks.average_precision import score
    from semcodec.tensors import from_eight_bits

    model = YOLOv5N(YOLOv5N.published_classes(), side=640).eval().requires_grad_(False)
    path = shared.parent / "weights/yolov5n_coco80.fp16.safetensors"
    weights.load(model, weights.Weights("backbone", "there", path))
    dataset = open_dataset(str(shared / "coco128"), "test", InputRequest.of(resolve_backbone("yolov5n").spec))
    found, there = [], []
    for i in range(len(dataset)):
        pixels, truth = dataset.batch([i])
        found.append(nms(model.tail({"image": from_eight_bits(pixels)}, "input")[0]))
        there += truth
    reached = score(found, there, dataset.classes)
    assert reached.map50 > 0.48
    assert reached.map50_95 > 0.32
