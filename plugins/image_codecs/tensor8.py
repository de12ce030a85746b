"""Any features at 8 bits a value: q = round(255 (x - min) / (max - min)) per tensor; integers without loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec.errors import UsageError
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial
from semcodec.specs import FeatureSpec
from semcodec.tensors import as_array
from semcodec_plugins.image_codecs.coding import TensorCoding
from semcodec_plugins.image_codecs.spec import FLOATS

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 255


class Tensor8(Encoder):
    """Side information: each float tensor's minimum and maximum as float32, and the axes that the spec leaves open."""

    def __init__(self, features: FeatureSpec) -> None:
        self.coding = TensorCoding(features, {})
        self.specs = dict(features)

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Each float tensor at 8 bits, integers as they are. Raises UsageError for values that are not finite."""
        arrays = {name: as_array(features[name]) for name in self.specs}
        return [self._quantise({name: array[row] for name, array in arrays.items()}) for row in range(_batch(arrays))]

    def _quantise(self, sample: dict[str, Any]) -> Latent:
        latent = Latent({})
        for name, array in sample.items():
            if self.specs[name].dtype in FLOATS:
                if not np.isfinite(array).all():
                    raise UsageError(f"tensor8: '{name}' holds NaN or infinity, which 8 bits cannot send")
                low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
                latent.side[name] = (low, high)
                array = np.rint((array.astype(np.float64) - low) * (LEVELS / ((high - low) or 1))).astype(np.uint8)
            latent.symbols[name] = array
        return latent

    def restore(self, latent: Latent) -> Partial:
        """x = min + q (max - min) / 255, integers as they are."""
        import torch

        features = {}
        for name, spec in self.specs.items():
            array = latent.symbols[name]
            if name in latent.side:
                low, high = latent.side[name]
                array = (low + array * ((high - low) / LEVELS)).clip(low, high)
            features[name] = torch.from_numpy(np.array(array, dtype=spec.dtype))[None]
        return Partial(features)


def _batch(arrays: Mapping[str, Any]) -> int:
    sizes = {len(array) for array in arrays.values()}
    if len(sizes) != 1:
        raise UsageError(f"tensor8: features of different batch sizes {sorted(sizes)}")
    return sizes.pop()
