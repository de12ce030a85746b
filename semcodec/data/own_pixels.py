"""Pictures whose labels are their own pixels: what a model that reconstructs them is measured and trained by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from semcodec.data.base import View
from semcodec.specs import RECONSTRUCTION

if TYPE_CHECKING:
    from semcodec.data.base import Labels, UInt8


class OwnPixels(View):
    """``inner``, whatever labels it has, with each sample's pixels (H, W, 3) in their place."""

    @property
    def tasks(self) -> tuple[str, ...]:
        return (*self.inner.tasks, RECONSTRUCTION)

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Labels]:
        pixels, _ = self.inner.batch(indices)
        return pixels, list(pixels)
