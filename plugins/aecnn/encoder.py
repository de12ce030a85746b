"""The AECNN encoder: what the device computes and sends as integers, and features of what was received."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from semcodec.coding.module_state import ModuleState
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial
from semcodec.specs import FeatureSpec
from semcodec.tensors import as_array
from semcodec.training.channel_quantiser import ChannelQuantiser
from semcodec.types import restore_alike
from semcodec_plugins.aecnn.attention import most_important
from semcodec_plugins.aecnn.coding import AECNNCoding
from semcodec_plugins.aecnn.spec import feature_map

if TYPE_CHECKING:
    from semcodec.panels import Panel

ANY_BITS = (8, 8, 8, 6, 4, 3, 2, 1)
"""One of them is drawn for each batch in training, so that one set of weights serves every ``bits``."""


class AECNN(nn.Module, Encoder):
    """features: one map, float32 (C, H, W). ratio: channels for each one that is sent.

    importance: of each channel, equation 8, (C,). kept: the channels that are sent, int64 (C / ratio,), ascending.
    trained_bits: what training draws ``bits`` from. NaN and infinity in what is sent are refused.
    """

    importance: Tensor
    kept: Tensor
    trained_bits: Sequence[int] = ANY_BITS

    def __init__(self, features: FeatureSpec, *, ratio: int) -> None:
        super().__init__()
        self.name, self.total, _, _ = feature_map(features, ratio)
        self.count = self.total // ratio
        self.register_buffer("importance", torch.zeros(self.total))
        self.register_buffer("kept", torch.arange(self.count))
        self.quantiser = ChannelQuantiser(self.count)
        self.coding = AECNNCoding(features, ModuleState(self), ratio=ratio)

    @property
    def channels(self) -> Mapping[str, Tensor]:  # type: ignore[override]
        """The device computes these alone."""
        return {self.name: self.kept}

    def device_state(self) -> Sequence[str]:
        """Which channels are kept, their ranges and tables."""
        return "kept", "quantiser.low", "quantiser.high", "quantiser.counts"

    def server_state(self) -> Sequence[str]:
        """Which channels are kept, their tables and what cells stand for."""
        return "kept", "quantiser.counts", "quantiser.centroids"

    def prune(self, importance: Tensor) -> None:
        """Keep the channels of greatest importance, (C,)."""
        self.importance.copy_(importance)
        self.kept.copy_(most_important(importance, self.count))

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        """``features`` holds the kept channels alone."""
        symbols = self.quantiser.symbols(features[self.name], params["bits"])
        return [Latent({self.name: one.astype(np.uint8)}, {"bits": params["bits"]}) for one in symbols]

    def restore(self, latent: Latent) -> Partial:
        """The received channels at their places among all; ``present`` is (1, C, 1, 1)."""
        return self._restored([latent])

    def restore_batch(self, latents: Sequence[Latent]) -> list[Partial]:
        """Together those of equally many bits."""
        return restore_alike(latents, self._restored)

    def _restored(self, latents: Sequence[Latent]) -> Partial:
        cells = [latent.symbols[self.name] for latent in latents]
        return self._place(self.quantiser.batch_values(cells, latents[0].side["bits"]))

    def forward_train(self, features: Features, rng: np.random.Generator) -> list[tuple[Partial, Tensor | None]]:
        """At a number of bits that is drawn from ``trained_bits``; no bits are estimated."""
        values = self.quantiser.soft(features[self.name][:, self.kept].float(), int(rng.choice(self.trained_bits)))
        return [(self._place(values), None)]

    def _place(self, values: Tensor) -> Partial:
        """Kept channels (B, C / ratio, H, W) among zeros."""
        full = values.new_zeros(len(values), self.total, *values.shape[2:])
        present = values.new_zeros(len(values), self.total, 1, 1)
        present[:, self.kept] = 1
        return Partial({self.name: full.index_copy(1, self.kept, values)}, {self.name: present})

    def figures(self, features: Features) -> Mapping[str, Sequence[float]]:
        """The paper's "Entropy": bits an element of the float32 values that are sent, each by itself."""
        return {"entropy_bits": [float_entropy(one) for one in features[self.name]]}

    def panels(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], partial: Partial
    ) -> list[Panel]:
        """The channels that were sent, as they were and as they arrive, and what the choice was made by."""
        from semcodec.panels import Panel, maps

        kept = self.kept.tolist()
        shown = f"channel {kept[0]}" if self.count == 1 else f"channels {', '.join(map(str, kept[:16]))}"
        received = partial.features[self.name][:, self.kept]
        line = as_array(self.importance)[None]
        low, high = float(line.min()), float(line.max())
        return [
            Panel(f"{self.count} of {self.total} channels are sent: {shown}", heat=maps(features[self.name])),
            Panel("as received", heat=maps(received)),
            Panel(f"importance of each channel, {low:.2f} to {high:.2f}", heat=line),
        ]


def float_entropy(values: Tensor) -> float:
    """Empirical entropy in bit an element of float32 values: of equal values, how many there are."""
    words = as_array(values.contiguous()).view(np.int32)
    share = np.unique(words, return_counts=True)[1] / words.size
    return float(-(share * np.log2(share)).sum())
