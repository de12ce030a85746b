"""What encoders of patches take and give; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.coding.patches import patch_spec
from semcodec.specs import EncoderSpec, FeatureSpec, SpecMismatch, describe


def cls_attn(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """``params["edge"]`` is the device's BackboneSpec, or None where building it tells."""
    edge = params["edge"]
    if edge is None:
        return patch_spec(features, None)
    if edge.patch is None:
        raise SpecMismatch(
            "the device's model has no class token that attends to patches; name one that has, as edge=deit-tiny"
        )
    if describe(edge.input) != describe(features):
        raise SpecMismatch(f"the device's model takes {describe(edge.input)}, the server's {describe(features)}")
    return patch_spec(features, edge.patch)


def patches(features: FeatureSpec, params: Mapping[str, Any]) -> EncoderSpec:
    """What ``patch_spec`` says of ``side``."""
    return patch_spec(features, params["side"])
