"""Makes what the detector's codec in examples/zoo learned from: mosaics of four pictures, beside COCO's train images.

    python docs/results/mosaics.py OUT coco128 PICTURES...

OUT gets the layout of boxes: 3,600 mosaics without any, each of four parts of pictures that are drawn from the folders
(which may be named several times) and enlarged by up to 1.5, and COCO's train images, eight times each, by links.
"""

from __future__ import annotations

import random
from argparse import ArgumentParser
from pathlib import Path

from PIL import Image

COUNT, COPIES = 3600, 8
SIDE, NEAREST = 640, 224
"""Pixels along a side, and from a border to where the four parts meet, at least."""
ENLARGED = (1, 1, 1.25, 1.5)


def part(path: Path, width: int, height: int, rng: random.Random) -> Image.Image:
    """So many pixels of a picture that covers them, mirrored or not."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    scale = max(width / picture.width, height / picture.height) * rng.choice(ENLARGED)
    size = max(width, round(picture.width * scale)), max(height, round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    x, y = rng.randint(0, picture.width - width), rng.randint(0, picture.height - height)
    picture = picture.crop((x, y, x + width, y + height))
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else picture


def mosaic(paths: list[Path], rng: random.Random) -> Image.Image:
    made = Image.new("RGB", (SIDE, SIDE))
    x, y = (rng.randint(NEAREST, SIDE - NEAREST) for _ in range(2))
    for left, right in ((0, x), (x, SIDE)):
        for top, bottom in ((0, y), (y, SIDE)):
            made.paste(part(rng.choice(paths), right - left, bottom - top, rng), (left, top))
    return made


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("coco", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    given = parser.parse_args()
    images, labels = given.out / "images" / "train", given.out / "labels" / "train"
    for folder in (images, labels):
        folder.mkdir(parents=True)
    paths = [p for folder in given.pictures for p in sorted(folder.rglob("*")) if p.suffix.lower() in (".jpg", ".jpeg")]
    for number in range(COUNT):
        mosaic(paths, random.Random(number)).save(images / f"mosaic-{number:04}.jpg", quality=92)
        (labels / f"mosaic-{number:04}.txt").touch()
    for path in sorted((given.coco / "images" / "train2017").iterdir()):
        boxes = given.coco / "labels" / "train2017" / f"{path.stem}.txt"
        for copy in range(COPIES):
            (images / f"coco{copy}-{path.name}").symlink_to(path.resolve())
            if boxes.exists():
                (labels / f"coco{copy}-{path.stem}.txt").symlink_to(boxes.resolve())


if __name__ == "__main__":
    main()
