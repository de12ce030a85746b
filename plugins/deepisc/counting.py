"""How often each class of a segmentation occurs in each context, counted when the networks have learned."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from semcodec.errors import UsageError
from semcodec_plugins.deepisc.segments import CONTEXTS, Index, UInt8, visit
from semcodec_plugins.deepisc.spec import CLASSES

COUNTED = 1 << 14
"""What the counts of a context add up to at most."""


class SegmentTables(nn.Module):
    """Counts of classes by context: ``see`` segmentations, then ``finish``."""

    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counts", torch.ones(CONTEXTS, CLASSES, dtype=torch.int16))
        self._seen: npt.NDArray[np.int64] | None = None

    def see(self, segments: UInt8) -> None:
        """Classes (k, h, w)."""
        seen = np.zeros(CONTEXTS * CLASSES, np.int64) if self._seen is None else self._seen

        def count(context: Index, classes: UInt8) -> UInt8:
            np.add(seen, np.bincount(context * CLASSES + classes, minlength=seen.size), out=seen)
            return classes

        visit(segments, count)
        self._seen = seen

    def finish(self) -> None:
        """Raises UsageError where nothing was seen."""
        if self._seen is None:
            raise UsageError("there are no segmentations to count: give a data set that has samples")
        counts = self._seen.reshape(CONTEXTS, CLASSES)
        scale = (COUNTED - CLASSES) / np.maximum(counts.sum(1, keepdims=True), COUNTED)
        self.counts.copy_(torch.from_numpy(np.rint(counts * scale).astype(np.int16) + 1))
        self._seen = None
