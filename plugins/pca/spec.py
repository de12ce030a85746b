"""What PCA takes and gives; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, describe

Shapes = dict[str, tuple[int, int, int]]


def shapes(features: FeatureSpec) -> Shapes:
    """(C, H, W) of every tensor. Raises SpecMismatch where one is no map of a known size."""
    found = {}
    for name, spec in features.items():
        if len(spec.shape) != 3 or spec.dtype != "float32" or None in spec.shape:
            raise SpecMismatch(f"takes one or more maps float32[CxHxW] of a known size, not {describe(features)}")
        channels, height, width = spec.shape
        assert channels is not None and height is not None and width is not None
        found[name] = channels, height, width
    return found


def ranks(maps: Shapes, rank: int) -> dict[str, int]:
    """By tensor, how many components are kept. Raises SpecMismatch for more than any has channels."""
    most = max(channels for channels, _, _ in maps.values())
    if rank > most:
        raise SpecMismatch(f"rank={rank} is more than the {most} channels at this cut; leave it out to keep all")
    return {name: min(rank or channels, channels) for name, (channels, _, _) in maps.items()}


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    maps = shapes(features)
    kept = ranks(maps, params["rank"])
    latent = {
        name: TensorSpec((min(params["components"], kept[name]), height, width), "int32")
        for name, (_, height, width) in maps.items()
    }
    return EncoderSpec(latent, restored=features)
