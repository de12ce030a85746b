"""Missing pixels from received ones."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from semcodec.coding.patches import whole
from semcodec.coding.pictures import smooth_fill
from semcodec.interfaces import Features, Partial, Recoverer
from semcodec.specs import FeatureSpec
from semcodec.tensors import as_array, eight_bits, from_eight_bits


class _Fill(Recoverer):
    """Received pixels pass unchanged, patches go to their places in an image first."""

    def __init__(self, features: FeatureSpec, **params: Any) -> None:
        pass

    def recover(self, partial: Partial) -> Features:
        partial = whole(partial)
        features = dict(partial.features)
        for name, mask in partial.present.items():
            present = mask.expand_as(features[name]) > 0
            if not present.all():
                features[name] = torch.where(present, features[name], self.filled(features[name], present))
        return features

    @abstractmethod
    def filled(self, pixels: Tensor, present: Tensor) -> Tensor:
        """Pixels (..., 3, H, W) with those filled where ``present``, bool of the same shape, is false."""


class MeanFill(_Fill):
    """The mean colour of each picture's received pixels; mid-grey where there are none."""

    def filled(self, pixels: Tensor, present: Tensor) -> Tensor:
        count = present.sum((-2, -1), keepdim=True)
        total = torch.where(present, pixels, 0).sum((-2, -1), keepdim=True)
        return torch.where(count > 0, total / count.clamp(min=1), 0.5)


class SmoothFill(_Fill):
    """Means over ever larger squares, interpolated, at 8 bits: ``semcodec.coding.pictures.smooth_fill``."""

    def filled(self, pixels: Tensor, present: Tensor) -> Tensor:
        mask = as_array(present.all(-3).flatten(0, -3))
        filled = smooth_fill(eight_bits(pixels).reshape(*mask.shape, 3), mask)
        return from_eight_bits(filled).to(pixels).view_as(pixels)
