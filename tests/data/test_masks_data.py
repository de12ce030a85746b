"""Masks of every layout, read as their pictures are fitted, and one clear line for whatever is wrong with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semcodec import class_masks as masks
from semcodec.data import coco
from semcodec.data.datasets import open_dataset, tasks_of
from semcodec.errors import DataError, UsageError
from semcodec.specs import InputRequest

WANTED = InputRequest(None, 48, 48, fit="letterbox", labels="masks")
BOXES = InputRequest(None, 48, 48, fit="letterbox", labels="boxes")
WIDE, HIGH = 40, 20
BAD = "masks/val2017/a.png"
NAMES = "classes:\n  0: unlabeled\n  3: cat\n  7: dog\n"


def picture(path, size=(WIDE, HIGH)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(path)


def mask(path, values, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, np.uint8))
    if mode == "P":
        image.putpalette(masks.palette())
    image.save(path)


def halves(first, second):
    values = np.full((HIGH, WIDE), first, np.uint8)
    values[:, WIDE // 2 :] = second
    return values


def pairs(root, values=None, mode="L", names=NAMES):
    """images/ and masks/ with the folders train and val, one picture with a mask in each and one without in train."""
    for folder in ("train2017", "val2017"):
        picture(root / "images" / folder / "a.jpg")
        mask(root / "masks" / folder / "a.png", halves(3, 7) if values is None else values, mode)
    picture(root / "images" / "train2017" / "b.jpg")
    (root / "masks" / "classes.yaml").write_text(names)
    return str(root)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_pairs_of_folders(tmp_path, mode):
    data = open_dataset(pairs(tmp_path, mode=mode), "train", WANTED)
    assert data.tasks == ("segmentation",) and data.classes == ["cat", "dog"]
    assert data.ids(range(len(data))) == ["train2017/a.jpg"]  # what has no mask is left out
    pixels, (there,) = data.batch([0])
    assert pixels.shape == (1, 48, 48, 3) and data.sizes([0]) == [(WIDE, HIGH)]
    assert (there == halves(0, 1)).all()
    assert len(open_dataset(str(tmp_path), "test", WANTED)) == 1
    assert len(open_dataset(str(tmp_path), "all", WANTED)) == 2


def test_numbers_that_are_ignored(tmp_path):
    values = halves(0, 255)
    values[0] = 3
    root = pairs(tmp_path, values)
    assert set(np.unique(open_dataset(root, "test", WANTED).batch([0])[1][0])) == {0, masks.IGNORED}
    (tmp_path / "masks" / "classes.yaml").write_text("classes: [background, one, two, cat]\nignored: [2, 255]\n")
    data = open_dataset(root, "test", WANTED)
    assert data.classes == ["background", "one", "two", "cat"]  # the number is ignored, not the name
    assert set(np.unique(data.batch([0])[1][0])) == {0, 3, masks.IGNORED}


def test_folders_without_splits_are_all_for_the_test(tmp_path):
    picture(tmp_path / "images" / "a.png")
    mask(tmp_path / "masks" / "a.png", halves(3, 7))
    (tmp_path / "classes.yaml").write_text(NAMES)
    with pytest.warns(UserWarning, match="no folders train"):
        assert len(open_dataset(str(tmp_path), "test", WANTED)) == 1
    with pytest.raises(DataError, match="no picture of split 'train' has a mask"):
        open_dataset(str(tmp_path), "train", WANTED)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: mask(root / BAD, np.zeros((HIGH, WIDE + 1))), "41x20 pixels where its picture has 40x20"),
        (lambda root: mask(root / BAD, halves(3, 9)), "has the number 9, which .*classes.yaml does not name"),
        (lambda root: picture(root / "masks/val2017/a.png"), "mode RGB; a mask has one 8-bit number a pixel"),
        (lambda root: (root / "masks/val2017/a.png").write_bytes(b"\x89PNG\r\n"), "cannot be read as a mask"),
        (lambda root: (root / "masks/val2017/a.png").unlink(), "none of its 1 pictures of split 'test' has a mask"),
        (lambda root: (root / "images/val2017/a.jpg").unlink(), "a.png: is a mask without a picture"),
        (lambda root: (root / "masks/classes.yaml").unlink(), "no classes.yaml that says what their numbers mean"),
        (lambda root: (root / "masks/classes.yaml").write_text("classes: {3: cat, 300: dog}"), "'300' is no number"),
        (lambda root: (root / "masks/classes.yaml").write_text("classes: {3: cat, 7: cat}"), "names a class twice"),
        (lambda root: (root / "masks/classes.yaml").write_text("names: 3"), "has no classes, as in"),
        (lambda root: (root / "masks/classes.yaml").write_text("classes: {0: void}"), "names 0 classes"),
    ],
)  # fmt: skip
def test_whatever_is_wrong_is_one_line(tmp_path, change, words):
    root = pairs(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        open_dataset(root, "test", WANTED).batch([0])
    assert "\n" not in str(caught.value)


def test_a_class_may_be_chosen_and_other_models_are_refused(tmp_path):
    root = pairs(tmp_path)
    chosen = open_dataset(root, "test", WANTED, ["dog"])
    assert chosen.counted == [1] and chosen.classes == ["cat", "dog"] and chosen.tasks == ("segmentation",)
    assert (chosen.batch([0])[1][0] == halves(0, 1)).all()
    with pytest.raises(UsageError, match="no class 'cow'"):
        open_dataset(root, "test", WANTED, ["cow"])
    with pytest.raises(DataError, match="holds masks for segmentation, and the model takes images of one class"):
        open_dataset(root, "test", InputRequest(None, 48, 48))
    with pytest.raises(UsageError, match="a model that segments takes the whole picture"):
        InputRequest(None, 48, 48, labels="masks")


def test_the_layout_of_voc(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / "JPEGImages" / f"{name}.jpg")
        mask(tmp_path / "SegmentationClass" / f"{name}.png", halves(15, 255), "P")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n")
    data = open_dataset(str(tmp_path), "test", WANTED)
    assert data.ids([0]) == ["b.jpg"] and len(data.classes) == 21 and data.classes[15] == "person"
    assert (data.batch([0])[1][0] == halves(15, masks.IGNORED)).all()
    (lists / "val.txt").write_text("c\n")
    with pytest.raises(DataError, match=r"names c, and there is no .*c\.jpg"):
        open_dataset(str(tmp_path), "test", WANTED)


def annotated(root, annotations, name="instances_val2017.json", size=(WIDE, HIGH), folder="val2017"):
    picture(root / "images" / folder / "a.jpg")
    found = {
        "images": [{"id": 5, "file_name": "a.jpg", "width": size[0], "height": size[1], "license": 1}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        "annotations": [{"id": i, "image_id": 5, **one} for i, one in enumerate(annotations)],
    }
    path = root / "annotations" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found))
    return str(root)


SQUARE = {"category_id": 18, "bbox": [4, 4, 12, 10], "segmentation": [[4, 4, 16, 4, 16, 14, 4, 14]]}
RUNS = {"category_id": 1, "bbox": [8, 0, 2, 20], "iscrowd": 1,
        "segmentation": {"size": [HIGH, WIDE], "counts": [8 * HIGH, 2 * HIGH, (WIDE - 10) * HIGH]}}  # fmt: skip


def test_cocos_annotations_are_boxes_and_masks(tmp_path):
    root = annotated(tmp_path, [SQUARE, RUNS])
    assert set(tasks_of(root)) == {"detection", "segmentation", "reconstruction"}
    data = open_dataset(root, "test", WANTED)
    assert data.classes == ["background", "person", "dog"]
    _, (there,) = data.batch([0])
    assert (there[:, 8:10] == 1).all()  # the smaller is on top
    assert (there[4:14, 4:8] == 2).all() and (there[4:14, 10:16] == 2).all() and (there[15:, :8] == 0).all()
    boxed = open_dataset(root, "test", BOXES)
    assert boxed.classes == ["person", "dog"]
    _, (boxes,) = boxed.batch([0])
    scale = 48 / WIDE
    assert boxes.classes.tolist() == [1]  # groups are no objects
    assert np.allclose(boxes.xyxy[0], [4 * scale, 4 * scale + 12, 16 * scale, 14 * scale + 12])
    assert data.content(1) != boxed.content(1)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        ({**SQUARE, "segmentation": [[4, 4, 16, 4]]}, "a polygon of 4 numbers"),
        ({**SQUARE, "segmentation": [[4, 4, 1e9, 4, 16, 14]]}, "not within the picture"),
        ({**RUNS, "segmentation": {"size": [HIGH, WIDE], "counts": [5, 9]}}, "runs do not fill 40x20"),
        ({**RUNS, "segmentation": {"size": [9, 9], "counts": [81]}}, "an RLE of"),
        ({**RUNS, "segmentation": {"size": [HIGH, WIDE], "counts": "~~~~"}}, "an RLE whose text"),
        ({**SQUARE, "category_id": 4}, "an annotation of category 4, which it does not list"),
        ({**SQUARE, "segmentation": 4}, "cannot be read as COCO's annotations"),
    ],
)
def test_wrong_annotations_are_one_line(tmp_path, one, words):
    root = annotated(tmp_path, [one])
    with pytest.raises(DataError, match=words) as caught:
        open_dataset(root, "test", WANTED).batch([0])
    assert "\n" not in str(caught.value)


def test_a_picture_of_another_size_than_annotated(tmp_path):
    root = annotated(tmp_path, [SQUARE], size=(80, 40))
    with pytest.raises(DataError, match="has 40x20 pixels where annotations/ says 80x40"):
        open_dataset(root, "test", WANTED).batch([0])


def test_run_lengths_are_pycocotools_own():
    tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for height, width in ((7, 5), (33, 61), (1, 1)):
        there = rng.random((height, width)) < 0.4
        text = tools.encode(np.asfortranarray(there.astype(np.uint8)))["counts"].decode()
        assert (coco.run_lengths(text, height, width) == there).all()


def test_masks_follow_a_letterboxed_picture_there_and_back():
    rng = np.random.default_rng(1)
    small = rng.integers(0, 4, (6, 12)).astype(np.uint8)
    there = masks.to_input(small.repeat(4, 0).repeat(4, 1), 24, 24)
    assert (there[:6] == masks.IGNORED).all() and (there[18:] == masks.IGNORED).all()
    inside = masks.of_picture(there, (48, 24))
    assert inside.shape == (12, 24) and (masks.resized(inside, 12, 6) == small).all()


def test_digits_scenes_have_masks_of_their_ink():
    data = open_dataset("digits-scenes", "test", InputRequest(None, 96, 96, fit="letterbox", labels="masks"))
    assert data.classes[-1] == "background" and len(data.classes) == 11
    _, found = data.batch(range(12))
    boxed = open_dataset("digits-scenes", "test", InputRequest(None, 96, 96, fit="letterbox", labels="boxes"))
    for mask_, boxes in zip(found, boxed.batch(range(12))[1], strict=True):
        left, top, right, bottom = boxes.xyxy[0].tolist()  # the main digit's, which nothing covers
        rows, columns = np.nonzero(mask_ == int(boxes.classes[0]))
        inside = (rows > top - 2) & (rows < bottom + 1) & (columns > left - 2) & (columns < right + 1)
        assert inside.mean() > 0.5  # others of that class may lie elsewhere
        assert abs(columns[inside].min() - left) < 2 and abs(rows[inside].max() + 1 - bottom) < 2


@pytest.mark.shared_data
def test_coco128_has_boxes_and_masks():
    root = Path(os.environ.get("SEMCODEC_DATA", ""), "coco128")
    if not (root / "masks").is_dir():
        pytest.skip("SEMCODEC_DATA names no folder with coco128")
    data = open_dataset(str(root), "train", WANTED)
    assert len(data) == 100 and len(data.classes) == 129 and data.classes[0] == "person"
    assert set(tasks_of(str(root))) == {"detection", "segmentation", "reconstruction"}
    for index, there in enumerate(data.batch(range(8))[1]):
        assert there.shape[::-1] == data.sizes([index])[0]
    assert len(open_dataset(str(root), "test", BOXES)) == 64
