"""Data sets in the form of the hub's, here from local folders, and tars in webdataset's form."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import time

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from semcodec.cli import main
from semcodec.data.base import EmptySplitError
from semcodec.data.datasets import check_dataset, open_dataset, tasks_of
from semcodec.data.inputs import open_input
from semcodec.data.shards import LARGEST_HEADER
from semcodec.errors import DataError
from semcodec.specs import BOXES, MASKS, InputRequest

REQUEST = InputRequest(None, 32, 32)
SEGMENT = InputRequest(None, 64, 64, fit="letterbox", labels=MASKS)
DETECT = InputRequest(None, 64, 64, fit="letterbox", labels=BOXES)


def png(level: int, size=(40, 20)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(data, "png")
    return data.getvalue()


def mask_png(quarters) -> bytes:
    """Numbers of classes in the four quarters of a picture of 40x20."""
    data = io.BytesIO()
    Image.fromarray(np.array(quarters, np.uint8).repeat(10, 0).repeat(20, 1)).save(data, "png")
    return data.getvalue()


# -- the hub's form ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """``hf:`` and a folder that ``datasets`` wrote: classes by number in three splits, as names, and objects."""
    datasets = pytest.importorskip("datasets", reason="needs datasets, of the extra datasets")
    folder = tmp_path_factory.mktemp("hub")
    named = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})

    def rows(levels):
        pictures = [{"bytes": png(level), "path": None} for level in levels]
        return datasets.Dataset.from_dict({"image": pictures, "label": [n % 2 for n in range(len(levels))]}, named)

    datasets.DatasetDict({"train": rows([10, 20, 30]), "validation": rows([40, 50])}).save_to_disk(folder / "saved")
    (folder / "parquet").mkdir()
    rows([1, 2, 3, 4]).to_parquet(folder / "parquet" / "train-00000.parquet")
    plain = datasets.Features({"img": datasets.Image(), "label": datasets.Value("string")})
    pictures = [{"bytes": png(level), "path": None} for level in (1, 2)]
    datasets.Dataset.from_dict({"img": pictures, "label": ["b", "a"]}, plain).save_to_disk(folder / "words")
    thing = {"bbox": datasets.Sequence(datasets.Value("float32"), 4), "category": datasets.ClassLabel(names=["x", "y"])}
    boxed = datasets.Features({"image": datasets.Image(), "objects": datasets.Sequence(thing)})
    told = {"image": pictures, "objects": [{"bbox": [[4, 2, 10, 10]], "category": [1]}, {"bbox": [], "category": []}]}
    datasets.Dataset.from_dict(told, boxed).save_to_disk(folder / "boxes")
    masked = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    masks = [{"bytes": mask, "path": None} for mask in (mask_png([[0, 1], [2, 255]]), mask_png([[7, 1], [1, 1]]))]
    datasets.Dataset.from_dict({"image": pictures, "mask": masks}, masked).save_to_disk(folder / "masks")
    return folder


def test_classes_splits_and_pictures_of_the_hubs_form(table):
    name = f"hf:{table / 'saved'}"
    train, test = open_dataset(name, "train", REQUEST), open_dataset(name, "test", REQUEST)
    assert (len(train), len(test), len(open_dataset(name, "all", REQUEST))) == (3, 2, 5)
    assert train.classes == test.classes == ["cat", "dog"]
    pixels, labels = test.batch([1, 0])
    assert labels.tolist() == [1, 0]
    assert pixels[0].mean() == 50
    assert open_dataset(name, "all", REQUEST).batch([4])[0].mean() == 50
    assert test.content(2) != train.content(2)
    assert test.ids([1]) == [f"{name}:1"]
    assert open_input(f"{name}:1", REQUEST).label == 1


def test_a_folder_of_parquet_files_with_one_split_is_all_there_is(table):
    name = f"hf:{table / 'parquet'}"
    with pytest.warns(UserWarning, match="all 4 samples are used"):
        assert len(open_dataset(name, "test", REQUEST)) == 4
    assert len(open_dataset(name, "train", REQUEST)) == 4


def test_labels_that_are_words_are_classes(table):
    dataset = open_dataset(f"hf:{table / 'words'}", "train", REQUEST)
    assert dataset.classes == ["a", "b"]
    assert dataset.batch([0, 1])[1].tolist() == [1, 0]


def test_objects_are_boxes_of_what_is_in_the_picture(table):
    dataset = open_dataset(f"hf:{table / 'boxes'}", "train", DETECT)
    pixels, [first, none] = dataset.batch([0, 1])
    assert pixels.shape == (2, 64, 64, 3)
    assert dataset.tasks == ("detection",)
    assert first.classes.tolist() == [1]
    # 40x20 in 64x64: 1.6 times as large, 16 pixels from the top
    assert np.allclose(first.xyxy.numpy(), [[6.4, 19.2, 22.4, 35.2]])
    assert len(none) == 0
    assert dataset.sizes([0]) == [(40, 20)]
    done = CliRunner().invoke(main, ["data", "show", f"hf:{table / 'boxes'}", "--format", "json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["classes"] == ["x", "y"]
    assert tasks_of(f"hf:{table / 'boxes'}") == ("detection", "reconstruction")
    assert tasks_of(f"hf:{table / 'saved'}") == ("classification", "reconstruction")


def test_masks_are_named_by_a_file_beside_the_table(table):
    name, beside = f"hf:{table / 'masks'}", table / "masks" / "id2label.json"
    with pytest.raises(DataError, match=r"nothing names the numbers of its masks: id2label.json"):
        open_dataset(name, "test", SEGMENT)
    beside.write_text(json.dumps({"0": "unlabeled", "1": "road", "2": "sky"}))
    dataset = open_dataset(name, "test", SEGMENT)
    assert (dataset.classes, dataset.tasks) == (["road", "sky"], ("segmentation",))
    pixels, [mask] = dataset.batch([0])
    assert pixels.shape == (1, 64, 64, 3)
    assert mask.shape == (20, 40)
    assert np.unique(mask[:10]).tolist() == [0, 255]
    assert np.unique(mask[10:]).tolist() == [1, 255]
    with pytest.raises(DataError, match=r"masks:1, its mask: has the number 7, which .*id2label.json does not name"):
        dataset.batch([1])
    beside.write_text("[1]")
    with pytest.raises(DataError, match="does not name classes by their numbers"):
        open_dataset(name, "test", SEGMENT)
    beside.unlink()
    (table / "masks" / "classes.yaml").write_text("classes: [void, road, sky]\nignored: [7]\n")
    assert open_dataset(name, "test", SEGMENT).batch([1])[1][0][0, 0] == 255
    done = CliRunner().invoke(main, ["data", "show", name, "--format", "json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["classes"] == ["road", "sky"]
    assert tasks_of(name) == ("segmentation", "reconstruction")


def test_what_the_hub_does_not_have_is_one_line(table, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    began = time.monotonic()
    with pytest.raises(DataError, match="cannot be reached: Connection refused"):
        open_dataset("hf:someone/some@main", "test", REQUEST)
    assert time.monotonic() - began < 10
    with pytest.raises(DataError, match="names no data set"):
        check_dataset("hf:a/b/c")
    with pytest.raises(DataError, match="has no column objects"):
        open_dataset(f"hf:{table / 'saved'}", "test", DETECT)
    with pytest.raises(DataError, match="name one of its samples"):
        open_input("hf:someone/some", REQUEST)
    (table / "none").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(f"hf:{table / 'none'}", "test", REQUEST)


def test_a_picture_that_is_none_is_told_by_its_number(tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs datasets, of the extra datasets")
    named = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])})
    pictures = [{"bytes": b"no picture", "path": None}, None]
    datasets.Dataset.from_dict({"image": pictures, "label": [0, 0]}, named).save_to_disk(tmp_path / "bad")
    dataset = open_dataset(f"hf:{tmp_path / 'bad'}", "train", REQUEST)
    with pytest.raises(DataError, match=r"bad:0: is no image"):
        dataset.batch([0])
    with pytest.raises(DataError, match=r"bad:1: has no picture"):
        dataset.batch([1])


def test_without_datasets_the_cure_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9/other")
    with pytest.raises(DataError, match=r"pip install 'semcodec\[datasets\]'"):
        open_dataset("hf:someone/some", "test", REQUEST)


# -- tars --------------------------------------------------------------------------------------------------------------


def tar(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path):
    tar(tmp_path / "train-0.tar", {"a.png": png(10), "a.cls": b"1", "b.cls": b"0\n", "b.png": png(20)})
    tar(tmp_path / "train-1.tar", {"x/c.json": b'{"label": 1}', "x/c.png": png(30)})
    tar(tmp_path / "val-0.tar", {"d.png": png(40), "d.cls": b"0"})
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    return tmp_path


def test_samples_of_tars_in_order(shards):
    train, test = open_dataset(str(shards), "train", REQUEST), open_dataset(str(shards), "test", REQUEST)
    assert train.classes == ["cat", "dog"]
    assert train.ids(range(3)) == ["train-0.tar/a", "train-0.tar/b", "train-1.tar/x/c"]
    pixels, labels = train.batch([2, 0, 1])
    assert labels.tolist() == [1, 1, 0]
    assert [one.mean() for one in pixels] == [30, 10, 20]
    assert test.batch([0])[0].mean() == 40
    assert len(open_dataset(str(shards), "all", REQUEST)) == 4
    done = CliRunner().invoke(main, ["data", "show", str(shards), "--format", "json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["sizes"] == {"train": 3, "test": 1}


def test_labels_without_a_list_of_classes_are_those_that_occur(tmp_path):
    tar(tmp_path / "all.tar", {"a.png": png(1), "a.txt": b"dog", "b.png": png(2), "b.txt": b"cat"})
    with pytest.warns(UserWarning, match="all 2 samples"):
        dataset = open_dataset(str(tmp_path), "test", REQUEST)
    assert dataset.classes == ["cat", "dog"]
    assert dataset.batch([0])[1].tolist() == [1]
    with pytest.raises(EmptySplitError):
        open_dataset(str(tmp_path), "train", REQUEST)


class Boom:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was executed')",)


def test_a_pickle_in_a_tar_is_never_read(tmp_path):
    bad = pickle.dumps(Boom())
    tar(tmp_path / "test-0.tar", {"a.pkl": bad, "a.pyd": bad, "a.png": png(3), "a.cls": b"0", "a.pth": bad})
    assert open_dataset(str(tmp_path), "test", REQUEST).batch([0])[0].mean() == 3


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a.png": b"none", "a.cls": b"0"}, "a: is no image"),
        ({"a.png": png(1)}, "a has no label"),
        ({"a.png": png(1), "a.json": b"[[["}, "says no class"),
        ({"a.png": png(1), "a.cls": b" "}, "is empty"),
        ({"a.png": png(1), "a.cls": b"0" * 70_000}, "70,000 bytes"),
    ],
)
def test_what_is_wrong_in_a_tar_is_one_line(tmp_path, members, said):
    tar(tmp_path / "test.tar", members)
    with pytest.raises(DataError, match=said) as caught:
        open_dataset(str(tmp_path), "test", REQUEST).batch([0])
    assert "test.tar" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tar_that_is_none_or_lies_about_its_lengths(tmp_path):
    path = tmp_path / "test.tar"
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match="cannot be read as a tar"):
        open_dataset(str(tmp_path), "test", REQUEST)
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 64 * LARGEST_HEADER
    path.write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(DataError, match="describes a member in more"):
        open_dataset(str(tmp_path), "test", REQUEST)
    tar(path, {"a.cls": b"0", "a.png": png(1)})
    path.write_bytes(path.read_bytes()[:1600])
    with pytest.raises(DataError, match=r"cannot be read as a tar|ends within|is no image|cannot be read as an image"):
        open_dataset(str(tmp_path), "test", REQUEST).batch([0])
