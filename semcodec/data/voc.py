"""Pictures with masks in the layout of Pascal VOC: ``JPEGImages/``, ``SegmentationClass/``, ``ImageSets/``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from semcodec.class_masks import IGNORED
from semcodec.data.base import EmptySplitError, check_split, summary_of
from semcodec.data.files import read_lines, visible
from semcodec.data.mask_files import NAMES, MaskFiles, Numbers, mask_request
from semcodec.errors import DataError
from semcodec.specs import MASKS, InputRequest

PICTURES, CLASSES, SETS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
GIVES = (MASKS,)
LISTS = {"train": "train.txt", "test": "val.txt"}
VOC = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]  # fmt: skip


class VocFolders(MaskFiles):
    """Pictures in ``JPEGImages/`` with the masks ``SegmentationClass/<name>.png``, of a palette, whose 255 is ignored.

    ``ImageSets/Segmentation/train.txt`` and ``val.txt`` list the names of the splits train and test; without them all
    are for the test. Classes are VOC's 21, or what ``classes.yaml`` says. Raises DataError.
    """

    def __init__(self, root: str | os.PathLike[str], split: str, request: InputRequest) -> None:
        check_split(split)
        images, masks = Path(root, PICTURES), Path(root, CLASSES)
        lists = {name: Path(root, SETS, file) for name, file in LISTS.items() if Path(root, SETS, file).is_file()}
        self.split = split if lists else None
        self.division = f"by {SETS}/" if lists else f"{SETS}/ has no lists"
        if lists:
            wanted = lists.values() if split == "all" else [lists[split]] if split in lists else []
            names = [(path, line) for path in wanted for line in read_lines(path) if line]
        else:
            found = (path.stem for path in visible(masks) if path.suffix == ".png")
            names = [] if split == "train" else [(masks, name) for name in found]
        files = [_pair(images, masks, listed, name) for listed, name in names]
        named = Path(root, NAMES)
        numbers = Numbers.read(named) if named.is_file() else Numbers.of(enumerate(VOC), [IGNORED], "VOC")
        super().__init__(root, images, masks, files, numbers, request)
        if not files:
            raise EmptySplitError(f"{root}: has no masks of split {split!r}")


def _pair(images: Path, masks: Path, listed: Path, name: str) -> tuple[str, str]:
    if "/" in name or name.startswith("."):
        raise DataError(f"{listed}: {name!r} is no name of a picture in {images}")
    for where, file in ((images, f"{name}.jpg"), (masks, f"{name}.png")):
        if not (where / file).is_file():
            raise DataError(f"{listed}: names {name}, and there is no {where / file}")
    return f"{name}.jpg", f"{name}.png"


def holds(root: str | os.PathLike[str]) -> bool:
    """Whether a folder is of this form."""
    return Path(root, PICTURES).is_dir() and Path(root, CLASSES).is_dir()


def open_split(root: str | os.PathLike[str], split: str, request: InputRequest | None) -> VocFolders:
    """As ``VocFolders``; without a request 224x224."""
    return VocFolders(root, split, request or mask_request())


def summary(root: str | os.PathLike[str]) -> dict[str, Any]:
    """What a folder holds, without reading an image: name, kind, classes, sizes by split, description."""
    whole = VocFolders(root, "all", mask_request())
    description = f"{PICTURES}/ and {CLASSES}/ with {len(whole):,} masks, VOC's layout"
    return summary_of(whole, lambda split: VocFolders(root, split, mask_request()), description)
