"""Checkpoints of other libraries: what their classes are called, and how many there are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semcodec._files import read_regular

MOST_CLASSES = 1 << 16
LAST_LAYERS = ("classifier", "head", "fc", "head.fc", "classifier.fc", "last_linear")
"""As timm's and Hugging Face's classifiers call the one that gives a number for each class."""
LARGEST_CONFIG = 1 << 26
"""Bytes of a ``config.json`` that is read."""


def class_names(path: Path) -> list[str] | None:
    """Class names of another library's checkpoint, from the config.json beside it: Hugging Face's form or timm's.

    None where there is no such file, or it names no classes, or not as many as the tensors have: it is there to help,
    and what a model needs are the tensors.
    """
    try:
        config = json.loads(read_regular(path.with_name("config.json"), LARGEST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return None
    names = _named_classes(config) if isinstance(config, dict) else None
    return names if names and class_count(path) in (None, len(names)) else None


def class_count(path: Path) -> int | None:
    """How many classes another library's checkpoint tells apart, by its last layer's name; None for other names."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            here = set(file.keys()) & {f"{layer}.weight" for layer in LAST_LAYERS}
            counts = {file.get_slice(name).get_shape()[0] for name in here}
    except (SafetensorError, OSError, IndexError):
        return None
    return counts.pop() if len(counts) == 1 else None


def _named_classes(config: Mapping[str, Any]) -> list[str] | None:
    """``id2label`` of Hugging Face's form, ``label_names`` of timm's; timm's ``num_classes`` alone numbers them."""
    by_index, names, count = config.get("id2label"), config.get("label_names"), config.get("num_classes")
    if isinstance(by_index, dict) and all(str(i) in by_index for i in range(len(by_index))):
        names = [by_index[str(i)] for i in range(len(by_index))]
    number = count if isinstance(count, int) and 0 < count <= MOST_CLASSES else None
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        return [f"class {i}" for i in range(number)] if number else None
    return names if number in (None, len(names)) else None
