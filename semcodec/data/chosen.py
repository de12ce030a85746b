"""A data set with boxes or masks of which some classes alone count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from semcodec.data.base import Dataset, View
from semcodec.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from semcodec.data.base import Labels, UInt8


FOUND = {"detection", "segmentation"}
"""Tasks of which some classes alone may count."""


class ChosenClasses(View):
    """``inner`` less the boxes of classes other than ``names``; every image stays. Raises UsageError.

    Classes keep their numbers, ``counted`` has those that were chosen. Masks stay as they are: a pixel of another class
    is none of those that count, whatever it is taken for.
    """

    def __init__(self, inner: Dataset, names: Sequence[str]) -> None:
        if not FOUND & set(inner.tasks):
            raise UsageError(f"{inner.name} has no boxes or masks among which classes could be chosen")
        for name in names:
            if name not in inner.classes:
                hint = did_you_mean(name, inner.classes, f"it has {', '.join(inner.classes[:8])}, ...")
                raise UsageError(f"{inner.name} has no class {name!r}; {hint}")
        super().__init__(inner)
        self.counted = self.chosen = sorted({inner.classes.index(name) for name in names})

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(task for task in self.inner.tasks if task in FOUND)

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Labels]:
        pixels, labels = self.inner.batch(indices)
        if not isinstance(labels, list):
            raise UsageError("classes are chosen among boxes or masks, and the model finds none; leave out --classes")
        kept: Any = [one.only(self.chosen) if hasattr(one, "only") else one for one in labels]
        return pixels, kept
