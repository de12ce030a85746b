"""Pictures with COCO's annotations, ``annotations/*.json``: boxes for detectors, polygons and RLE for segmentation."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from semcodec.class_masks import MOST_CLASSES
from semcodec.data.base import SPLITS, Dataset, EmptySplitError, check_split, summary_of
from semcodec.data.contents import digest_of, file_digests
from semcodec.data.files import inside, printable, visible
from semcodec.data.images import read_image, size_of
from semcodec.data.mask_files import mask_request
from semcodec.data.split_folders import PREFIXES
from semcodec.errors import DataError, UsageError, first_line
from semcodec.specs import BOXES, MASKS, InputRequest

if TYPE_CHECKING:
    from semcodec.boxes import Boxes
    from semcodec.data.base import Labels, UInt8

    Bool = npt.NDArray[np.bool_]

ANNOTATIONS, BEST = "annotations", "instances"
GIVES = (BOXES, MASKS)
BACKGROUND = "background"
"""Of the pixels that no annotation covers."""
MOST_BYTES = 1 << 30
"""Of an annotation file."""
MOST_PIXELS = 1 << 28
"""Of a picture whose annotations are painted."""
_EDGE = 1.0
"""Pixels outside a picture that a box or a polygon may reach, for rounding."""


class _Picture(msgspec.Struct):
    id: int
    file_name: str
    width: int
    height: int


class _Rle(msgspec.Struct):
    counts: list[int] | str
    size: tuple[int, int]


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float] | None = None
    segmentation: list[list[float]] | _Rle = []
    iscrowd: int = 0


class _Category(msgspec.Struct):
    id: int
    name: str


class _File(msgspec.Struct):
    images: list[_Picture]
    categories: list[_Category]
    annotations: list[_Annotation] = []


class _Labelled(msgspec.Struct):
    """A picture and what is in it."""

    path: str
    size: tuple[int, int]
    objects: list[_Annotation]


class CocoFolder(Dataset):
    """Pictures with the objects that ``root/annotations/<name>.json`` lists.

    The file of the split "train" has "train" in its name, that of "test" has "val", or where there is none "test"; of
    several the one that begins with "instances". A file that names no split is all for the test. Pictures lie in
    ``root/images/<folder>``, ``root/<folder>``, ``root/images`` or ``root``, where the folder is what follows the last
    "_" of the file's name.

    For detectors labels are boxes; groups (``iscrowd``) are no objects. For segmentation they are masks, the smaller
    object on top, and what no object covers is "background", the first class. Raises DataError, naming the file.
    """

    kind = "image"
    natural = True

    def __init__(self, root: str | os.PathLike[str], split: str, request: InputRequest) -> None:
        check_split(split)
        if request.labels not in GIVES:
            takes = "clips" if request.kind == "video" else "images of one class each"
            raise DataError(f"{root}: holds COCO's annotations, and the model takes {takes}; choose other data")
        self.root, self.request, self.name = Path(root), request, printable(str(root))
        files = _files(self.root)
        self.split = None if files.keys() == {"all"} else split
        self.division = "by the names of annotations/" if self.split else "annotations/ names no split"
        if "all" in files:
            wanted = [] if split == "train" else [files["all"]]
        else:
            wanted = [files[name] for name in (SPLITS if split == "all" else (split,)) if name in files]
        read = [_read(path) for path in wanted]
        known = [found.categories for found in read] or [_read(path).categories for path in files.values()]
        self._places, self.classes = _classes(known, wanted, masks=request.labels == MASKS)
        self._samples = [one for path, found in zip(wanted, read, strict=True) for one in self._labelled(path, found)]
        if not self._samples:
            raise EmptySplitError(f"{root}: {ANNOTATIONS}/ has no picture of split {split!r}")

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("detection",) if self.request.labels == BOXES else ("segmentation",)

    def __len__(self) -> int:
        return len(self._samples)

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Labels]:
        pixels = self.pictures(indices, self.request)
        for index, size in zip(indices, self.sizes(indices), strict=True):
            sample = self._samples[index]
            if size != sample.size:
                listed, own = ("x".join(map(str, one)) for one in (sample.size, size))
                raise DataError(f"{self.root / sample.path}: has {own} pixels where {ANNOTATIONS}/ says {listed}")
        if self.request.labels == BOXES:
            return pixels, [self._boxes(index) for index in indices]
        return pixels, [self._mask(index) for index in indices]

    def pictures(self, indices: Sequence[int], request: InputRequest) -> UInt8:
        """The pictures as ``request`` wants them, (B, H, W, 3)."""
        pixels = np.empty((len(indices), *request.shape), np.uint8)
        for row, index in enumerate(indices):
            pixels[row] = read_image(self.root / self._samples[index].path, request)
        return pixels

    def sizes(self, indices: Sequence[int]) -> list[tuple[int, int]]:
        return [size_of(self.root / self._samples[index].path) for index in indices]

    def content(self, count: int) -> str:
        files = file_digests(self.root, (sample.path for sample in self._samples[:count]))
        labels = [msgspec.json.encode(sample.objects) for sample in self._samples[:count]]
        return digest_of([self.request.labels, self.classes, *zip(files, labels, strict=True)])

    def ids(self, indices: Sequence[int]) -> list[str]:
        """Paths relative to the root."""
        return [printable(self._samples[index].path) for index in indices]

    def objects(self) -> int:
        """How many annotations there are."""
        return sum(len(sample.objects) for sample in self._samples)

    def _labelled(self, path: Path, found: _File) -> list[_Labelled]:
        folder = path.stem.rpartition("_")[2]
        parents = [f"images/{folder}/", f"{folder}/", "images/", ""]
        samples: dict[int, _Labelled] = {}
        for picture in found.images:
            name = inside(picture.file_name)
            at = next((parent + name for parent in parents if (self.root / (parent + name)).is_file()), None)
            if at is None:
                raise DataError(
                    f"{path}: names the picture {name!r}, which is not in {', '.join(parents[:3])} or above"
                )
            if picture.id in samples:
                raise DataError(f"{path}: has two pictures of the id {picture.id}")
            samples[picture.id] = _Labelled(at, (picture.width, picture.height), [])
        for one in found.annotations:
            if one.image_id not in samples:
                raise DataError(f"{path}: has an annotation of picture {one.image_id}, which it does not list")
            if one.category_id not in self._places:
                raise DataError(f"{path}: has an annotation of category {one.category_id}, which it does not list")
            samples[one.image_id].objects.append(one)
        return list(samples.values())

    def _boxes(self, index: int) -> Boxes:
        from semcodec.boxes import Boxes, Letterbox

        sample = self._samples[index]
        objects = [one for one in sample.objects if not one.iscrowd]
        rows = np.array([self._box(sample, one) for one in objects], np.float64).reshape(-1, 4)
        place = Letterbox.of(*sample.size, self.request.width, self.request.height)
        return place.to_input(Boxes.of(rows, [self._places[one.category_id] for one in objects]))

    def _box(self, sample: _Labelled, one: _Annotation) -> tuple[float, float, float, float]:
        if one.bbox is None:
            raise DataError(f"{self.root / sample.path}: has an annotation without bbox in {ANNOTATIONS}/")
        x, y, width, height = one.bbox
        right, bottom = sample.size
        if not (min(width, height) >= 0 and _within((x, y, x + width, y + height), sample.size)):
            raise DataError(
                f"{self.root / sample.path}: the box {one.bbox} in {ANNOTATIONS}/ is not within the picture"
            )
        return max(x, 0), max(y, 0), min(x + width, right), min(y + height, bottom)

    def _mask(self, index: int) -> UInt8:
        sample = self._samples[index]
        width, height = sample.size
        if width * height > MOST_PIXELS:
            raise DataError(f"{self.root / sample.path}: has more pixels than the {MOST_PIXELS:,} that are painted")
        out = np.zeros((height, width), np.uint8)
        painted = [(self._area(sample, one), self._places[one.category_id]) for one in sample.objects]
        for covered, number in sorted(painted, key=lambda row: -int(row[0].sum())):
            out[covered] = number
        return out

    def _area(self, sample: _Labelled, one: _Annotation) -> Bool:
        width, height = sample.size
        try:
            if isinstance(one.segmentation, _Rle):
                if one.segmentation.size != (height, width):
                    raise ValueError(f"an RLE of {one.segmentation.size} in a picture of {(height, width)}")
                return run_lengths(one.segmentation.counts, height, width)
            return polygons(one.segmentation, height, width)
        except ValueError as error:
            raise DataError(f"{self.root / sample.path}: {ANNOTATIONS}/ has {first_line(error)}") from error


def run_lengths(counts: list[int] | str, height: int, width: int) -> Bool:
    """COCO's RLE, numbers or its text, as bool (height, width). Raises ValueError where it is none of that size."""
    numbers = _from_text(counts) if isinstance(counts, str) else counts
    if any(n < 0 for n in numbers) or sum(numbers) != height * width:
        raise ValueError(f"an RLE whose runs do not fill {width}x{height} pixels")
    values = np.arange(len(numbers)) % 2 == 1
    return np.repeat(values, numbers).reshape(width, height).T


def _from_text(text: str) -> list[int]:
    """The runs of an RLE's text: five bits a character, and from the fourth run on the change over two runs."""
    numbers: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError("an RLE whose text is damaged")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("an RLE whose text ends inside a number")
    return numbers


def polygons(rings: Sequence[Sequence[float]], height: int, width: int) -> Bool:
    """What polygons of x and y in turn cover, as pycocotools draws them, bool (height, width).

    Raises ValueError for what is no polygon within the picture, SemcodecError without pycocotools.
    """
    from semcodec.errors import SemcodecError

    for ring in rings:
        if len(ring) < 6 or len(ring) % 2:
            raise ValueError(f"a polygon of {len(ring)} numbers, where three points have six")
        if not _within(ring, (width, height)):
            raise ValueError("a polygon that is not within the picture")
    if not rings:
        return np.zeros((height, width), np.bool_)
    try:
        from pycocotools import mask
    except ImportError:
        raise SemcodecError("polygons need pycocotools: pip install pycocotools") from None
    found = mask.decode(mask.frPyObjects([list(ring) for ring in rings], height, width))
    return np.asarray(found.any(2), np.bool_)


def _within(corners: Sequence[float], size: tuple[int, int]) -> bool:
    """Whether x and y in turn lie in a picture."""
    return all(
        math.isfinite(value) and -_EDGE <= value <= size[place % 2] + _EDGE for place, value in enumerate(corners)
    )


def _files(root: Path) -> dict[str, Path]:
    """By split, or "all", the file of annotations."""
    named = _named(root / ANNOTATIONS)
    named.sort(key=lambda path: not path.name.startswith(BEST))
    found: dict[str, Path] = {}
    for split, words in PREFIXES.items():
        of_split = ([path for path in named if word in path.stem.lower()] for word in words)
        some: list[Path] = next(filter(None, of_split), [])
        if len(some) > 1 and not some[0].name.startswith(BEST):
            raise DataError(f"{some[0].parent}: {some[0].name} and {some[1].name} may both be of split {split!r}")
        if some:
            found[split] = some[0]
    if not found and len(named) > 1:
        raise DataError(f"{root / ANNOTATIONS}: none of its files names a split; leave one, or name them train and val")
    return found or {"all": named[0]}


def _named(folder: Path) -> list[Path]:
    return [path for path in visible(folder) if path.suffix == ".json" and path.is_file()]


def _read(path: Path) -> _File:
    if os.path.getsize(path) > MOST_BYTES:
        raise DataError(f"{path}: has more than the {MOST_BYTES:,} bytes that are read")
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as COCO's annotations ({first_line(error)})") from error
    if any(one.width < 1 or one.height < 1 for one in found.images):
        raise DataError(f"{path}: has a picture without width and height")
    return found


def _classes(
    known: Sequence[Sequence[_Category]], files: Sequence[Path], *, masks: bool
) -> tuple[dict[int, int], list[str]]:
    """By category, the place of its class, and the classes' names, by id. Of masks the first is the background."""
    categories = {one.id: one.name for one in known[0]} if known else {}
    if not categories or any({one.id: one.name for one in other} != categories for other in known):
        where = files[0] if files else ANNOTATIONS
        raise DataError(f"{where}: has no categories, or others than the file of the other split")
    names = [categories[number] for number in sorted(categories)]
    if len(set(names)) < len(names) or (masks and BACKGROUND in names) or not all(names):
        raise DataError(f"{files[0] if files else ANNOTATIONS}: names a category twice, or one without a name")
    if masks and len(names) >= MOST_CLASSES:
        raise UsageError(f"{len(names)} categories are more than the {MOST_CLASSES - 1} that a mask can have")
    places = {number: place + masks for place, number in enumerate(sorted(categories))}
    return places, [BACKGROUND, *names] if masks else names


def holds(root: str | os.PathLike[str]) -> bool:
    """Whether a folder is of this form."""
    folder = Path(root, ANNOTATIONS)
    return folder.is_dir() and bool(_named(folder))


def open_split(root: str | os.PathLike[str], split: str, request: InputRequest | None) -> CocoFolder:
    """As ``CocoFolder``; without a request boxes in 224x224."""
    return CocoFolder(root, split, request or InputRequest(None, 224, 224, fit="letterbox", labels=BOXES))


def summary(root: str | os.PathLike[str]) -> dict[str, Any]:
    """What a folder holds, without reading an image: name, kind, classes, sizes by split, description."""
    whole = CocoFolder(root, "all", mask_request())
    description = f"{ANNOTATIONS}/ of COCO's form with {whole.objects():,} objects: boxes and masks"
    found = summary_of(whole, lambda split: CocoFolder(root, split, mask_request()), description)
    return {**found, "classes": [name for name in whole.classes if name != BACKGROUND]}
