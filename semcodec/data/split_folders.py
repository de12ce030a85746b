"""Pictures in folders that name their split: ``images/train2017/``, ``images/val2017/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semcodec.data.base import SPLITS
from semcodec.data.files import visible
from semcodec.data.folders import IMAGE_SUFFIXES

PREFIXES = {"train": ("train",), "test": ("val", "test")}
"""By split, what the names of its folders begin with; the first for which there is one counts."""


def folders_of(images: Path, split: str) -> list[str]:
    """Names of the folders of a split, "train", "test" or "all", in order; none where there is none."""
    names = [path.name for path in visible(images) if path.is_dir()]
    found: list[str] = []
    for name in SPLITS if split == "all" else (split,):
        some = ([one for one in names if one.lower().startswith(prefix)] for prefix in PREFIXES[name])
        found += next(filter(None, some), [])
    return found


def expected(where: str, split: str) -> str:
    """In words, where the pictures of a split are looked for."""
    wanted: Sequence[str] = SPLITS if split == "all" else (split,)
    return " or ".join(f"{where}{prefix}*" for name in wanted for prefix in PREFIXES[name])


def pictures_in(folder: Path) -> list[str]:
    """Names of the pictures in a folder, in order."""
    return [path.name for path in visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
