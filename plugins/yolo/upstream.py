"""ultralytics, imported so that it computes and does nothing else.

Left to itself, importing it writes a settings file to the user's home, asks name servers whether there is a network,
changes how numpy and torch print, how torch saves and how Pillow opens what is no image, and later installs packages
and reports what is run. Here settings go to a folder that is deleted when the process ends, and none of this is done.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image

from semcodec.errors import UsageError, did_you_mean

OFF = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
HEADS = {
    "Detect": "DetectionModel",
    "v10Detect": "DetectionModel",
    "Segment": "SegmentationModel",
    "Segment26": "SegmentationModel",
    "SemanticSegment": "SemanticSegmentationModel",
}
"""Of models that detect or segment by a picture alone, for all classes: their last layer, and what builds them."""


@cache
def ultralytics(module: str) -> ModuleType:
    """A module of ultralytics, by its name there. Where ultralytics is in use already it stays as it is."""
    read = Image.open
    if "ultralytics" not in sys.modules:
        with _undone():
            os.environ["YOLO_CONFIG_DIR"] = _folder().name
            import_module("ultralytics").settings.update(sync=False)
    import_module("ultralytics.utils.patches")  # which changes Image.open once, now rather than when first needed
    found = import_module(f"ultralytics.{module}")
    Image.open = read
    return found


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="semcodec-yolo-")


@contextmanager
def _undone() -> Iterator[None]:
    """What an import changes for the whole process is put back, but for what keeps ultralytics off the network."""
    environment, save = {**os.environ, **OFF}, torch.save
    os.environ.update(OFF)
    try:
        with warnings.catch_warnings(), np.printoptions(), torch._tensor_str.printoptions():
            yield
    finally:
        torch.save = save
        os.environ.clear()
        os.environ.update(environment)


def configuration(model: str) -> dict[str, Any]:
    """The configuration that a model is built from. Raises UsageError for a name that is none of theirs."""
    known = catalogue()
    if model not in known:
        hint = did_you_mean(model, known, f"there are {', '.join(sorted(known)[:12])}, ...", most=3)
        raise UsageError(f"ultralytics has no model {model!r} that detects or segments: {hint}")
    path, scale = known[model]
    return {**_read(path), "scale": scale}


def build(model: str, classes: int) -> Any:
    """A model as ultralytics builds it, untrained. Raises UsageError for a name that is none of theirs."""
    described = configuration(model)
    kind = getattr(ultralytics("nn.tasks"), HEADS[described["head"][-1][2]])
    return kind(described, ch=3, nc=classes, verbose=False)


@cache
def catalogue() -> dict[str, tuple[Path, str]]:
    """Every model that detects or segments by its name: the file that describes it, and its size there."""
    found: dict[str, tuple[Path, str]] = {}
    for path in sorted(_package().glob("cfg/models/*/*.yaml")):
        described = _read(path)
        if described["head"][-1][2] in HEADS:
            for scale in described.get("scales", {"": None}):
                found[_name(path.stem, scale)] = path, scale
    return found


def _package() -> Path:
    file = ultralytics("cfg").__file__
    assert file is not None
    return Path(file).parents[1]


def _name(stem: str, scale: str) -> str:
    """As ultralytics calls it: yolov8 of size n with four maps, yolov8n-p2; its YOLOv5, with another head, yolov5nu."""
    family, dash, more = stem.partition("-")
    if family == "yolov5":
        return f"{family}{scale}{more.removeprefix('p')}u"
    return stem if family.endswith(scale) else f"{family}{scale}{dash}{more}"


def _read(path: Path) -> dict[str, Any]:
    import yaml  # comes with ultralytics

    described: dict[str, Any] = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return described
