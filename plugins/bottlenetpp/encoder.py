"""The bottleneck: a convolution, batch norm and sigmoid on the device; their counterpart and ReLU on the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.coding.module_state import ModuleState
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial, TrainableParts
from semcodec.specs import FeatureSpec
from semcodec.training.channel_quantiser import ChannelQuantiser, finite
from semcodec.types import restore_alike
from semcodec_plugins.bottlenetpp.coding import BottleNetPPCoding
from semcodec_plugins.bottlenetpp.spec import shapes, window

if TYPE_CHECKING:
    from semcodec.panels import Panel


class BottleNetPP(nn.Module, Encoder):
    """features: one map, float32 (C, H, W). ratio: its values for each one sent. spatial: H and W over those sent.

    Between the two halves lies what the paper calls the channel: here the quantiser of [0, 1], which is trained
    through. The device's half runs in float64, so that how sums are ordered, by threads or batch, is not seen in what
    is sent. NaN and infinity are refused.
    """

    def __init__(self, features: FeatureSpec, *, ratio: int, spatial: int) -> None:
        super().__init__()
        found = shapes(features, ratio, spatial)
        self.name, self.shape = found.name, found.sent
        channels, sent = found.features[0], found.sent[0]
        kernel, stride, padding = window(spatial)
        self.reduce = nn.Conv2d(channels, sent, kernel, stride, padding, bias=False)  # batch norm has its own
        self.reduce_norm = nn.BatchNorm2d(sent)
        self.quantiser = ChannelQuantiser(sent, unit=True)
        self.expand = nn.ConvTranspose2d(sent, channels, kernel, stride, padding, bias=False)
        self.expand_norm = nn.BatchNorm2d(channels)
        self.coding = BottleNetPPCoding(features, ModuleState(self), ratio=ratio, spatial=spatial)

    def device_state(self) -> Sequence[str]:
        """The first half, its ranges and tables."""
        return "reduce.", "reduce_norm.", "quantiser.low", "quantiser.high", "quantiser.counts"

    def server_state(self) -> Sequence[str]:
        """The second half, the tables and what cells stand for."""
        return "expand.", "expand_norm.", "quantiser.counts", "quantiser.centroids"

    def compressed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W') in [0, 1]."""
        return torch.sigmoid(self.reduce_norm(self.reduce(x)))

    def expanded(self, z: Tensor) -> Tensor:
        """The inverse, as far as there is one: (B, C', H', W') to (B, C, H, W), none below zero."""
        return F.relu(self.expand_norm(self.expand(z)))

    def forward_train(self, features: Features, rng: np.random.Generator) -> list[tuple[Partial, Tensor | None]]:
        """Trained at 8 bits, as in the paper: the rate is set by the shape of what is sent."""
        z = self.quantiser.soft(self.compressed(features[self.name]))
        return [(Partial({self.name: self.expanded(z)}), None)]

    def trainable_parts(self) -> TrainableParts:
        """All of it; histograms are counted anew when learning ends."""
        return TrainableParts([self], self.quantiser.finish, see=self.see)

    def see(self, features: Features) -> None:
        """Calibration: count what would be sent."""
        self.quantiser.see(self.exact(features[self.name]))

    def exact(self, x: Tensor) -> Tensor:
        """``compressed`` as it is in use, (B, C', H', W') float64."""
        with torch.no_grad():
            z = F.conv2d(x.double(), self.reduce.weight.double(), None, self.reduce.stride, self.reduce.padding)
            return torch.sigmoid(_normalise(self.reduce_norm, z))

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Cells of the bottleneck's maps, int32 (C', H', W'). Raises UsageError for NaN and infinity."""
        bits = params["bits"]
        x = finite(features[self.name])  # of infinity a sigmoid makes an ordinary value
        symbols = self.quantiser.symbols(self.exact(x), bits)
        return [Latent({self.name: one}, {"bits": bits}) for one in symbols]

    def restore(self, latent: Latent) -> Partial:
        """The map, (1, C, H, W), none of it below zero. Raises CorruptStream."""
        return self._restored([latent])

    def restore_batch(self, latents: Sequence[Latent]) -> list[Partial]:
        """Together those of equally many bits."""
        return restore_alike(latents, self._restored)

    def _restored(self, latents: Sequence[Latent]) -> Partial:
        z = self.quantiser.batch_values([latent.symbols[self.name] for latent in latents], latents[0].side["bits"])
        with torch.no_grad():
            return Partial({self.name: _normalise(self.expand_norm, self.expand(z)).relu()})

    def panels(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], partial: Partial
    ) -> list[Panel]:
        """The features at the cut, what the bottleneck makes of them and what comes out of it."""
        from semcodec.panels import Panel, maps, usual

        at_cut, received = usual(features, partial)
        z = self.exact(features[self.name])
        channels, height, width = self.shape
        return [at_cut, Panel(f"sent: {channels} maps of {height}x{width}", heat=maps(z)), received]


def _normalise(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Batch norm by the statistics that were collected, at the precision of ``x``."""
    assert norm.running_mean is not None and norm.running_var is not None
    column = [t.to(x.dtype)[:, None, None] for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)]
    mean, variance, weight, bias = column
    return (x - mean) / (variance + norm.eps).sqrt() * weight + bias
