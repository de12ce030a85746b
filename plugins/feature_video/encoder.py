"""Tensors at a cut, or their leading principal components, as frames of video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from semcodec.coding.videos import decode_planes, encode_planes
from semcodec.errors import CorruptStream, DataError, UsageError
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial
from semcodec.specs import PREFIX, TOKENS, FeatureSpec
from semcodec.tensors import as_array
from semcodec.training.principal_components import PrincipalComponents
from semcodec_plugins.feature_video.coding import (
    FeatureVideoCoding,
    bounds,
    dequantise,
    prefix_step,
    quantise,
    range_codes,
)

Floats = npt.NDArray[np.float64]

MOST = 1 << 30
"""Steps that a value without a place may be from zero."""


class FeatureVideo(Encoder):
    """features: maps float32 (C, H, W), tokens of a grid with or without a prefix, or a clip "frames" (T, C, H, W).

    Every channel is a tile. NaN and infinity are refused.
    """

    coding: FeatureVideoCoding

    def __init__(self, features: FeatureSpec) -> None:
        super().__init__()
        self.coding = FeatureVideoCoding(features, {})

    # -- what a tile is ----------------------------------------------------------------------------------------------

    def maps(self, features: Features) -> Features:
        """Of features at the cut, every tensor that is tiled, as (B, C, T, H, W)."""
        return {name: _channels_first(name, features[name]).reshape(-1, *s) for name, s in self.coding.shapes.items()}

    def planes(self, features: Features, count: int) -> dict[str, Tensor]:
        """What is sent, (B, k, T, H, W): here every channel."""
        return self.maps(features)

    def rebuilt(self, name: str, planes: Tensor) -> Tensor:
        """All channels, (1, C, T, H, W) float32, of what was sent of a tensor."""
        return planes

    def prefix_mean(self) -> Floats:
        """What tokens without a place are about, (P, D): here zero."""
        return np.zeros(self.coding.prefix)

    # -- both ends ---------------------------------------------------------------------------------------------------

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Each sample as one stream. Raises UsageError for NaN, infinity, and parts of clips."""
        self._check(features)
        arrays = {
            name: as_array(x).astype(np.float64)
            for name, x in self.planes(features, params.get("components", 0)).items()
        }
        batch = len(next(iter(arrays.values())))
        latents = [self._code({name: x[row] for name, x in arrays.items()}, params) for row in range(batch)]
        if self.coding.prefix:
            off = as_array(features[PREFIX]).astype(np.float64) - self.prefix_mean()
            for latent, values in zip(latents, off, strict=True):
                latent.symbols[PREFIX] = self._steps(values / prefix_step(latent))
        return latents

    def _check(self, features: Features) -> None:
        for name in (*self.coding.shapes, *([PREFIX] if self.coding.prefix else ())):
            if not torch.isfinite(features[name]).all():
                raise UsageError(f"feature-video: '{name}' holds NaN or infinity, which no video can send")
        index = features.get("index")
        if index is not None:
            count = self.coding.shapes["frames"][1]
            if not torch.equal(index.cpu(), torch.arange(count).expand(len(index), count)):
                raise UsageError(f"feature-video sends whole clips: frames in order from 0 to {count - 1}")

    @staticmethod
    def _steps(values: Floats) -> npt.NDArray[np.int32]:
        if np.abs(values).max() > MOST:
            raise UsageError(f"feature-video: '{PREFIX}' is too large beside '{TOKENS}' to be sent in their steps")
        return np.rint(values).astype(np.int32)

    def _code(self, sample: Mapping[str, Floats], params: Mapping[str, Any]) -> Latent:
        ranges = {name: np.array([x.min(), x.max()], np.float32) for name, x in sample.items()}
        latent = Latent({}, {"params": dict(params), "ranges": ranges})
        if params["ranges"] == "channel":
            latent.side["channels"] = {
                name: range_codes(x.min((1, 2, 3)), x.max((1, 2, 3)), ranges[name]) for name, x in sample.items()
            }
        cells = {name: quantise(x, *bounds(latent, name), params["bits"]) for name, x in sample.items()}
        frames = self.coding.layout(params).pack(cells)
        latent.side["video"] = encode_planes(frames, params["codec"], params["qp"], params["bits"])
        return latent

    def restore(self, latent: Latent) -> Partial:
        """Every tensor, with a batch axis of one, from the frames that the codec decodes. Raises CorruptStream."""
        params = latent.side["params"]
        layout = self.coding.layout(params)
        size = layout.count, layout.height, layout.width
        try:
            frames = decode_planes(latent.side["video"], params["codec"], *size, params["bits"])
        except DataError as error:
            raise CorruptStream(str(error)) from error
        restored = {}
        with torch.no_grad():
            for name, cells in layout.unpack(frames).items():
                values = dequantise(cells, *bounds(latent, name), params["bits"]).astype(np.float32)
                whole = self.rebuilt(name, torch.from_numpy(values)[None])
                restored[name] = _placed(name, whole)
        if self.coding.prefix:
            values = latent.symbols[PREFIX] * prefix_step(latent) + self.prefix_mean()
            restored[PREFIX] = torch.from_numpy(values.astype(np.float32))[None]
        if not all(torch.isfinite(x).all() for x in restored.values()):
            raise CorruptStream("feature-video: values beyond all floats; the stream is damaged, get it again")
        if "frames" in restored:
            restored["index"] = torch.arange(layout.count)[None]
        return Partial(restored)


class FeatureVideoPCA(nn.Module, FeatureVideo):
    """Every tile is a principal component. rank: components of each tensor that can be sent; 0 is all."""

    prefix: Tensor | None

    def __init__(self, features: FeatureSpec, *, rank: int) -> None:
        super().__init__()
        self.coding = FeatureVideoCoding(features, {}, rank=rank)
        # Tensors may have names that modules may not.
        self._bases = nn.ModuleList(
            PrincipalComponents(shape[0], self.coding.ranks[name]) for name, shape in self.coding.shapes.items()
        )
        self.register_buffer("prefix", torch.zeros(self.coding.prefix) if self.coding.prefix else None)

    @property
    def bases(self) -> dict[str, PrincipalComponents]:
        """By tensor, its components."""
        bases = (basis for basis in self._bases if isinstance(basis, PrincipalComponents))
        return dict(zip(self.coding.shapes, bases, strict=True))

    def device_state(self) -> Sequence[str]:
        """Components, and what tokens without a place are about."""
        return ["prefix", *(f"_bases.{i}.{name}" for i in range(len(self._bases)) for name in ("mean", "vectors"))]

    def server_state(self) -> Sequence[str]:
        """The same."""
        return self.device_state()

    def planes(self, features: Features, count: int) -> dict[str, Tensor]:
        """The first ``count`` components, float64."""
        maps = self.maps(features)
        return {name: basis.project(maps[name], count) for name, basis in self.bases.items()}

    def rebuilt(self, name: str, planes: Tensor) -> Tensor:
        """By the components; those that were not sent are taken as zero, their mean."""
        basis = self.bases[name]
        return basis.rebuild(planes.to(basis.mean.device))

    def prefix_mean(self) -> Floats:
        """The mean over the images that it was fitted on."""
        return np.zeros(()) if self.prefix is None else as_array(self.prefix).astype(np.float64)


def _channels_first(name: str, x: Tensor) -> Tensor:
    """Tokens (B, N, D) as (B, D, N), clips (B, T, C, H, W) as (B, C, T, H, W), and maps as they are."""
    return x.transpose(1, 2) if name in (TOKENS, "frames") else x


def _placed(name: str, x: Tensor) -> Tensor:
    """(1, C, T, H, W) as the cut has it."""
    if name == TOKENS:
        return x.flatten(2).transpose(1, 2).contiguous()
    return x.transpose(1, 2).contiguous() if name == "frames" else x.squeeze(2)
