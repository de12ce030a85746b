"""The Coding of cls-attn: kept patches, of the size that the device's ViT attends to; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semcodec.coding.patch_coding import PatchesCoding
from semcodec.errors import PluginError
from semcodec.specs import BackboneSpec, FeatureSpec


class ClsAttnCoding(PatchesCoding):
    """What ``PatchesCoding`` writes of the patches of ``edge``, the BackboneSpec of the device's model.

    Raises PluginError where that says no patch.
    """

    def __init__(
        self, features: FeatureSpec, state: Mapping[str, Any], *, edge: BackboneSpec | None, **params: Any
    ) -> None:
        if edge is None or edge.patch is None:
            raise PluginError("the device's model is to attend to patches and does not set spec.patch")
        super().__init__(features, state, side=edge.patch)
