"""Makes the folders of data that the pages of results name, from clones of the repositories that docs/data.md names.

    python docs/results/make_data.py nips2017 CLONE FOLDER      nips2017, caltech101, pictures, pictures_imagenet,
                                                                coco128, hmdb51_clips or fights
    python docs/results/make_data.py digest FOLDER              the SHA-256 that docs/data.md has for a folder

CLONE is a clone at the commit of the table; FOLDER is made, and must not be there. ``fights`` needs the program ffmpeg.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

from PIL import Image

CALTECH = Path(__file__).with_name("caltech101_images.txt")
"""By class, the numbers of its images for training and for the test."""


def nips2017(clone: Path, out: Path) -> None:
    """Every other image of the development set from the first on, as JPEG of quality 92; indices from 0."""
    rows = {row["ImageId"]: row for row in csv.DictReader((clone / "dataset/dev_dataset.csv").open(newline=""))}
    (out / "images").mkdir()
    with (out / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "imagenet_index", "url", "license", "author", "author_url"])
        for source in sorted((clone / "dataset/images").glob("*.png"))[::2]:
            row = rows[source.stem]
            name = f"{source.stem}.jpg"
            Image.open(source).convert("RGB").save(out / "images" / name, quality=92)
            about = (row["OriginalLandingURL"], row["License"], row["Author"], row["AuthorProfileURL"])
            writer.writerow([name, int(row["TrueLabel"]) - 1, *about])
    (out / "synset_words.txt").write_text(_synsets())


def _synsets() -> str:
    """Names of ImageNet's 1,000 classes in the order of their indices, as timm has them."""
    info = files("timm") / "data" / "_info"
    lines = (info / "imagenet_synset_to_lemma.txt").read_text("utf-8").splitlines()
    names = dict(line.split("\t", 1) for line in lines)
    return "".join(f"{key} {names[key]}\n" for key in (info / "imagenet_synsets.txt").read_text("utf-8").split())


def caltech101(clone: Path, out: Path) -> None:
    """20 images of each class for training and 10 for the test, as they are."""
    for split, listed in _caltech().items():
        (out / f"{split}.txt").write_text("".join(f"{file}\n" for file in listed))
        for file in listed:
            _copy(clone / "101_ObjectCategories" / file, out / file)


def pictures(clone: Path, out: Path) -> None:
    """What is left of Caltech-101's list for training, the background class included: to train without labels."""
    taken = {file for listed in _caltech().values() for file in listed}
    for file in (clone / "train.txt").read_text().split():
        if file not in taken:
            _copy(clone / "101_ObjectCategories" / file, out / file.replace("/", "_"))


def _caltech() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"train": [], "test": []}
    for line in CALTECH.read_text().splitlines():
        name, *numbers = line.split()
        split = "train"
        for number in numbers:
            if number in found:
                split = number
            else:
                found[split].append(f"{name}/image_{int(number):04d}.jpg")
    return found


def pictures_imagenet(clone: Path, out: Path) -> None:
    """One picture a class, its short side 272, as JPEG of quality 86, named by the class."""
    for source in sorted(clone.glob("n*.JPEG")):
        picture = Image.open(source).convert("RGB")
        scale = 272 / min(picture.size)
        size = (round(picture.width * scale), round(picture.height * scale))
        picture.resize(size, Image.Resampling.BICUBIC).save(out / f"{source.stem.partition('_')[0]}.jpg", quality=86)


def coco128(clone: Path, out: Path) -> None:
    """All 128 training images and the first 64 of validation, with their boxes."""
    roots = sorted(path.parents[1] for path in clone.rglob("images/train2017") if "segmentation" not in str(path))
    for split, count in (("train2017", 128), ("val2017", 64)):
        for source in sorted((roots[0] / "images" / split).glob("*.jpg"))[:count]:
            _copy(source, out / "images" / split / source.name)
            boxes = roots[0] / "labels" / split / f"{source.stem}.txt"
            if boxes.exists():
                _copy(boxes, out / "labels" / split / boxes.name)


def hmdb51_clips(clone: Path, out: Path) -> None:
    """The examples, as they are."""
    for source in sorted((clone / "demo_file/examples").glob("*.avi")):
        _copy(source, out / source.name)


def fights(clone: Path, out: Path) -> None:
    """Four of five clips of each class: x264 at crf 23, short side 240, no sound."""
    for kind in ("fight", "noFight"):
        (out / kind).mkdir()
        for number, source in enumerate(sorted((clone / kind).iterdir()), 1):
            if number % 5:
                scale = "scale='if(gt(iw,ih),-2,240)':'if(gt(iw,ih),240,-2)'"
                command = ["ffmpeg", "-v", "error", "-i", str(source), "-an", "-vf", scale, "-c:v", "libx264"]
                subprocess.run([*command, "-crf", "23", str(out / kind / f"{source.stem}.mp4")], check=True)
    _copy(clone / "LICENSE", out / "LICENSE")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def digest(folder: Path) -> str:
    """Of the lines that sha256sum prints for its files, by name in the order of their bytes, hidden ones left out."""
    return hashlib.sha256("".join(_lines(folder)).encode()).hexdigest()


def _lines(folder: Path) -> Iterator[str]:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for name in sorted((name for name in names if not name.startswith(".")), key=str.encode):
        yield f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    made.__name__: made for made in (nips2017, caltech101, pictures, pictures_imagenet, coco128, hmdb51_clips, fights)
}

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["digest", folder]:
            print(digest(Path(folder)))
        case [name, clone, folder] if name in MAKERS:
            Path(folder).mkdir(parents=True)
            MAKERS[name](Path(clone), Path(folder))
            print(f"{folder}: {digest(Path(folder))}")
        case _:
            sys.exit(__doc__)
