"""Images with boxes in YOLO's layout: what is read, what is refused, and where boxes lie in what a model sees."""

from __future__ import annotations

import json
import os
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_detector
from click.testing import CliRunner
from PIL import Image

from semcodec.boxes import GREY
from semcodec.cli import main
from semcodec.data.base import Digest, EmptySplitError
from semcodec.data.datasets import open_dataset, open_unlabelled
from semcodec.data.description import describe
from semcodec.data.images import read_image
from semcodec.data.inputs import open_input
from semcodec.errors import DataError, UsageError
from semcodec.specs import BackboneSpec, InputRequest, TensorSpec

WANTED = InputRequest(None, 64, 64, fit="letterbox", labels="boxes")


pytestmark = pytest.mark.usefixtures("one_thread")


def image(path: Path, width: int, height: int, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 200, np.uint8)).save(path, **options)


def folder(root: Path, labels: dict[str, str | None], size: tuple[int, int] = (80, 40), split: str = "val2017") -> str:
    """One picture for each name, with the text of its labels."""
    (root / "labels" / split).mkdir(parents=True)
    for name, text in labels.items():
        image(root / "images" / split / f"{name}.png", *size)
        if text is not None:
            (root / "labels" / split / f"{name}.txt").write_text(text)
    return str(root)


def test_without_their_boxes_pictures_may_be_varied(tmp_path):
    """Where training takes pixels alone: mirrored, their boxes would be wrong."""
    root = folder(tmp_path, {"a": "0 0.5 0.5 1 1", "b": "0 0.5 0.5 0.5 0.5"}, split="train2017")
    labelled, alone = open_dataset(root, "train", WANTED), open_unlabelled(root, WANTED)
    assert not labelled.varies and alone.varies
    assert np.array_equal(alone.batch([1, 0])[0], labelled.batch([1, 0])[0])
    assert alone.batch([0, 1])[1].tolist() == [0, 0] and alone.classes == labelled.classes
    assert not open_unlabelled("digits-scenes", InputRequest(None, 96, 96, fit="letterbox", labels="boxes")).varies


# -- what a model sees -------------------------------------------------------------------------------------------------


def test_a_letterboxed_picture_is_whole_and_in_the_middle_of_grey(tmp_path):
    image(tmp_path / "wide.png", 128, 32)
    pixels = read_image(tmp_path / "wide.png", WANTED)
    assert (pixels[24:40] == 200).all()
    assert (pixels[:24] == GREY).all() and (pixels[40:] == GREY).all()
    assert (read_image(tmp_path / "wide.png", InputRequest(None, 64, 64)) == 200).all()  # cropped, as before


@pytest.mark.parametrize(
    ("size", "inside"),
    [((1, 1), (64, 64)), ((5000, 1), (64, 1)), ((1, 5000), (1, 64)), ((7, 3), (64, 27)), ((64, 64), (64, 64))],
)
def test_pictures_of_any_shape(tmp_path, size, inside):
    data = open_dataset(folder(tmp_path, {"a": "0 0.5 0.5 1 1"}, size), "test", WANTED)
    pixels, [boxes] = data.batch([0])
    there = (pixels[0] != GREY).any(-1)
    assert (int(there.any(0).sum()), int(there.any(1).sum())) == inside
    assert data.sizes([0]) == [size]
    left, top, right, bottom = boxes.xyxy[0].tolist()
    scale = min(64 / size[0], 64 / size[1])
    assert (right - left, bottom - top) == pytest.approx((size[0] * scale, size[1] * scale), abs=1e-3)
    assert 0 <= left <= right <= 64 and 0 <= top <= bottom <= 64


def test_boxes_lie_where_their_objects_are(tmp_path):
    scene = [("red", 1, 0), ("blue", 6, 3)]
    data = open_dataset(toy_detector.yolo_folder(tmp_path, [(scene, scene)]), "test", WANTED)
    pixels, [boxes] = data.batch([0])
    for (left, top, right, bottom), label in zip(boxes.xyxy.int().tolist(), boxes.classes.tolist(), strict=True):
        inside = pixels[0, top:bottom, left:right]
        assert inside[..., 2 * label].min() > 200 and inside[..., 2 - 2 * label].max() < 60
    assert boxes.xyxy.dtype == torch.float32 and boxes.classes.dtype == torch.int64 and boxes.scores is None


def test_a_turned_photograph_has_its_boxes_turned_with_it(tmp_path):
    root = Path(folder(tmp_path, {"a": "0 0.5 0.25 1 0.5"}))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    image(root / "images" / "val2017" / "a.png", 80, 40, exif=exif)
    data = open_dataset(str(root), "test", WANTED)
    _, [boxes] = data.batch([0])
    assert data.sizes([0]) == [(40, 80)]
    assert boxes.xyxy.tolist() == [[16, 0, 48, 32]]  # the upper half of what is now upright


def test_digits_scenes_has_the_ink_of_every_digit():
    data = open_dataset("digits-scenes", "test", InputRequest(None, 96, 96, fit="letterbox", labels="boxes"))
    whole = open_dataset("digits-scenes", "test", InputRequest(None, 96, 96))
    (pixels, boxes), (same, labels) = data.batch(range(20)), whole.batch(range(20))
    assert (pixels == same).all()
    assert [b.classes[0].item() for b in boxes] == labels.tolist()  # the main digit comes first
    for listed, found in zip(whole.boxes(range(20)), boxes, strict=True):
        assert np.allclose((found.xyxy[:, :2] + found.xyxy[:, 2:]) / 2 / 96, listed[:, 1:3], atol=1e-5)
        assert (found.xyxy >= 0).all() and (found.xyxy <= 96).all()
    assert data.sizes([0, 1]) == [(96, 96)] * 2 and data.tasks == (
        "classification",
        "detection",
        "segmentation",
        "retrieval",
    )


# -- what is in a folder -----------------------------------------------------------------------------------------------


def test_images_without_labels_have_no_objects(tmp_path):
    labels = {"a": None, "b": "", "c": "\n \n", "d": "3 0.5 0.5 0.1 0.1\n"}
    data = open_dataset(folder(tmp_path, labels), "test", WANTED)
    _, boxes = data.batch(range(4))
    assert [len(b) for b in boxes] == [0, 0, 0, 1] and boxes[0].xyxy.shape == (0, 4)
    assert data.classes[3] == "motorcycle" and len(data.classes) == 80


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0 0.5 0.5 0.2", "line 2: has 4 fields where a box has 5"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3", "line 2: has 7 fields"),
        ("cat 0.5 0.5 0.2 0.2", "line 2: 'cat 0.5 0.5 0.2 0.2' are not five numbers"),
        ("80 0.5 0.5 0.2 0.2", "line 2: class 80 is none of 0 to 79; name others in data.yaml"),
        ("-1 0.5 0.5 0.2 0.2", "line 2: class -1 is none of"),
        ("1.5 0.5 0.5 0.2 0.2", "line 2: class 1.5 is none of"),
        ("0 320 240 100 100", "line 2: the box 320 240 100 100 is not within the image"),
        ("0 0.5 0.5 0 0.2", "line 2: the box 0.5 0.5 0 0.2 is not within"),
        ("0 nan 0.5 0.1 0.2", "line 2: the box nan"),
        ("0 0.95 0.5 0.2 0.2", "line 2: the box 0.95"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, reason):
    data = open_dataset(folder(tmp_path, {"a": None, "b": f"1 0.5 0.5 0.2 0.2\n{text}\n"}), "test", WANTED)
    with pytest.raises(DataError) as refused:
        data.batch([0])  # the labels of the whole split are checked at once
    assert str(refused.value).startswith(f"{tmp_path / 'labels' / 'val2017' / 'b.txt'}, {reason}")
    assert "\n" not in str(refused.value)


def test_labels_that_are_no_text(tmp_path):
    root = Path(folder(tmp_path, {"a": ""}))
    (root / "labels" / "val2017" / "a.txt").write_bytes(b"\xff\xfe\0")
    with pytest.raises(DataError, match="cannot be read as UTF-8 text"):
        open_dataset(str(root), "test", WANTED).batch([0])


def test_splits_go_by_the_beginning_of_a_folders_name(tmp_path):
    for name, count in (("train2017", 3), ("val2017", 2), ("test-dev", 4)):
        for number in range(count):
            image(tmp_path / "images" / name / f"{number}.jpg", 20, 20)
    (tmp_path / "labels").mkdir()
    lengths = {split: len(open_dataset(str(tmp_path), split, WANTED)) for split in ("train", "test", "all")}
    assert lengths == {"train": 3, "test": 2, "all": 5}
    assert open_dataset(str(tmp_path), "test", WANTED).ids([1]) == ["val2017/1.jpg"]
    for path in (tmp_path / "images" / "val2017").iterdir():
        path.unlink()
    (tmp_path / "images" / "val2017").rmdir()
    assert len(open_dataset(str(tmp_path), "test", WANTED)) == 4
    with pytest.raises(UsageError, match="split is train, test or all, not 'val'"):
        open_dataset(str(tmp_path), "val", WANTED)


def test_an_empty_split_says_where_images_are_expected(tmp_path):
    with pytest.raises(EmptySplitError, match=r"images/train\*"):
        open_dataset(folder(tmp_path, {"a": ""}), "train", WANTED)


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("names: [cat, dog]", ["cat", "dog"]),
        ("path: x\nnames:\n  0: cat\n  1: 'dog: brown'\n", ["cat", "dog: brown"]),
        ("names:\n- 1\n- yes\n", ["1", "yes"]),
    ],
)
def test_names_of_classes(tmp_path, text, classes):
    root = folder(tmp_path, {"a": "1 0.5 0.5 0.2 0.2"})
    (tmp_path / "data.yaml").write_text(text)
    assert open_dataset(root, "test", WANTED).classes == classes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: [cat", "cannot be read as YAML"),
        ("nc: 3", "has no list of names"),
        ("names: {1: cat}", "has no list of names"),
        ("names: [cat, cat]", "names a class twice"),
        ("names: []", "has no list of names"),
    ],
)
def test_wrong_names_of_classes(tmp_path, text, reason):
    root = folder(tmp_path, {"a": ""})
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError) as refused:
        open_dataset(root, "test", WANTED)
    assert reason in str(refused.value) and "\n" not in str(refused.value)


def test_chosen_classes_leave_images_and_numbers_as_they_are(tmp_path):
    root = folder(tmp_path, {"a": "2 0.5 0.5 0.2 0.2\n0 0.2 0.2 0.1 0.1", "b": "1 0.5 0.5 0.2 0.2"})
    chosen = open_dataset(root, "test", WANTED, ["car", "person", "car"])
    pixels, boxes = chosen.batch([0, 1])
    assert [b.classes.tolist() for b in boxes] == [[2, 0], []] and chosen.counted == [0, 2]
    assert len(chosen) == 2 and len(chosen.classes) == 80
    assert (pixels == open_dataset(root, "test", WANTED).batch([0, 1])[0]).all()
    with pytest.raises(UsageError, match="did you mean person"):
        open_dataset(root, "test", WANTED, ["persn"])


def test_boxes_and_classes_are_not_taken_for_each_other(tmp_path):
    root = folder(tmp_path, {"a": ""})
    with pytest.raises(DataError, match="holds boxes for detectors"):
        open_dataset(root, "test", InputRequest(None, 64, 64))
    with pytest.raises(DataError, match="holds boxes for detectors, and the model takes clips"):
        open_dataset(root, "test", InputRequest(16, 64, 64))
    image(tmp_path / "other" / "cat" / "a.png", 20, 20)
    with pytest.raises(DataError, match="has no boxes"):
        open_dataset(str(tmp_path / "other"), "all", WANTED)
    with pytest.raises(UsageError, match="fit='letterbox'"):
        InputRequest(None, 64, 64, labels="boxes")
    with pytest.raises(UsageError, match="fit is one of crop, letterbox"):
        InputRequest(None, 64, 64, fit="stretch")


def test_a_detectors_spec_asks_for_boxes():
    form = {"image": TensorSpec((3, 32, 48))}
    spec = BackboneSpec("detection", form, {"input": form}, fit="letterbox")
    assert InputRequest.of(spec) == InputRequest(None, 32, 48, fit="letterbox", labels="boxes")
    assert InputRequest.of(BackboneSpec("classification", form, {"input": form})) == InputRequest(None, 32, 48)


def test_the_digest_tells_boxes_apart(tmp_path):
    found = set()
    for number, text in enumerate(("0 0.5 0.5 0.2 0.2", "1 0.5 0.5 0.2 0.2", "0 0.5 0.5 0.2 0.3", "")):
        digest = Digest()
        digest.update(*open_dataset(folder(tmp_path / str(number), {"a": text}), "test", WANTED).batch([0]))
        found.add(digest.hexdigest())
    assert len(found) == 4


def test_one_input_has_its_boxes_and_its_size(tmp_path):
    root = folder(tmp_path, {"a": "0 0.5 0.5 0.5 0.5"})
    found = open_input(f"{root}:0", WANTED)
    assert found.size == (80, 40) and found.name == "val2017/a.png" and len(found.label) == 1
    alone = open_input(f"{root}/images/val2017/a.png", WANTED)
    assert alone.size == (80, 40) and alone.label is None and (alone.pixels == found.pixels).all()
    assert open_input(f"{root}/images/val2017/a.png", InputRequest(None, 64, 64)).size is None


def test_a_folder_is_described(tmp_path):
    root = folder(tmp_path, {"a": "0 0.5 0.5 0.5 0.5", "b": ""})
    found = describe(root)
    assert found["sizes"] == {"train": 0, "test": 2} and "1 boxes" in found["description"]
    assert found["entropy_bits"] == [0, 0, 0]  # of the pictures, all of one grey, without the grey around them
    told = CliRunner().invoke(main, ["data", "show", root])
    assert told.exit_code == 0 and "YOLO's layout; COCO's names" in told.stdout


def test_coco128():
    root = Path(os.environ.get("SEMCODEC_DATA", ""), "coco128")
    if not (root / "images").is_dir():
        pytest.skip("SEMCODEC_DATA names no folder with coco128")
    train, test = (open_dataset(str(root), split, WANTED) for split in ("train", "test"))
    assert (len(train), len(test), len(train.classes)) == (128, 64, 80)
    assert train.objects() + test.objects() == 1369
    _, boxes = test.batch(range(64))
    assert all((b.xyxy >= 0).all() and (b.xyxy <= 64).all() for b in boxes)


# -- names and lines ---------------------------------------------------------------------------------------------------


def test_a_repeated_line_counts_once(tmp_path):
    """A perfect detector would have half its boxes missed otherwise."""
    lines = "0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n0 0.50 0.5 0.2 0.20\n0 0.5 0.5 0.2 0.3\n"
    root = folder(tmp_path, {"a": lines, "b": "3 0.5 0.5 0.1 0.1\n" * 3})
    data = open_dataset(root, "test", WANTED)
    _, boxes = data.batch([0, 1])
    assert [b.classes.tolist() for b in boxes] == [[0, 1, 0], [3]]
    assert data.objects() == 4 and data.repeated == 3
    assert "with 4 boxes" in describe(root)["description"] and "3 repeated lines" in describe(root)["description"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("ending", [".txt", ".TXT", ".Txt"])
def test_labels_are_found_in_either_unicode_form_and_case_of_the_ending(tmp_path, form, ending):
    (tmp_path / "labels" / "val").mkdir(parents=True)
    other = "NFD" if form == "NFC" else "NFC"
    image(tmp_path / "images" / "val" / unicodedata.normalize(form, "déjà.PNG"), 80, 40)
    (tmp_path / "labels" / "val" / unicodedata.normalize(other, f"déjà{ending}")).write_text("2 0.5 0.5 0.2 0.2")
    _, [boxes] = open_dataset(str(tmp_path), "test", WANTED).batch([0])
    assert boxes.classes.tolist() == [2]


def test_labels_that_could_be_either_are_refused(tmp_path):
    root = folder(tmp_path, {"a": None})
    for ending in (".TXT", ".Txt"):
        (tmp_path / "labels" / "val2017" / f"a{ending}").write_text("")
    with pytest.raises(DataError, match=r"'a.txt' could be 'a.TXT' and 'a.Txt'"):
        open_dataset(root, "test", WANTED).batch([0])
    (tmp_path / "labels" / "val2017" / "a.txt").write_text("2 0.5 0.5 0.2 0.2")
    assert len(open_dataset(root, "test", WANTED).batch([0])[1][0]) == 1


def test_hidden_files_are_no_images_and_a_mark_of_byte_order_is_no_label(tmp_path):
    root = folder(tmp_path, {"a": "\ufeff2 0.5 0.5 0.2 0.2\n"})
    for name in ("images/val2017/._a.png", "labels/val2017/._a.txt", "images/val2017/.DS_Store"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "images" / ".val").mkdir()
    data = open_dataset(root, "test", WANTED)
    assert data.ids(range(len(data))) == ["val2017/a.png"]
    assert data.batch([0])[1][0].classes.tolist() == [2]


def test_names_that_are_no_utf8_are_shown(tmp_path):
    root = folder(tmp_path, {"a": "2 0.5 0.5 0.2 0.2"})
    for kind, name in (("images", b"\xff.png"), ("labels", b"\xff.txt")):
        base = tmp_path / kind / "val2017"
        (base / f"a{name[-4:].decode()}").rename(
            os.path.join(os.fsencode(base), name).decode("utf-8", "surrogateescape")
        )
    data = open_dataset(root, "test", WANTED)
    assert data.ids([0]) == ["val2017/\\xff.png"]
    assert data.batch([0])[1][0].classes.tolist() == [2]
    json.dumps(describe(root), ensure_ascii=False).encode()


# -- data.yaml ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("names: [no, yes, on, off, null, ~]", ["no", "yes", "on", "off", "null", "~"]),
        ("names: [010, 0x1f, 1e3, .inf, 1_000, 12:30:45]", ["010", "0x1f", "1e3", ".inf", "1_000", "12:30:45"]),
        ("names: [2021-02-31, 2021-13-01]\nmade: 2021-02-31", ["2021-02-31", "2021-13-01"]),
        ("\ufeffnames: {0: no, 1: 'yes'}", ["no", "yes"]),
        ("names: {1: b, 0: a}", ["a", "b"]),
        ("names: &n [a, b]\nother: *n", ["a", "b"]),
    ],
)
def test_names_of_classes_are_the_text_that_is_written(tmp_path, text, classes):
    root = folder(tmp_path, {"a": "1 0.5 0.5 0.2 0.2"})
    (tmp_path / "data.yaml").write_text(text)
    assert open_dataset(root, "test", WANTED).classes == classes


BILLION = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: {0: a, x: b}", "has no list of names"),
        ("names: {0: a, [1]: b}", "cannot be read as YAML"),
        ("names: {00: a, 1: b}", "has no list of names"),
        ("names: [a, [b]]", "the name of class 1 is no text"),
        ("names: [a, '']", "the name of class 1 is no text"),
        ("names: " + "[" * 100_000, "nest deeper than 16"),
        ("x: " + "{a: " * 20, "nest deeper than 16"),
        ("- " * 5000, "nest deeper than 16"),
        (f"{BILLION}names: [*h, a]", "the name of class 0 is no text"),
        ("a: &a [b]\nb: [" + "*a, " * 200 + "]", "more than 100 aliases"),
        ("names: [a]\n" + "x" * (1 << 18), "more than the 262,144 bytes"),
        ("names: [a\0]", "cannot be read as YAML"),
        ("a: &a [*a]\nnames: *a", "cannot be read as YAML"),
        ("!!python/object/apply:os.getcwd []", "has no list of names"),
    ],
)
def test_whatever_is_wrong_with_names_is_one_line_and_takes_no_time(tmp_path, text, reason):
    root = folder(tmp_path, {"a": ""})
    (tmp_path / "data.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(DataError) as refused:
        open_dataset(root, "test", WANTED)
    assert reason in str(refused.value) and "\n" not in str(refused.value)
    assert time.process_time() - began < 5


def test_a_folder_that_ends_like_annotations_makes_no_coco_of_it(tmp_path):
    (tmp_path / "annotations" / "x.json").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError):
        describe(str(tmp_path))
