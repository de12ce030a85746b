"""The cls-attn encoder: one pass of the device's ViT gives both its own answer and what is worth sending."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from semcodec.coding.patch_encoder import Patches
from semcodec.device_half import Exported, Network
from semcodec.interfaces import Analysis, Backbone, Features, Partial
from semcodec.panels import Panel, usual
from semcodec.specs import FeatureSpec
from semcodec.tensors import as_array, eight_bits
from semcodec_plugins.cls_attn.coding import ClsAttnCoding


class ClsAttn(nn.Module, Patches):
    """Patches by the attention that the class token of ``edge`` pays them.

    features: {"image": float32 (3, H, W) in [0, 1]}, what ``edge`` takes too. scores: of ``Backbone.attend``.
    """

    def __init__(self, features: FeatureSpec, *, edge: Backbone, scores: str, **params: Any) -> None:
        super().__init__()
        coding = ClsAttnCoding(features, {}, edge=edge.spec)
        Patches.__init__(self, features, side=coding.side)
        self.coding = coding
        self.edge, self.kind, self.features = edge, scores, dict(features)

    def analyse(self, features: Features) -> Analysis:
        """Scores (B, N), equation (10) or attention rollout, and the device's logits."""
        logits, attention = self.edge.attend(features, self.kind)
        return Analysis(features, {"keep": attention}, logits)

    def export(self) -> Exported:
        """The ViT as one network, and the side of its patches."""
        network = Network(lambda x: self.edge.attend({"image": x}, self.kind), self.features, ("logits", "attention"))
        return Exported({"side": np.array(self.side)}, {"attend": network})

    def device_state(self) -> Sequence[str]:
        """The device's ViT."""
        return ("edge.",)

    def panels(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], partial: Partial
    ) -> list[Panel]:
        """The paper's Fig. 4: the image, the attention over it, the patches that were received."""
        source, received = usual(features, partial)
        attention = as_array(analysis.scores["keep"][0].view(self.grid))
        title = f"attention, {attention.min():.2g} to {attention.max():.2g}"
        return [source, Panel(title, eight_bits(features["image"])[0], attention), received]
