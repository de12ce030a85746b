"""The forms of folders that are data sets, and which of them a folder is of."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Protocol

from semcodec.data.base import Dataset
from semcodec.specs import InputRequest

FORMS = ("boxes", "mask_folders", "voc", "coco", "labelled", "shards", "folders")
"""Modules of this room in the order in which they are asked; the last takes what no other does."""


class Form(Protocol):
    """What such a module has. GIVES: the labels that its data sets have, as ``InputRequest.labels`` names them."""

    GIVES: tuple[str, ...]

    def holds(self, root: str | os.PathLike[str], /) -> bool:
        """Whether a folder is of this form."""

    def open_split(self, root: str | os.PathLike[str], split: str, request: InputRequest | None, /) -> Dataset:
        """The folder as a data set. Raises DataError, and UsageError for another word than train, test and all."""

    def summary(self, root: str | os.PathLike[str], /) -> dict[str, Any]:
        """What it holds, without reading a picture: name, kind, classes, sizes by split, description."""


def forms_of(root: str | os.PathLike[str]) -> list[Form]:
    """All forms that a folder is of, at least one; class folders only where it is of no other."""
    *others, last = (_form(name) for name in FORMS)
    return [form for form in others if form.holds(root)] or [last]


def form_of(root: str | os.PathLike[str], labels: str | None) -> Form:
    """The form that gives these labels; the first that a folder is of where none does, or none is asked for."""
    forms = forms_of(root)
    return next((form for form in forms if labels in form.GIVES), forms[0])


def is_listed(root: str | os.PathLike[str]) -> bool:
    """Whether a folder is of a form that says by its files what labels there are, rather than of class folders."""
    return forms_of(root) != [_form(FORMS[-1])]


def _form(name: str) -> Form:
    module: Any = import_module(f"semcodec.data.{name}")
    return module  # type: ignore[no-any-return]
