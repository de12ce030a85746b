"""The script that makes folders of data, on small stand-ins of the repositories that docs/data.md names."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from semcodec.data import open_dataset

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "docs/results/make_data.py"
spec = importlib.util.spec_from_file_location("make_data", SCRIPT)
make_data = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_data)


@pytest.fixture
def clone(tmp_path):
    return tmp_path / "clone"


def picture(path: Path, shade: int = 0, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 100, 50)).save(path)


def made(name: str, clone: Path, out: Path) -> Path:
    done = subprocess.run([sys.executable, SCRIPT, name, clone, out], capture_output=True, text=True, check=True)
    assert done.stdout == f"{out}: {make_data.digest(out)}\n"
    return out


def test_nips2017(clone, tmp_path):
    ids = ["b", "a", "d", "c", "e"]
    for number, name in enumerate(ids):
        picture(clone / f"dataset/images/{name}.png", 40 * number)
    head = ["ImageId", "URL", "x1", "y1", "x2", "y2", "TrueLabel", "TargetClass", "OriginalLandingURL", "License",
            "Author", "AuthorProfileURL"]  # fmt: skip
    with (clone / "dataset/dev_dataset.csv").open("w", newline="") as file:
        rows = [[name, "u", 0, 0, 1, 1, 10 + i, 5, f"l{name}", "cc", "A, B", "p"] for i, name in enumerate(ids)]
        csv.writer(file).writerows([head, *rows])
    out = made("nips2017", clone, tmp_path / "out")
    assert sorted(path.name for path in (out / "images").iterdir()) == ["a.jpg", "c.jpg", "e.jpg"]
    lines = (out / "labels.csv").read_text().splitlines()
    assert lines == ["image,imagenet_index,url,license,author,author_url", 'a.jpg,10,la,cc,"A, B",p',
                     'c.jpg,12,lc,cc,"A, B",p', 'e.jpg,13,le,cc,"A, B",p']  # fmt: skip
    assert len(open_dataset(str(out), "all")) == 3


def test_caltech101_and_the_pictures_that_are_left(clone, tmp_path, monkeypatch):
    listed = ["ant/image_0002.jpg", "ant/image_0003.jpg", "ant/image_0005.jpg", "Faces/image_0001.jpg"]
    for file in [*listed, "ant/image_0007.jpg"]:
        picture(clone / "101_ObjectCategories" / file)
    (clone / "train.txt").write_text("\n".join(listed) + "\n")
    monkeypatch.setattr(make_data, "CALTECH", tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("ant train 2 5 test 7\n")
    for name in ("caltech101", "pictures"):
        (tmp_path / name).mkdir()
        make_data.MAKERS[name](clone, tmp_path / name)
    assert (tmp_path / "caltech101/train.txt").read_text() == "ant/image_0002.jpg\nant/image_0005.jpg\n"
    assert len(open_dataset(str(tmp_path / "caltech101"), "test")) == 1
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"ant_image_0003.jpg", "Faces_image_0001.jpg"}


def test_the_images_of_caltech101_are_those_of_the_page():
    """101 classes, 20 and 10 of each; the lists that this makes are the ones that were measured."""
    found = make_data._caltech()
    assert {split: len(files) for split, files in found.items()} == {"train": 2020, "test": 1010}
    assert not set(found["train"]) & set(found["test"])
    digests = {s: hashlib.sha256("".join(f"{f}\n" for f in files).encode()).hexdigest() for s, files in found.items()}
    assert digests == {
        "train": "1c478e1c8747b17f74f4cb993945b62152310d7c56a36fb14f6327e9585fdba6",
        "test": "b1e84dfd3f7dba82583ba20a6f0d1d7859e4a337231c56a7f3d65cb702385905",
    }


def test_coco128(clone, tmp_path):
    for split, count in (("train2017", 3), ("val2017", 70)):
        for number in range(count):
            picture(clone / f"images/{split}/{number:012}.jpg")
            label = clone / f"labels/{split}/{number:012}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 0.5 0.5 0.2 0.2\n")
    (clone / "labels/val2017/000000000005.txt").unlink()
    out = made("coco128", clone, tmp_path / "out")
    assert len(list((out / "images/train2017").iterdir())) == 3
    assert len(list((out / "images/val2017").iterdir())) == 64
    assert len(list((out / "labels/val2017").iterdir())) == 63


def test_others(clone, tmp_path):
    picture(clone / "n01440764_tench.JPEG", size=(600, 300))
    out = made("pictures_imagenet", clone, tmp_path / "imagenet")
    assert Image.open(out / "n01440764.jpg").size == (544, 272)
    (clone / "demo_file/examples").mkdir(parents=True)
    (clone / "demo_file/examples/a.avi").write_bytes(b"clip")
    out = made("hmdb51_clips", clone, tmp_path / "hmdb")
    assert (out / "a.avi").read_bytes() == b"clip"
    line = f"{hashlib.sha256(b'clip').hexdigest()}  a.avi\n"
    assert make_data.digest(out) == hashlib.sha256(line.encode()).hexdigest()


def test_fights(clone, tmp_path, monkeypatch):
    """Which clips, and what ffmpeg is asked for; it need not be here."""
    for kind in ("fight", "noFight"):
        (clone / kind).mkdir(parents=True)
        for number in range(1, 7):
            (clone / kind / f"{kind}{number}.mp4").write_bytes(b"")
    (clone / "LICENSE").write_text("MIT")
    asked: list[list[str]] = []
    monkeypatch.setattr(make_data.subprocess, "run", lambda command, check: asked.append(command))
    (tmp_path / "out").mkdir()
    make_data.fights(clone, tmp_path / "out")
    assert [Path(command[4]).stem for command in asked][:5] == ["fight1", "fight2", "fight3", "fight4", "fight6"]
    assert len(asked) == 10 and all(command[-3:-1] == ["-crf", "23"] for command in asked)


def test_every_folder_of_the_page_is_made_or_said_not_to_be():
    page = (ROOT / "docs/data.md").read_text()
    table = page.partition("| folder | how")[2].partition("\n\n")[0]
    named = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    assert named == set(make_data.MAKERS) | {"activities"}
    assert len(re.findall(r"`[0-9a-f]{64}`", page)) == len(named) + 3
