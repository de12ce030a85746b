"""The Encoder of tokens: layers of integers at any of several rates, from one set of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semcodec.coding.integer_conv import ACTIVATION_BITS
from semcodec.device_half import Exported, Network
from semcodec.errors import UsageError
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial, TrainableParts
from semcodec.specs import PREFIX, TOKENS, FeatureSpec, TensorSpec, token_grid
from semcodec.tensors import as_array
from semcodec.training.channel_quantiser import finite
from semcodec_plugins.layered import spec
from semcodec_plugins.layered.coding import LARGEST, CodecCoding, TokenCoding, count_layers
from semcodec_plugins.layered.more_layers import with_layers_of
from semcodec_plugins.layered.prior import round_half_up
from semcodec_plugins.layered.tokens import MeanScale, TokenDecoder, TokenReduction


class TokenUnit(nn.Module):
    """What the device does in one layer: reduce the tokens, and predict how their integers are spread."""

    def __init__(self, dim: int, layer: spec.Layer, axes: int, levels: int) -> None:
        super().__init__()
        self.reduction = TokenReduction(dim, layer, axes, levels)
        self.prior = MeanScale(layer.channels, axes, levels)


class TokenCodec(nn.Module, Encoder):
    """Layers of integers from the tokens of a transformer. NaN, infinity and values too large to code are refused.

    features: {"tokens": float32 (N, D) of a known grid}, and "prefix" (P, D) where the model has some, which are not
    sent: the decoder learns them. params: build parameters of ``layered`` or ``feature-hyperprior``. coding: theirs.

    The device's integers come of float networks, sample by sample, so that a batch changes none; both ends take what
    they code under from the integers alone.
    """

    coding: CodecCoding
    mean: Tensor
    deviation: Tensor

    def __init__(self, features: FeatureSpec, **params: Any) -> None:
        super().__init__()
        self.features, self.stack = dict(features), spec.stack_of(features, params)
        self.grid, dim, self.prefix = token_grid(features)
        self.levels: int = params["levels"]
        self.trade: float = params["lambda"]
        axes = len(self.grid)
        self.units_of = nn.ModuleList(nn.ModuleList([TokenUnit(dim, layer, axes, self.levels)]) for layer in self.stack)
        self.decoder = TokenDecoder(dim, self.grid, self.prefix, self.stack, self.levels, params["blocks"])
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    @property
    def by_layer(self) -> list[TokenUnit]:
        """``units_of`` by their type."""
        return [unit for row in self.units_of for unit in row.children() if isinstance(unit, TokenUnit)]

    def normalise(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) to (B, D, [T,] H, W), each channel of about mean 0 and deviation 1."""
        x = (tokens.float() - self.mean) / self.deviation
        placed: Tensor = x.transpose(1, 2).reshape(x.shape[0], -1, *self.grid)
        return placed

    @torch.no_grad()
    def observe(self, tokens: Tensor) -> None:
        """Take mean and deviation of each channel from tokens (B, N, D)."""
        flat = tokens.flatten(0, 1).double()
        self.mean.copy_(flat.mean(0).half())  # as files keep them
        self.deviation.copy_(flat.std(0).clamp_min(1e-3).half())

    # -- device ------------------------------------------------------------------------------------------------------

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Only the layers that are sent are computed."""
        level = spec.chosen_level(params, self.levels)
        count = count_layers(params, self.stack)
        latents = []
        for tokens in features[TOKENS]:
            x, latent = self.normalise(finite(tokens)[None]), Latent({}, {"level": level})
            for i, unit in enumerate(self.by_layer[:count]):
                y = unit.reduction(x, level)
                z = _whole(unit.prior.analysis(y))
                means, _ = self._coding(i).predict(z, tuple(y.shape[1:]), level)
                latent.symbols[f"z{i + 1}.{TOKENS}"] = z
                latent.symbols[f"y{i + 1}.{TOKENS}"] = _whole(y - torch.from_numpy(means).to(y) / 2**ACTIVATION_BITS)
            latents.append(latent)
        return latents

    def _coding(self, layer: int) -> TokenCoding:
        unit = self.coding.units[layer][TOKENS]
        assert isinstance(unit, TokenCoding)
        return unit

    def device_state(self) -> Sequence[str]:
        """All but the decoder."""
        return ["units_of.", "mean", "deviation"]

    def export(self) -> Exported:
        """Reductions before gains and what describes their outputs as networks; gains, and what both ends code by."""
        names = tuple(f"units_of.{i}.0.prior.{name}" for i in range(len(self.stack)) for name in INTEGERS)
        arrays = {name: as_array(t) for name, t in self.state_dict().items() if name.startswith(names)}
        networks = {}
        for i, (unit, layer) in enumerate(zip(self.by_layer, self.stack, strict=True)):
            arrays[f"gain{i}"] = as_array(unit.reduction.gain.exp())
            shape = spec.places(spec.shapes_of(self.features)[TOKENS], layer)
            networks[f"reduce{i}"] = Network(
                lambda x, unit=unit: unit.reduction.shared(self.normalise(x)), {TOKENS: self.features[TOKENS]}, ("y",)
            )
            networks[f"describe{i}"] = Network(unit.prior.analysis, {"y": TensorSpec(shape)}, ("z",))
        return Exported(arrays, networks)

    # -- server ------------------------------------------------------------------------------------------------------

    def restore(self, latent: Latent) -> Partial:
        """Tokens (1, N, D), and prefix tokens, from the layers that were received."""
        level, there = latent.side["level"], self.mean
        layers = []
        for i in range(len(latent.symbols) // 2):
            y, z = latent.symbols[f"y{i + 1}.{TOKENS}"], latent.symbols[f"z{i + 1}.{TOKENS}"]
            means, _ = self._coding(i).predict(z, y.shape, level)
            layers.append(torch.from_numpy(y.astype(np.float64) + means / 2**ACTIVATION_BITS)[None].to(there))
        return Partial(self.rebuild(layers, level))

    def rebuild(self, layers: list[Tensor], level: int) -> Features:
        """Features from y (B, C, [T,] h, w) of the layers received."""
        tokens = self.decoder(layers, level) * self.deviation + self.mean
        found = {TOKENS: tokens[:, self.prefix :], PREFIX: tokens[:, : self.prefix]}
        return {name: found[name] for name in self.features}

    def server_state(self) -> Sequence[str]:
        """The decoder, and the integers of what is coded under."""
        priors = [f"units_of.{i}.0.prior.{name}" for i in range(len(self.stack)) for name in INTEGERS]
        return ["decoder.", "mean", "deviation", *priors]

    def decoder_state(self) -> Mapping[str, Tensor]:
        """What ``server_state`` names."""
        names = tuple(self.server_state())
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith(names)}

    # -- training ----------------------------------------------------------------------------------------------------

    def forward_train(self, features: Features, rng: np.random.Generator) -> list[tuple[Partial, Tensor | None]]:
        """One entry for each number of layers and level: of the base alone from the coarsest on, then of more."""
        return self.forward_train_at(features, rng, range(len(self.stack) * self.levels))

    def forward_train_at(
        self, features: Features, rng: np.random.Generator, points: Sequence[int]
    ) -> list[tuple[Partial, Tensor | None]]:
        """The same at some of them: values are rounded straight-through, bits have uniform noise."""
        noise = torch.Generator().manual_seed(int(rng.integers(1 << 31)))
        x = self.normalise(features[TOKENS])
        found: list[tuple[Partial, Tensor | None]] = []
        for point in points:
            count, level = divmod(point, self.levels)
            layers, bits = [], torch.zeros(len(x), device=x.device)
            for unit in self.by_layer[: count + 1]:
                y, cost = unit.prior(unit.reduction(x, level).float(), level, noise)
                layers.append(y)
                bits = bits + cost
            found.append((Partial(self.rebuild(layers, level)), bits))
        return found

    def layers_at(self, point: int) -> int:
        """Of each number of layers there are all levels."""
        return point // self.levels + 1

    def trainable_parts(self) -> TrainableParts:
        """Everything."""
        return TrainableParts([self.units_of, self.decoder], self.freeze)

    def adapt_init(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights to start training from, also those of fewer layers."""
        return with_layers_of(self, tensors)

    def freeze(self) -> None:
        """Take the integers, which are what codes, from the weights as they are now."""
        for unit in self.by_layer:
            unit.prior.freeze()


INTEGERS = ("synthesis.convs.0.whole", "synthesis.convs.1.whole", "whole_offsets", "whole_scales")
"""Of a prior's state, beginnings of the names of what both ends use."""


def _whole(x: Tensor) -> np.ndarray[Any, np.dtype[np.int32]]:
    """One sample's values, rounded, int32, without the batch axis. Raises UsageError for what is too large."""
    found = round_half_up(x.double())[0]
    if not found.abs().max() <= LARGEST:
        raise UsageError("the features are too large to code; look at the input or weights")
    return found.cpu().numpy().astype(np.int32)
