"""What PCA takes and gives; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, map_sizes


def ranks(maps: Mapping[str, tuple[int, int, int]], rank: int) -> dict[str, int]:
    """By tensor, how many components are kept. Raises SpecMismatch for more than any has channels."""
    most = max(channels for channels, _, _ in maps.values())
    if rank > most:
        raise SpecMismatch(f"rank={rank} is more than the {most} channels at this cut; leave it out to keep all")
    return {name: min(rank or channels, channels) for name, (channels, _, _) in maps.items()}


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """The components that are sent of each tensor. Raises SpecMismatch."""
    maps = map_sizes(features)
    kept = ranks(maps, params["rank"])
    latent = {
        name: TensorSpec((min(params["components"], kept[name]), height, width), "int32")
        for name, (_, height, width) in maps.items()
    }
    return EncoderSpec(latent, restored=features)
