"""Data sets by name or folder. Importing this imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Literal

from semcodec.data.base import SPLITS, Dataset
from semcodec.data.notes import note
from semcodec.errors import DataError, UsageError, did_you_mean
from semcodec.specs import BOXES, LABELS, MASKS, RECONSTRUCTION, InputRequest


@dataclass(frozen=True)
class Named:
    """A set that is made on the fly. target: its class; how many classes and samples it has."""

    target: str
    kind: Literal["video", "image"]
    classes: int
    train: int
    test: int
    description: str


NAMED = {
    "digits-motion": Named(
        "semcodec.data.digits:DigitsMotion",
        "video",
        10,
        20_000,
        1_000,
        "clips of a handwritten digit moving over textured ground; the class is the motion",
    ),
    "digits-scenes": Named(
        "semcodec.data.scenes:DigitsScenes",
        "image",
        10,
        10_000,
        1_000,
        "still scenes of handwritten digits over textured ground, with class, boxes and masks",
    ),
}


HUB_PREFIX = "hf:"
WHOLE = (BOXES, MASKS)
"""Labels that lie somewhere in a picture, all of which is needed."""
_MISSING = {
    BOXES: "has no boxes, which the model finds; give data in YOLO's layout or with COCO's annotations",
    MASKS: "has no masks, which the model finds; give images/ and masks/, VOC's layout or COCO's annotations",
}
"""By labels that are asked for, what is said of data without them."""


def open_dataset(
    name_or_path: str,
    split: str = "test",
    request: InputRequest | None = None,
    classes: Sequence[str] | None = None,
    *,
    task: str | None = None,
) -> Dataset:
    """A named set or a folder, at the size that ``request`` wants.

    A folder holds class folders of videos or images, ``images/`` and ``labels.csv``, ``images/`` and ``labels/``
    with boxes, ``images/`` and ``masks/``, VOC's folders, COCO's ``annotations/``, or webdataset's tars.
    ``hf:OWNER/NAME[@REVISION]`` is a data set of the Hugging Face hub. split: "train" or "test"; for these and folders
    also "all". Without a request: clips of 16x224x224 or images of 224x224, with the labels that ``task`` needs
    where it is known and the data have them. classes: the names of those whose boxes or masks count, where these are
    not all.
    A ``DataNote`` says where a split is all that there is.
    Raises DataError where nothing of that name or path is there, or it holds the wrong kind, and UsageError.
    """
    dataset = open_quietly(name_or_path, split, request, classes, task=task)
    if split == "test" and dataset.split is None:
        note(f"{name_or_path}: {dataset.division}: all {len(dataset):,} samples are used")
    return dataset


def name_of(data: str | os.PathLike[str]) -> str:
    """A data set's name, or a folder's path, as text. Raises UsageError for what is neither."""
    try:
        return os.fspath(data)
    except TypeError:
        raise UsageError(f"a data set is named by a text or a path, not by {type(data).__name__}") from None


def open_unlabelled(name_or_path: str, request: InputRequest) -> Dataset:
    """What training without labels takes: the training split of a set or folder, or every file of a folder of any form.

    Raises DataError and UsageError as ``open_dataset``.
    """
    from semcodec.data.unlabelled import LabelsLeftOut, Unlabelled, needed

    if needed(name_or_path, request):
        return Unlabelled(name_or_path, request)
    dataset = open_dataset(name_or_path, "train", request)
    return LabelsLeftOut(dataset) if dataset.natural and not dataset.varies else dataset


def open_quietly(
    name_or_path: str,
    split: str,
    request: InputRequest | None,
    classes: Sequence[str] | None = None,
    *,
    task: str | None = None,
) -> Dataset:
    """``open_dataset`` without its note."""
    dataset = open_plain(name_or_path, split, request, task)
    if request is not None and request.labels not in {LABELS.get(task, task) for task in dataset.tasks}:
        raise DataError(f"{name_or_path}: {_MISSING.get(request.labels) or _missing(request.labels)}")
    if classes is None:
        return dataset
    from semcodec.data.chosen import ChosenClasses

    if request is not None and request.labels not in (BOXES, MASKS):
        raise UsageError("classes are chosen among boxes or masks, and the model finds none; leave out --classes")
    return ChosenClasses(dataset, classes)


def open_plain(name_or_path: str, split: str, request: InputRequest | None, task: str | None = None) -> Dataset:
    """``open_dataset`` whatever labels it has, of all classes, and without its note."""
    if request is not None and request.labels == RECONSTRUCTION:
        from semcodec.data.own_pixels import OwnPixels

        first = open_plain(name_or_path, split, None).tasks[0]
        return OwnPixels(open_plain(name_or_path, split, replace(request, labels=LABELS.get(first, first), sized=True)))
    wanted = LABELS.get(task, task) if task else None
    named = NAMED.get(name_or_path)
    if named is not None:
        if split not in SPLITS:
            raise UsageError(f"{name_or_path} has the splits train and test, not {split!r}")
        module, _, name = named.target.partition(":")
        opened: Dataset = getattr(import_module(module), name)(split, request or _default(named.kind, wanted))
        return opened
    if is_named(name_or_path):
        from semcodec.data.hub_data import open_hub

        return open_hub(name_or_path, split, request, wanted)
    if not os.path.isdir(name_or_path):
        raise DataError(say_unknown(name_or_path))
    from semcodec.data.forms import form_of

    labels = wanted if request is None else request.labels
    form = form_of(name_or_path, labels)
    if request is None and labels in WHOLE and labels in form.GIVES:
        request = _default("image", labels)
    return form.open_split(name_or_path, split, request)


def tasks_of(name_or_path: str) -> tuple[str, ...]:
    """What models can do with a set or folder, by all labels that it has; those of its first form come first.

    Raises DataError where nothing of that name or path is there.
    """
    if name_or_path in NAMED or not os.path.isdir(name_or_path):
        return _with_own_pixels(open_plain(name_or_path, "test", None))
    from semcodec.data.forms import forms_of

    first, *others = forms_of(name_or_path)
    whole = _with_own_pixels(first.open_split(name_or_path, "all", None))
    labels = {labels for form in (first, *others) for labels in form.GIVES}
    return (*whole, *(task for task, given in LABELS.items() if given in labels & set(WHOLE) and task not in whole))


def _with_own_pixels(dataset: Dataset) -> tuple[str, ...]:
    return (*dataset.tasks, RECONSTRUCTION) if dataset.kind == "image" else dataset.tasks


def is_named(text: str) -> bool:
    """Whether a data set is named by the hub's name for it: ``hf:OWNER/NAME[@REVISION]``."""
    return text.startswith(HUB_PREFIX)


def check_dataset(name_or_path: str) -> None:
    """Raise DataError where ``open_dataset`` would find neither a named set nor a folder, at once."""
    if is_named(name_or_path):
        from semcodec.data.hub_data import check_name

        check_name(name_or_path)
    elif name_or_path not in NAMED and not os.path.isdir(name_or_path):
        raise DataError(say_unknown(name_or_path))


def rows() -> list[dict[str, Any]]:
    """The named sets for listing: name, kind, classes (how many), sizes by split, description."""
    return [
        {
            "name": name,
            "kind": named.kind,
            "classes": named.classes,
            "sizes": {"train": named.train, "test": named.test},
            "description": named.description,
        }
        for name, named in NAMED.items()
    ]


def _missing(labels: str) -> str:
    return f"has no labels of the kind {labels!r}, which the model's task needs; choose other data"


def _default(kind: str, labels: str | None = None) -> InputRequest:
    if labels in WHOLE and labels is not None:
        return InputRequest(None, 224, 224, fit="letterbox", labels=labels)
    return InputRequest(16 if kind == "video" else None, 224, 224)


def say_unknown(text: str) -> str:
    """In words, that there is no such set, and what may have been meant."""
    if os.path.isfile(text):
        return f"{text} is a file where a data set is wanted: a name ({', '.join(NAMED)}) or a folder"
    hint = suggest(text) or f"; named sets are {', '.join(NAMED)}"
    return f"no such data set or folder: {text}{hint}"


def suggest(text: str) -> str:
    """In words, the named set that is written most alike; nothing where none is."""
    hint = did_you_mean(text, NAMED)
    return f"; {hint}" if hint else ""
