"""A folder with images/ and labels.csv is a data set, and whatever is wrong with it is one line with its place."""

from __future__ import annotations

import os
import unicodedata
import warnings
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from semcodec.cli import LazyGroup, main
from semcodec.data.datasets import open_dataset
from semcodec.data.description import describe
from semcodec.data.images import read_image
from semcodec.data.inputs import open_input
from semcodec.data.notes import DataNote
from semcodec.errors import DataError, UsageError
from semcodec.specs import InputRequest

WANTED = InputRequest(None, 16, 16)


@pytest.fixture
def root(tmp_path) -> Path:
    """Four images, named out of order, whose grey level tells the file."""
    (tmp_path / "images" / "more").mkdir(parents=True)
    for level, name in enumerate(("d.png", "b.png", "more/c.png", "a.png")):
        Image.new("RGB", (20, 30), (50 * level,) * 3).save(tmp_path / "images" / name)
    table(tmp_path, "image,label", "d.png,dog", "b.png,cat", "more/c.png,dog", '"a.png","cow, brown"')
    return tmp_path


def table(root: Path, *lines: str) -> None:
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def synsets(root: Path, count: int = 1000) -> list[str]:
    names = [f"thing {n}, object {n}" if n not in (134, 517) else "crane" for n in range(count)]
    lines = [f"n{n:08} {name}" for n, name in enumerate(names)]
    (root / "synset_words.txt").write_text("\n".join(lines) + "\n")
    return names


def refused(root: Path, *words: str, split: str = "test") -> None:
    with pytest.raises(DataError) as error:
        open_dataset(str(root), split, WANTED)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_samples_come_in_the_order_of_the_table(root):
    data = open_dataset(str(root), "test", WANTED)
    assert (data.kind, data.name, len(data), data.varies) == ("image", str(root), 4, True)
    assert data.classes == ["cat", "cow, brown", "dog"]
    assert data.ids(range(4)) == ["d.png", "b.png", "more/c.png", "a.png"]
    pixels, labels = data.batch([3, 0, 2])
    assert labels.tolist() == [1, 2, 2]
    assert labels.dtype == np.int64
    assert pixels.shape == (3, 16, 16, 3)
    assert pixels[:, 0, 0, 0].tolist() == [150, 0, 100]
    pixels, label, classes, name, _ = open_input(f"{root}:1", WANTED)
    assert (pixels.shape, label, classes, name) == ((1, 16, 16, 3), 0, data.classes, "b.png")
    assert open_dataset(str(root)).batch([0])[0].shape == (1, 224, 224, 3)


def test_pixels_are_made_as_the_request_says(root):
    Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 60, 3), dtype=np.uint8)).save(
        root / "images" / "d.png"
    )
    request = InputRequest(None, 16, 16, 0.8, "bicubic")
    pixels, _ = open_dataset(str(root), "test", request).batch([0])
    assert np.array_equal(pixels[0], read_image(root / "images" / "d.png", request))
    assert not np.array_equal(pixels[0], read_image(root / "images" / "d.png", WANTED))


def test_without_a_split_column_all_is_for_the_test(root):
    for split in ("test", "all"):
        assert len(open_dataset(str(root), split, WANTED)) == 4
    refused(root, "labels.csv", "no column split", split="train")
    with pytest.raises(UsageError):
        open_dataset(str(root), "validation", WANTED)


def test_a_split_column_settles_the_splits(root):
    table(root, "split,image,label", "train,d.png,dog", "test,b.png,cat", "train,a.png,cow")
    train, test, whole = (open_dataset(str(root), split, WANTED) for split in ("train", "test", "all"))
    assert [data.ids(range(len(data))) for data in (train, test)] == [["d.png", "a.png"], ["b.png"]]
    assert train.classes == test.classes == whole.classes == ["cat", "cow", "dog"]
    assert len(whole) == 3
    table(root, "split,image,label", "train,d.png,dog")
    refused(root, "no image of split 'test'")
    assert describe(str(root))["sizes"] == {"train": 1, "test": 0}
    table(root, "split,image,label", "train,d.png,dog", "val,b.png,cat")
    refused(root, "labels.csv, line 3", "'val'")


@pytest.mark.parametrize("column", ["image", "file", "filename", "path", " File "])
def test_columns_go_by_their_names(root, column):
    (root / "labels.csv").write_bytes(f"\ufeffauthor,{column},Label\r\nx,b.png,cat\r\n\r\ny,a.png,cow\r\n".encode())
    data = open_dataset(str(root), "test", WANTED)
    assert data.ids([0, 1]) == ["b.png", "a.png"]
    assert data.classes == ["cat", "cow"]


def test_indexes_count_the_classes_of_imagenet(root):
    table(root, "image,imagenet_index,label", "b.png,517,x", "a.png,0,y", "d.png,999,z")
    refused(root, "synset_words.txt", "imagenet_index")
    names = synsets(root)
    data = open_dataset(str(root), "test", WANTED)
    assert data.classes == names
    assert data.classes[134] == data.classes[517] == "crane"
    assert data.batch([0, 1, 2])[1].tolist() == [517, 0, 999]
    for wrong in ("1000", "-1", "x", "1.0", "9" * 5000):
        table(root, "image,imagenet_index", "b.png,1", f"a.png,{wrong}")
        refused(root, "labels.csv, line 3", "0 to 999")
    table(root, "image,imagenet_index", "b.png,1")
    synsets(root, 999)
    refused(root, "synset_words.txt", "999 lines")
    (root / "synset_words.txt").write_text("n01440764 tench\ngoldfish\n")
    refused(root, "synset_words.txt, line 2")
    (root / "synset_words.txt").write_bytes(b"\xff\xfe")
    refused(root, "synset_words.txt", "UTF-8")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["photo,label", "b.png,cat"], ["line 1", "image, file, filename, path"]),
        (["image,class", "b.png,cat"], ["line 1", "label or imagenet_index"]),
        (["image,label"], ["no image"]),
        ([""], ["line 1"]),
        (["image,label", "b.png,cat", "a.png"], ["line 3", "1 columns"]),
        (["image,label", "b.png,cat,"], ["line 2", "3 columns"]),
        (["image,label", "b.png,cat", "absent.png,cat"], ["line 3", "absent.png"]),
        (["image,label", "more,cat"], ["line 2", "more"]),
        (["image,label", "x" * 400 + ",cat"], ["line 2"]),
        (["image,label", '"a\nb.png",cat'], ["line 3"]),
        (["image,label", "b.png,cat", "b.png,dog"], ["line 3", "b.png", "line 2"]),
        (["image,label", ",cat"], ["line 2", "image is empty"]),
        (["image,label", "b.png, "], ["line 2", "label is empty"]),
        (["image,label", 'b.png,"cat'], ["line 2", "CSV"]),
        (["image,label", 'b.png,"cat"x'], ["line 2", "CSV"]),
    ],
)
def test_whatever_is_wrong_is_one_line_with_its_place(root, lines, words):
    table(root, *lines)
    refused(root, "labels.csv", *words)


def test_other_wrongs_are_one_line(root):
    (root / "labels.csv").write_bytes(b"image,label\nb.png,\xff\n")
    refused(root, "labels.csv", "UTF-8")
    table(root, "image,label", "b.png,cat")
    with pytest.raises(DataError, match="holds images where the model takes videos"):
        open_dataset(str(root), "test", InputRequest(4, 16, 16))
    (root / "images" / "b.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"b\.png"):
        open_dataset(str(root), "test", WANTED).batch([0])
    with pytest.raises(IndexError):
        open_dataset(str(root), "test", WANTED).batch([1])
    (root / "labels.csv").unlink()
    for file in (root / "images").rglob("*.png"):
        file.unlink()
    refused(root, "labels.csv", "<class>/<file>")


def test_show_tells_what_a_folder_holds(root):
    shown = CliRunner().invoke(main, ["data", "show", str(root)], catch_exceptions=False).stdout
    for words in ("images/ and labels.csv", "all for the test", "train 0, test 4", "cat; cow, brown; dog"):
        assert words in shown
    synsets(root)
    table(root, "image,imagenet_index", "b.png,1", "a.png,1")
    shown = CliRunner().invoke(main, ["data", "show", str(root)], catch_exceptions=False).stdout
    assert "1 of 1,000 classes occur" in shown
    assert "thing 19, object 19; ... and 980 more" in shown
    assert len(describe(str(root))["classes"]) == 1000
    assert "labels.csv" in CliRunner().invoke(main, ["data", "list", "--help"]).stdout


@pytest.mark.shared_data
def test_real_photographs():
    root = Path(os.environ.get("SEMCODEC_DATA", ""), "nips2017")
    if not (root / "labels.csv").is_file():
        pytest.skip("SEMCODEC_DATA names no folder with nips2017/labels.csv")
    data = open_dataset(str(root), "test", InputRequest(None, 64, 64, 0.9, "bicubic"))
    assert (len(data), len(data.classes)) == (500, 1000)
    assert data.classes[0] == "tench, Tinca tinca"
    assert [n for n, name in enumerate(data.classes) if name == "crane"] == [134, 517]
    assert data.ids([0]) == ["000b7d55b6184b08.jpg"]
    pixels, labels = data.batch(range(8))
    assert labels[:2].tolist() == [388, 326]
    assert all(p.std() > 5 for p in pixels)
    assert "305 of 1,000" in describe(str(root))["description"]


# One rule for what a list may name, and how it is read


@pytest.mark.parametrize("listed", ["../../secret/s.png", "../secret/s.png", "more/../../secret/s.png", "{tmp}/s.png"])
def test_no_table_leads_out_of_its_folder(root, tmp_path, listed):
    (tmp_path.parent / "secret").mkdir(exist_ok=True)
    for path in (tmp_path / "s.png", tmp_path.parent / "secret" / "s.png"):
        Image.new("RGB", (8, 8)).save(path)
    table(root, "image,label", "b.png,cat", f"{listed.format(tmp=tmp_path)},cat")
    refused(root, "labels.csv, line 3", "leads out of the folder")


@pytest.mark.parametrize("listed", ["../../secret/s.png", "../s.png", "/etc/passwd"])
def test_nor_does_a_list_of_a_split(root, tmp_path, listed):
    Image.new("RGB", (8, 8)).save(tmp_path / "s.png")
    (root / "labels.csv").unlink()
    (root / "test.txt").write_text(f"{listed}\n")
    refused(root, "test.txt", "leads out of the folder")


def test_one_image_is_listed_once_however_it_is_named(root):
    table(root, "image,label", "b.png,cat", "more/../b.png,cat")
    refused(root, "line 3", "listed already in line 2")
    table(root, "image,label", "./b.png,cat")
    assert open_dataset(str(root), "test", WANTED).ids([0]) == ["./b.png"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_found_in_either_unicode_form(root, form):
    other = "NFD" if form == "NFC" else "NFC"
    folder = root / "images" / unicodedata.normalize(form, "été")
    folder.mkdir()
    (root / "images" / "b.png").rename(folder / unicodedata.normalize(form, "déjà.png"))
    table(root, "image,label", unicodedata.normalize(other, "été/déjà.png") + ",cat")
    assert open_dataset(str(root), "test", WANTED).batch([0])[0].shape == (1, 16, 16, 3)


@pytest.mark.parametrize("name", ["labels.csv", "synset_words.txt"])
def test_a_mark_of_byte_order_is_no_part_of_a_text(root, name):
    synsets(root)
    table(root, "image,imagenet_index", "b.png,1")
    before = open_dataset(str(root), "test", WANTED)
    path = root / name
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    after = open_dataset(str(root), "test", WANTED)
    assert (after.classes, after.ids([0])) == (before.classes, before.ids([0]))


def test_what_is_used_for_want_of_a_split_is_said(root):
    with pytest.warns(DataNote, match=r"labels.csv has no column split: all 4 samples are used"):
        open_dataset(str(root), "test", WANTED)
    table(root, "image,label,split", "b.png,cat,test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_dataset(str(root), "test", WANTED)
        table(root, "image,label", "b.png,cat")
        describe(str(root))
        open_dataset(str(root), "all", WANTED)
        with pytest.raises(DataError, match=r"0 to 0 in its test split \(labels.csv has no column split\), not 9"):
            open_input(f"{root}:9", WANTED)


def test_the_command_line_writes_a_note_in_one_line(root):
    @click.command()
    def command():
        open_dataset(str(root), "test", WANTED)
        open_dataset(str(root), "test", WANTED)

    group = LazyGroup("toy")
    group.params.append(click.Option(["--debug"], is_flag=True))
    group.resolve_command = lambda ctx, args: ("toy", command, [])
    done = CliRunner().invoke(group, ["toy"])
    assert done.exit_code == 0 and done.stdout == ""
    assert done.stderr == f"note: {root}: labels.csv has no column split: all 4 samples are used\n"


def test_show_goes_on_over_an_image_that_cannot_be_read(root):
    whole = (root / "images" / "b.png").read_bytes()
    (root / "images" / "b.png").write_bytes(whole[: len(whole) // 2])
    done = CliRunner().invoke(main, ["data", "show", str(root)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "1 of the first 4 samples cannot be read: " in done.stdout and "b.png" in done.stdout
    for name in ("a", "d", "more/c"):
        (root / "images" / f"{name}.png").write_bytes(b"broken")
    assert CliRunner().invoke(main, ["data", "show", str(root)]).exit_code == 1
