"""Learned codecs at a cut: reductions, priors and expansions of one layer or of several.

``coding`` has how their integers become bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semcodec.coding.module_state import ModuleState
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial, TrainableParts
from semcodec.panels import Panel, usual
from semcodec.specs import FeatureSpec, map_sizes
from semcodec.tensors import eight_bits
from semcodec.types import restore_alike
from semcodec_plugins.layered import spec
from semcodec_plugins.layered.coding import CodecCoding, FeatureHyperpriorCoding, LayeredCoding, count_layers
from semcodec_plugins.layered.image_decoder import ImageFromFeatures
from semcodec_plugins.layered.more_layers import with_layers_of
from semcodec_plugins.layered.prior import PRIORS, Factorized, Hyper, straight_through
from semcodec_plugins.layered.reduction import Fixed
from semcodec_plugins.layered.token_codec import TokenCodec
from semcodec_plugins.layered.transforms import Adaptation, Expansion, Reduction, start

LOUDER = 8
"""How much larger than a convolution's usual weights are those of a reduction that learns beside others which have
learned: what rounds to nothing teaches nothing, and the rate silences it.
"""
Rows = list[Tensor]
"""One tensor for each feature of the cut, in order."""


class Unit(nn.Module):
    """What the device does with one feature in one layer: reduce it, and predict how its integers are spread."""

    def __init__(self, channels: int, layer: spec.Layer, prior: str) -> None:
        super().__init__()
        self.reduction = Reduction(channels, layer.channels, layer.stride)
        self.prior: Factorized | Hyper = PRIORS[prior](layer.channels)


class Decoder(nn.Module):
    """A task decoder's way back: expansions of every layer, summed, and an adaptation to what the backbone expects."""

    def __init__(self, channels: Sequence[int], stack: Sequence[spec.Layer], width: int = 0) -> None:
        super().__init__()
        self.expansions = nn.ModuleList(
            nn.ModuleList(Expansion(layer.channels, c, layer.stride) for c in channels) for layer in stack
        )
        self.adaptations = nn.ModuleList(Adaptation(c, width) for c in channels)

    @property
    def by_layer(self) -> list[list[Expansion]]:
        """The expansions by layer and feature."""
        rows = (row for row in self.expansions if isinstance(row, nn.ModuleList))
        return [[expansion for expansion in row if isinstance(expansion, Expansion)] for row in rows]

    def forward(self, layers: Sequence[Rows], sizes: Sequence[tuple[int, int]]) -> Rows:
        """By layer and feature, y (B, C, h, w) float; as many layers as there are. Returns features (B, C, H, W)."""
        expansions, found = self.by_layer, []
        for t, (adapt, size) in enumerate(zip(self.adaptations, sizes, strict=True)):
            first, *others = (expansions[i][t].expand(ys[t], size) for i, ys in enumerate(layers))
            found.append(adapt(sum(others, first)))
        return found


class Codec(nn.Module, Encoder):
    """Layers of integers from feature maps. Base of both encoders here.

    features: by name float32 (C, H, W); each has reductions, priors and expansions of its own. NaN, infinity and
    values too large for exact integers are refused.
    trade: lambda of the loss that it is trained by. low: so many layers, or fewer, go through a decoder of their own.
    width: channels inside a decoder's adaptation; 0: half of a feature's.
    """

    coding: CodecCoding

    def __init__(
        self, features: FeatureSpec, stack: Sequence[spec.Layer], prior: str, trade: float, low: int = 0, width: int = 0
    ) -> None:
        super().__init__()
        self.features, self.stack, self.trade, self.low = dict(features), tuple(stack), trade, low
        self.shapes = map_sizes(features)
        channels = [count for count, _, _ in self.shapes.values()]
        self.sizes = [(height, width) for _, height, width in self.shapes.values()]
        self.units_of = nn.ModuleList(nn.ModuleList(Unit(c, layer, prior) for c in channels) for layer in self.stack)
        self.high = Decoder(channels, self.stack, width)
        self.lower = Decoder(channels, self.stack[:low], width) if low else None
        self.picture = ImageFromFeatures(channels)

    @property
    def by_layer(self) -> list[list[Unit]]:
        """``units_of`` by their type: by layer and feature."""
        rows = (row for row in self.units_of if isinstance(row, nn.ModuleList))
        return [[unit for unit in row if isinstance(unit, Unit)] for row in rows]

    # -- device ------------------------------------------------------------------------------------------------------

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Only the layers that are sent are computed."""
        latents = []
        for row in range(len(next(iter(features.values())))):
            fixed = {name: Fixed(features[name][row]) for name in self.features}
            latents.append(
                Latent(
                    {
                        f"y{i}.{name}": unit.reduction.integers(fixed[name])
                        for i, units in enumerate(self.by_layer[: count_layers(params, self.stack)], 1)
                        for name, unit in zip(self.features, units, strict=True)
                    }
                )
            )
        return latents

    def device_state(self) -> Sequence[str]:
        """The integers of reductions and of what is coded under."""
        return [
            f"units_of.{i}.{t}.{name}"
            for i, units in enumerate(self.by_layer)
            for t, unit in enumerate(units)
            for name in ("reduction.whole", *(f"prior.{name}" for name in unit.prior.integers(writes=True)))
        ]

    # -- server ------------------------------------------------------------------------------------------------------

    def restore(self, latent: Latent) -> Partial:
        """Features (1, C, H, W) from the layers that were received, by the decoder for so many."""
        return self._restored([latent])

    def restore_batch(self, latents: Sequence[Latent]) -> list[Partial]:
        """Together those of which as many layers were received."""
        return restore_alike(latents, self._restored)

    def _restored(self, latents: Sequence[Latent]) -> Partial:
        received = len(latents[0].symbols) // len(self.features)
        there = next(self.high.parameters())
        layers = [
            [_stacked(latents, f"y{i}.{name}").to(there) for name in self.features] for i in range(1, received + 1)
        ]
        return Partial(self.rebuild(layers, self.sizes))

    def rebuild(self, layers: Sequence[Rows], sizes: Sequence[tuple[int, int]]) -> Features:
        """Features of these sizes from the layers received: by the low-rate decoder where they are few."""
        decoder = self.lower if self.lower is not None and len(layers) <= self.low else self.high
        return dict(zip(self.features, decoder(layers, sizes), strict=True))

    def server_state(self) -> Sequence[str]:
        """Expansions, adaptations, and the integers of what is coded under."""
        priors = [
            f"units_of.{i}.{t}.prior.{name}"
            for i, units in enumerate(self.by_layer)
            for t, unit in enumerate(units)
            for name in unit.prior.integers(writes=False)
        ]
        return ["high.", "lower.", *priors]

    def decoder_state(self) -> Mapping[str, Tensor]:
        """Expansions, adaptations, and the integers that priors are made of."""
        state = {f"high.{n}": t for n, t in self.high.state_dict().items()}
        if self.lower is not None:
            state |= {f"lower.{n}": t for n, t in self.lower.state_dict().items()}
        for i, units in enumerate(self.by_layer):
            for t, unit in enumerate(units):
                state |= {f"prior.{i}.{t}.{n}": value for n, value in unit.prior.decoding().items()}
        return state

    # -- training ----------------------------------------------------------------------------------------------------

    def forward_train(self, features: Features, rng: np.random.Generator) -> list[tuple[Partial, Tensor | None]]:
        """One entry for each number of layers, in order."""
        return self.operate(features, rng, range(1, len(self.stack) + 1))

    def operate(
        self, features: Features, rng: np.random.Generator, counts: Sequence[int]
    ) -> list[tuple[Partial, Tensor | None]]:
        """``forward_train`` at these numbers of layers: values are rounded straight-through, bits have uniform noise.

        Features may be of other sizes than those that packets are made of.
        """
        layers: list[Rows] = []
        bits: list[Tensor] = []
        # In float32: a sum in bfloat16 would round to other integers. CompressAI draws from the global generator.
        with (
            torch.autocast(next(iter(features.values())).device.type, enabled=False),
            torch.random.fork_rng(devices=[]),
        ):
            torch.manual_seed(int(rng.integers(1 << 31)))
            for units in self.by_layer[: max(counts)]:
                ys = [u.reduction(features[name].float()) for name, u in zip(self.features, units, strict=True)]
                costs = [unit.prior.bits(y) for unit, y in zip(units, ys, strict=True)]
                bits.append(sum(costs[1:], costs[0]) + bits[-1] if bits else sum(costs[1:], costs[0]))
                layers.append([straight_through(y) for y in ys])
            sizes = [(features[name].shape[2], features[name].shape[3]) for name in self.features]
            return [(Partial(self.rebuild(layers[:count], sizes)), bits[count - 1]) for count in counts]

    def forward_train_at(
        self, features: Features, rng: np.random.Generator, points: Sequence[int]
    ) -> list[tuple[Partial, Tensor | None]]:
        """The same at some numbers of layers, from 0 for the base alone."""
        found = self.operate(features, rng, [point + 1 for point in points])
        return list(found)

    def trainable_parts(self) -> TrainableParts:
        """All but the picture; the densities that it begins with learn along. Raises PluginError without CompressAI."""
        lower = [] if self.lower is None else [self.lower]
        return TrainableParts([self.units_of, self.high, *lower], self.freeze, densities={"densities": self.begin()})

    def adapt_init(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights to start training from, also those of fewer layers: those above begin by sending plenty."""
        found = with_layers_of(self, tensors)
        for name in found.keys() - tensors.keys():
            if name.endswith(("reduction.weight", "reduction.whole_weight")):
                found[name] = found[name] * LOUDER
        return found

    def begin(self) -> nn.Module:
        """The densities that training needs in place of integer tables; they learn along with the encoder."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.ModuleList(unit.prior.begin() for units in self.by_layer for unit in units)

    def freeze(self) -> None:
        """Take the integers, which are what codes, from the weights and densities as they are now."""
        for units in self.by_layer:
            for unit in units:
                unit.reduction.freeze()
                unit.prior.freeze()

    @torch.no_grad()
    def start(self, seen: Rows, steps: Sequence[float]) -> None:
        """Begin with principal components: of what ``seen`` (N, C, H, W) of each feature leaves after each layer.

        steps: of each layer's quantisation, over the feature's standard deviation.
        """
        for t, x in enumerate(seen):
            mean = x.mean((0, 2, 3))
            rest, deviation = x - mean[:, None, None], x.std()
            for i, step in enumerate(steps):
                unit, expansion = self.by_layer[i][t], self.high.by_layer[i][t]
                assert unit.reduction.bias is not None and expansion.bias is not None
                rest, scales = start(unit.reduction, expansion, rest, step * deviation)
                unit.reduction.bias.copy_(-(unit.reduction.weight.sum((2, 3)) @ mean))
                unit.reduction.freeze()
                unit.prior.start(scales)
                if i == 0:
                    expansion.bias.copy_(mean)
        if self.lower is not None:
            for mine, theirs in zip(self.lower.expansions, self.high.expansions, strict=False):
                mine.load_state_dict(theirs.state_dict())

    def panels(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], partial: Partial
    ) -> list[Panel]:
        """The features, what was received of them, and the picture that these still hold."""
        picture = eight_bits(self.picture(partial.features).clamp(0, 1))[0]
        return [*usual(features, partial), Panel("picture from features", picture)]


def _stacked(latents: Sequence[Latent], name: str) -> Tensor:
    """Integers of one name, (B, C, h, w)."""
    return torch.from_numpy(np.stack([latent.symbols[name] for latent in latents]))


class FeatureHyperprior(Codec):
    """One rate: a single layer, whose packet is whole or not at all. NaN is refused. At tokens a ``TokenCodec``."""

    def __new__(cls, features: FeatureSpec | None = None, **params: Any) -> Any:  # without arguments to be copied
        return _of_tokens(features, FeatureHyperpriorCoding, params) or super().__new__(cls)

    def __init__(self, features: FeatureSpec, **params: Any) -> None:
        stack = [spec.Layer(params["channels"], params["stride"])]
        super().__init__(features, stack, params["prior"], params["lambda"], width=params.get("width", 0))
        self.coding = FeatureHyperpriorCoding(features, ModuleState(self), **params)


class Layered(Codec):
    """A base and enhancements: a packet cut at the end of any layer decodes. NaN is refused.

    At tokens a ``TokenCodec``.
    """

    def __new__(cls, features: FeatureSpec | None = None, **params: Any) -> Any:
        return _of_tokens(features, LayeredCoding, params) or super().__new__(cls)

    def __init__(self, features: FeatureSpec, **params: Any) -> None:
        stack = spec.layers(params["channels"])
        super().__init__(features, stack, params["prior"], params["lambda"], params["low"], params.get("width", 0))
        self.coding = LayeredCoding(features, ModuleState(self), **params)


def _of_tokens(features: FeatureSpec | None, coding: type[CodecCoding], params: Mapping[str, Any]) -> TokenCodec | None:
    """The Encoder of tokens where a cut has these, else None."""
    if features is None or not spec.holds_tokens(features):
        return None
    codec = TokenCodec(features, **params)
    codec.coding = coding(features, ModuleState(codec), **params)
    return codec
