"""The embedded detector: cut anywhere it is the same model, it learns, and what ships finds the digits."""

from __future__ import annotations

import json
import os
from importlib.resources import as_file, files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.ops import box_iou

from semcodec.boxes import Boxes
from semcodec.composition.composition import compose_spec, resolve_backbone
from semcodec.data.datasets import open_dataset
from semcodec.errors import WeightsError
from semcodec.pipeline import weights
from semcodec.pipeline.pipeline import Pipeline
from semcodec.specs import InputRequest
from semcodec.tasks.detection import nms
from semcodec.tensors import from_eight_bits
from semcodec.training.train import train
from semcodec_plugins.det_nano import spec
from semcodec_plugins.det_nano.loss import assign, detection_loss, overlap
from semcodec_plugins.det_nano.nano import DetNano, places
from semcodec_plugins.det_nano.recipe import vary_boxes
from semcodec_plugins.det_nano.segmenter import SegNano, begin, vary_masks

CLASSES = ["one", "two", "three"]


@pytest.fixture(scope="module")
def model() -> DetNano:
    torch.manual_seed(0)
    made = DetNano(CLASSES)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def test_cut_after_any_stage_it_is_the_same_model_to_the_bit(model, image):
    whole = model.tail({"image": image}, "input")
    assert whole.shape == (2, 144, 4 + len(CLASSES))
    cuts = spec.nano({}).cuts
    for cut, features in cuts.items():
        given = model.head({"image": image}, cut)
        assert {name: tuple(x.shape[1:]) for name, x in given.items()} == {n: t.shape for n, t in features.items()}
        assert torch.equal(model.tail(given, cut), whole)
    for cut, to in pairwise(cuts):
        there = model.advance(model.head({"image": image}, cut), cut, to)
        assert all(torch.equal(x, model.head({"image": image}, to)[name]) for name, x in there.items())


def test_an_untrained_model_says_nothing_is_there(image):
    torch.manual_seed(0)
    scores = DetNano(CLASSES).eval().tail({"image": image}, "input")[..., 4:]
    assert scores.max() < 0.1


def test_places_are_the_centres_of_cells_row_by_row():
    assert places(2, 3, torch.device("cpu")).tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]


def test_cells_near_the_middle_of_a_box_find_it_and_the_smallest_of_several():
    boxes = Boxes(torch.tensor([[0.0, 0.0, 40.0, 40.0], [24.0, 16.0, 32.0, 24.0]]), torch.tensor([0, 1]))
    found = assign(boxes, places(5, 5, torch.device("cpu")), 8).view(5, 5)
    assert found.tolist() == [
        [-1, -1, -1, -1, -1],
        [-1, 0, 1, 1, 1],
        [-1, 0, 1, 1, 1],
        [-1, 0, 1, 1, 1],
        [-1, -1, -1, -1, -1],
    ]
    assert (assign(Boxes.none(), places(5, 5, torch.device("cpu")), 8) == -1).all()


def test_generalised_iou_by_hand():
    one = torch.tensor([[0.0, 0.0, 2.0, 2.0]] * 3)
    other = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [4.0, 0.0, 6.0, 2.0]])
    iou, generalised = overlap(one, other)
    torch.testing.assert_close(iou, torch.tensor([1.0, 1 / 3, 0.0]))
    torch.testing.assert_close(generalised, torch.tensor([1.0, 1 / 3, -1 / 3]))  # 4 of 12 are in neither


def test_predictions_that_follow_the_loss_find_the_boxes():
    """Boxes and scores themselves are learned: what the loss is least for is what was asked for."""
    where = places(12, 12, torch.device("cpu"))
    wanted = [
        Boxes(torch.tensor([[5.0, 10.0, 30.0, 50.0], [60.0, 20.0, 90.0, 60.0]]), torch.tensor([2, 0])),
        Boxes.none(),
    ]
    boxes = torch.cat((where, torch.full_like(where, 20.0)), 1).repeat(2, 1, 1).requires_grad_()
    scores = torch.zeros(2, 144, 3, requires_grad=True)
    optimiser = torch.optim.Adam([{"params": [boxes], "lr": 1.0}, {"params": [scores], "lr": 0.2}])
    for _ in range(150):
        loss, _ = detection_loss(boxes, scores, where, 8, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    output = torch.cat((boxes, scores.sigmoid()), -1).detach()
    found = [nms(sample, 0.3) for sample in output]
    assert [len(f) for f in found] == [2, 0]
    overlapping = box_iou(wanted[0].xyxy, found[0].xyxy)
    assert (overlapping.amax(1) > 0.85).all()
    assert torch.equal(found[0].classes[overlapping.argmax(1)], wanted[0].classes)


def test_images_without_any_object_have_a_finite_loss(model, image):
    loss, _ = model.task_loss({"image": image}, "input", [Boxes.none(), Boxes.none()])
    assert torch.isfinite(loss)


def test_the_loss_reaches_what_was_sent(model, image):
    labels = [Boxes(torch.tensor([[10.0, 10.0, 40.0, 50.0]]), torch.tensor([1])), Boxes.none()]
    features = {name: x.requires_grad_() for name, x in model.head({"image": image}, "d4").items()}
    loss, _ = model.task_loss(features, "d4", labels)
    torch.testing.assert_close(loss, model.task_loss({"image": image}, "input", labels)[0])
    loss.backward()
    assert all(x.grad.abs().sum() > 0 for x in features.values())


def test_boxes_move_with_what_is_in_them():
    """Painted rectangles are found where their boxes say after images were stretched and shifted."""
    rng = np.random.default_rng(0)
    pixels, labels = torch.zeros(6, 3, 96, 96), []
    for sample in pixels:
        left, top = rng.integers(20, 40, 2).tolist()
        sample[:, top : top + 30, left : left + 24] = 1
        labels.append(Boxes(torch.tensor([[left, top, left + 24, top + 30]], dtype=torch.float32), torch.tensor([3])))
    out, there = vary_boxes(pixels, labels, rng)
    changed = False
    for picture, before, boxes in zip(out, labels, there, strict=True):
        ink = (picture[0] - picture[0, 0, 0]).abs() > 0.5
        rows, columns = ink.any(1).nonzero(), ink.any(0).nonzero()
        seen = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], dtype=torch.float32)
        assert boxes.classes.tolist() == [3]
        assert (boxes.xyxy - seen).abs().max() <= 1
        changed |= bool((boxes.xyxy - before.xyxy).abs().max() > 2)
    assert changed


def test_masks_move_with_what_is_in_them():
    """Painted rectangles have their class where they are seen after images were stretched and shifted."""
    rng = np.random.default_rng(0)
    pixels, masks = torch.zeros(6, 3, 96, 96), torch.zeros(6, 96, 96, dtype=torch.int64)
    for sample, mask in zip(pixels, masks, strict=True):
        left, top = rng.integers(20, 40, 2).tolist()
        sample[:, top : top + 30, left : left + 24] = 1
        mask[top : top + 30, left : left + 24] = 3
    out, there = vary_masks(pixels, masks, rng)
    for picture, mask in zip(out, there, strict=True):
        ink = ((picture[0] - picture[0, 0, 0]).abs() > 0.5).numpy()
        assert (ink == (mask == 3)).mean() > 0.98
        assert set(np.unique(mask)) <= {0, 3, 255}


def test_boxes_that_have_mostly_left_the_image_are_dropped():
    left = Boxes(torch.tensor([[0.0, 40.0, 4.0, 50.0], [40.0, 40.0, 60.0, 60.0]]), torch.tensor([1, 2]))
    for seed in range(40):
        _, (boxes,) = vary_boxes(torch.rand(1, 3, 96, 96), [left], np.random.default_rng(seed))
        assert 2 in boxes.classes.tolist()
        if len(boxes) == 1:
            break
    assert len(boxes) == 1


def test_what_ships_finds_the_digits():
    pytest.importorskip("pycocotools")
    from semcodec.tasks.average_precision import score

    composition = compose_spec("tensor8+det-nano")
    found = weights.find(composition, "backbone", weights.WeightsRequest(), hub=False)
    assert found is not None and found.shipped
    model = DetNano(found.classes).eval().requires_grad_(False)
    weights.load(model, found)
    dataset = open_dataset("digits-scenes", "test", InputRequest.of(resolve_backbone("det-nano").spec))
    pixels, there = dataset.batch(range(128))
    answer = model.tail({"image": from_eight_bits(pixels)}, "input")
    reached = score([nms(sample) for sample in answer], there, dataset.classes)
    assert reached.map50 > 0.95
    assert reached.map50_95 > 0.75


def shipped(name: str) -> dict[str, torch.Tensor]:
    with as_file(files("semcodec_plugins.det_nano") / "weights" / f"{name}.safetensors") as path:
        return weights.read_tensors(path, "backbone.")


def test_the_head_ships_once_and_is_everyones():
    head = {name: t for name, t in shipped("det-nano").items() if name.split(".")[1] in spec.HEAD}
    for name in ("cls-nano", "seg-nano", "embed-nano", "draw-nano"):
        assert all(torch.equal(shipped(name)[entry], tensor) for entry, tensor in head.items())
        with as_file(files("semcodec_plugins.det_nano") / "weights" / f"{name}.safetensors") as path:
            card = weights.read_card(path)
            assert weights.digest(weights.read_tensors(path, "backbone.")) == card["digests"]["backbone"]
            some = weights.read_tensors(path, "backbone.", ["stages.stem.0.weight"])
            assert list(some) == ["stages.stem.0.weight"]
            assert load_file(path).keys().isdisjoint(f"backbone.{entry}" for entry in head)


def test_training_leaves_out_the_head_where_it_is_the_one_that_ships(tmp_path):
    """Behind another head a model's file is whole, and both are read as they were."""
    options = {"request": weights.WeightsRequest(offline=True), "scale": 0.002}
    card = train("draw-nano", "digits-scenes", tmp_path / "own", **options)
    assert list(card["shares"]) == ["det-nano"]
    other = tmp_path / "det-nano.safetensors"
    save_file({f"backbone.{name}": 0.5 * t if t.is_floating_point() else t for name, t in shipped("det-nano").items()},
              other)  # fmt: skip
    card = train("cls-nano", "digits-scenes", tmp_path / "another", init=str(other), **options)
    assert "shares" not in card
    for run, name in (("own", "draw-nano"), ("another", "cls-nano")):
        path = tmp_path / run / "weights.safetensors"
        card = weights.read_card(path)
        held = any(entry.startswith("backbone.stages.d3.") for entry in load_file(path))
        assert held == (name == "cls-nano")
        assert weights.digest(weights.read_tensors(path, "backbone.")) == card["digests"]["backbone"]
        pipeline = Pipeline.load(compose_spec(f"png+{name}"), weights.WeightsRequest({"": str(tmp_path / run)}, True))
        assert pipeline.digests["backbone"] == card["digests"]["backbone"]


def test_weights_that_are_said_to_ship_with_what_is_not_here_are_one_line(tmp_path):
    card = {"keys": {"backbone": "draw-nano"}, "shares": {"nothing": ["backbone.stages."]}}
    path = tmp_path / "weights.safetensors"
    save_file({"backbone.x": torch.zeros(1)}, path, {weights.METADATA: json.dumps(card)})
    with pytest.raises(WeightsError, match="that ship with nothing, and nothing of that name ships here"):
        weights.read_tensors(path, "backbone.")


@pytest.mark.shared_data
def test_a_light_head_learns_from_masks_of_photographs():
    """Of the readers: 129 classes of things and stuff, pictures of many sizes, unlabelled pixels."""
    root = Path(os.environ.get("SEMCODEC_DATA", ""), "coco128")
    if not (root / "masks").is_dir():
        pytest.skip("SEMCODEC_DATA names no folder with coco128 and its masks")
    data = open_dataset(str(root), "train", InputRequest.of(resolve_backbone("seg-nano").spec))
    torch.manual_seed(0)
    model = SegNano(data.classes)
    begin(model.stages)
    pixels, masks = data.batch(range(16))
    with torch.no_grad():
        features = model.eval().head({"image": from_eight_bits(pixels)}, "d3")
    learn = [p for name, p in model.named_parameters() if name.split(".")[1] not in spec.HEAD]
    optimiser = torch.optim.AdamW(learn, lr=5e-3)
    found = []
    for _ in range(25):
        loss, figures = model.train().task_loss(features, "d3", masks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append((loss.item(), figures["accuracy"]))
    assert found[-1][0] < 0.7 * found[0][0] and found[-1][1] > 3 * found[0][1]
