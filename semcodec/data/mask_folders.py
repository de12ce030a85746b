"""Pictures with masks beside them: ``root/images/[<split>/]`` and ``root/masks/[<split>/]``, ``classes.yaml``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from semcodec.data.base import EmptySplitError, check_split, summary_of
from semcodec.data.files import Names, printable, visible
from semcodec.data.mask_files import NAMES, MaskFiles, Numbers, mask_request
from semcodec.data.split_folders import expected, folders_of, pictures_in
from semcodec.errors import DataError
from semcodec.specs import MASKS as LABELS
from semcodec.specs import InputRequest

IMAGES, MASKS = "images", "masks"
GIVES = (LABELS,)


class MaskFolders(MaskFiles):
    """Pictures in ``root/images/<folder>`` with the masks ``root/masks/<folder>/<name>.png``.

    The folders of the split "train" begin with train, those of "test" with val, or where there are none with test;
    pictures that lie in ``root/images`` itself are all for the test. ``root/masks/classes.yaml`` or
    ``root/classes.yaml`` says what numbers mean. A picture without a mask is left out.

    without: how many pictures have no mask.
    Raises DataError where no picture of the split has a mask, and for a mask without a picture.
    """

    def __init__(self, root: str | os.PathLike[str], split: str, request: InputRequest) -> None:
        check_split(split)
        images, masks = Path(root, IMAGES), Path(root, MASKS)
        named = next((path for path in (masks / NAMES, Path(root, NAMES)) if path.is_file()), None)
        if named is None:
            raise DataError(f"{root}: has masks and no {NAMES} that says what their numbers mean")
        folders = folders_of(images, split)
        self.split: str | None = split
        self.division = f"by the folders {', '.join(map(printable, folders))} of {IMAGES}/"
        if not folders_of(images, "all"):
            self.split, self.division = None, f"{IMAGES}/ has no folders train* and val*"
            folders = [] if split == "train" else [""]
        files: list[tuple[str, str]] = []
        self.without = 0
        for folder in folders:
            pairs, without = _pairs(images, masks, folder)
            files += pairs
            self.without += without
        super().__init__(root, images, masks, files, Numbers.read(named), request)
        if not files:
            where = "" if self.without else f"; expected in {expected(f'{images}/', split)}"
            what = f"none of its {self.without:,} pictures" if self.without else "no picture"
            raise EmptySplitError(f"{root}: {what} of split {split!r} has a mask in {masks}{where}")


def _pairs(images: Path, masks: Path, folder: str) -> tuple[list[tuple[str, str]], int]:
    """(picture, mask) of a folder, and how many pictures have no mask."""
    there = masks / folder
    names = Names(
        (path.name for path in visible(there) if path.suffix.lower() == ".png") if there.is_dir() else (), True
    )
    pictures, found = pictures_in(images / folder), []
    for picture in pictures:
        try:
            mask = names.find(f"{os.path.splitext(picture)[0]}.png")
        except DataError as error:
            raise DataError(f"{there}: {error}") from error
        if mask is not None:
            found.append((os.path.join(folder, picture), os.path.join(folder, mask)))
    used = {os.path.basename(mask) for _, mask in found}
    alone = sorted(set(names) - used)
    if alone:
        raise DataError(f"{there / alone[0]}: is a mask without a picture in {images / folder}")
    return found, len(pictures) - len(found)


def holds(root: str | os.PathLike[str]) -> bool:
    """Whether a folder is of this form."""
    return Path(root, IMAGES).is_dir() and Path(root, MASKS).is_dir()


def open_split(root: str | os.PathLike[str], split: str, request: InputRequest | None) -> MaskFolders:
    """As ``MaskFolders``; without a request 224x224."""
    return MaskFolders(root, split, request or mask_request())


def summary(root: str | os.PathLike[str]) -> dict[str, Any]:
    """What a folder holds, without reading an image: name, kind, classes, sizes by split, description."""
    whole = MaskFolders(root, "all", mask_request())
    description = f"{IMAGES}/ and {MASKS}/ with {len(whole):,} masks; {NAMES}"
    if whole.without:
        description += f"; {whole.without:,} pictures without a mask are left out"
    return summary_of(whole, lambda split: MaskFolders(root, split, mask_request()), description)
