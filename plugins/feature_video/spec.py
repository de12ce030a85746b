"""What feature-video takes and gives; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.coding.video_params import CODECS
from semcodec.specs import PREFIX, TOKENS, EncoderSpec, FeatureSpec, SpecMismatch, TensorSpec, map_sizes, token_grid
from semcodec_plugins.feature_video.packing import Layout, Shape, lay_out

MOST_SIDE = 8192
"""Pixels a side of a frame that the codecs take."""


def shapes_of(features: FeatureSpec) -> dict[str, Shape]:
    """By tensor that is tiled, (C, T, H, W). Raises SpecMismatch for neither maps, tokens of a grid nor clips."""
    if TOKENS in features:
        (*time, height, width), dim, _ = token_grid(features)
        return {TOKENS: (dim, time[0] if time else 1, height, width)}
    clip = features.get("frames")
    if clip is not None and set(features) <= {"frames", "index"} and len(clip.shape) == 4 and None not in clip.shape:
        count, channels, height, width = (int(side or 0) for side in clip.shape)
        return {"frames": (channels, count, height, width)}
    return {name: (channels, 1, height, width) for name, (channels, height, width) in map_sizes(features).items()}


def ranks(shapes: Mapping[str, Shape], rank: int) -> dict[str, int]:
    """By tensor, how many planes can be sent. Raises SpecMismatch for more components than any has channels."""
    most = max(channels for channels, *_ in shapes.values())
    if rank > most:
        raise SpecMismatch(f"rank={rank} is more than the {most} channels at this cut; leave it out to send them all")
    return {name: min(rank or channels, channels) for name, (channels, *_) in shapes.items()}


def prefix_of(features: FeatureSpec) -> tuple[int, ...]:
    """Shape (P, D) of tokens that have no place in the grid; () where there are none."""
    return tuple(side or 0 for side in features[PREFIX].shape) if TOKENS in features and PREFIX in features else ()


def layout_of(shapes: Mapping[str, Shape], kept: Mapping[str, int], params: Mapping[str, Any]) -> Layout:
    """Where the planes that call parameters ask for lie: of each tensor those ``kept``, or its first ``components``."""
    components = params.get("components", 0)
    return lay_out({name: (min(components or kept[name], kept[name]), *shapes[name][1:]) for name in shapes})


def encoder(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """The frames that are coded. Raises SpecMismatch, also for what the codec does not do."""
    shapes, worst = shapes_of(features), CODECS[params["codec"]].worst
    if params["qp"] > worst:
        raise SpecMismatch(f"qp={params['qp']} is more than {worst}, the coarsest of {params['codec']}")
    layout = layout_of(shapes, ranks(shapes, params.get("rank", 0)), params)
    if max(layout.height, layout.width) > MOST_SIDE:
        raise SpecMismatch(
            f"so many channels make frames of {layout.width}x{layout.height}; codecs take {MOST_SIDE} a side"
        )
    dtype = "int16" if params["bits"] > 8 else "uint8"
    latent = {"video": TensorSpec((layout.count, layout.height, layout.width), dtype)}
    if prefix_of(features):
        latent[PREFIX] = TensorSpec(features[PREFIX].shape, "int32")
    return EncoderSpec(latent, restored=dict(features))
