"""What a data set is, for ``semcodec data show``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from semcodec.data.base import Dataset
from semcodec.data.datasets import is_named, open_plain, rows, say_unknown
from semcodec.data.forms import Form, forms_of
from semcodec.errors import DataError
from semcodec.specs import InputRequest

if TYPE_CHECKING:
    from semcodec.data.base import UInt8

MEASURED = 64
"""Samples whose entropy ``describe`` measures: the first of the test split, or of all where that is empty."""


def describe(name_or_path: str) -> dict[str, Any]:
    """The same of one set or folder, with the names of its classes and ``entropy_bits``: by channel, order 0."""
    forms: list[Form] = []
    found: dict[str, Any] | None = next((row for row in rows() if row["name"] == name_or_path), None)
    if is_named(name_or_path):
        from semcodec.data import hub_data

        found = hub_data.summary(name_or_path)
    elif found is None:
        if not os.path.isdir(name_or_path):
            raise DataError(say_unknown(name_or_path))
        forms = forms_of(name_or_path)
        found = forms[0].summary(name_or_path)
        also = [form.summary(name_or_path)["description"] for form in forms[1:]]
        found["description"] = "; ".join((found["description"], *(f"and {text}" for text in also)))
    from semcodec.data.order0 import order0

    dataset: Dataset
    split = "test" if found["sizes"]["test"] else "all"
    request = InputRequest(16 if found["kind"] == "video" else None, 64, 64)
    if is_named(name_or_path):
        named = hub_data.open_hub(name_or_path, split, None)
        dataset, pictures = named, partial(named.pictures, request=request)
    elif forms and hasattr(whole := forms[0].open_split(name_or_path, split, None), "pictures"):
        dataset, pictures = whole, partial(whole.pictures, request=request)
    else:
        dataset = open_plain(name_or_path, split, request)
        pictures = partial(_pixels, dataset)
    pixels, wrong = _what_can_be_read(pictures, min(MEASURED, len(dataset)))
    if wrong:
        of = f"{len(wrong)} of the first {len(wrong) + len(pixels)} samples cannot be read"
        found["description"] += f"; {of}: {wrong[0]}"
    return found | {"classes": list(dataset.classes), "entropy_bits": order0(pixels)}


def _pixels(dataset: Dataset, indices: Sequence[int]) -> UInt8:
    return dataset.batch(indices)[0]


def _what_can_be_read(read: Callable[[Sequence[int]], UInt8], count: int) -> tuple[UInt8, list[DataError]]:
    """Pixels of the first ``count`` samples less those that cannot be read, and what is wrong with these.

    Raises DataError where none can be read.
    """
    import numpy as np

    pixels, wrong = [], []
    for index in range(count):
        try:
            pixels.append(read([index]))
        except DataError as error:
            wrong.append(error)
    if not pixels:
        raise wrong[0]
    return np.concatenate(pixels), wrong
