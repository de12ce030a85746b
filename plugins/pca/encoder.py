"""The PCA encoders: components of every tensor at the cut, in layers that a receiver may stop after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from semcodec.coding.module_state import ModuleState
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial
from semcodec.specs import FeatureSpec, map_sizes
from semcodec.types import restore_alike
from semcodec_plugins.pca.basis import Basis
from semcodec_plugins.pca.coding import PCACoding
from semcodec_plugins.pca.spec import ranks

if TYPE_CHECKING:
    from semcodec.panels import Panel


class PCA(nn.Module, Encoder):
    """features: any number of maps, float32 (C, H, W). rank: components of each that can be sent; 0 is all.

    A latent holds, by tensor, its first components. NaN and infinity are refused.
    """

    def __init__(self, features: FeatureSpec, *, rank: int) -> None:
        super().__init__()
        self.shapes = map_sizes(features)
        kept = ranks(self.shapes, rank)
        self.most = max(kept.values())
        # Tensors may have names that modules may not.
        self._bases = nn.ModuleList(Basis(shape[0], kept[name]) for name, shape in self.shapes.items())
        self.coding = PCACoding(features, ModuleState(self), rank=rank)

    @property
    def bases(self) -> dict[str, Basis]:
        """By tensor, its ``Basis``."""
        bases = (basis for basis in self._bases if isinstance(basis, Basis))
        return dict(zip(self.shapes, bases, strict=True))

    def device_state(self) -> Sequence[str]:
        """Components, and their ranges and tables."""
        return self._of_bases("mean", "vectors", "quantiser.low", "quantiser.high", "quantiser.counts")

    def server_state(self) -> Sequence[str]:
        """Components, and their tables and what cells stand for."""
        return self._of_bases("mean", "vectors", "quantiser.counts", "quantiser.centroids")

    def _of_bases(self, *names: str) -> list[str]:
        return [f"_bases.{i}.{name}" for i in range(len(self.shapes)) for name in names]

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Cells of the leading components of each tensor, int32 (k, H, W)."""
        count, bits = params["components"], params["bits"]
        symbols = {}
        for name, basis in self.bases.items():
            symbols[name] = basis.quantiser.symbols(basis.project(features[name], count), bits)
        side = {"bits": bits, "group": params["group"]}
        batch = len(next(iter(symbols.values())))
        return [Latent({name: values[row] for name, values in symbols.items()}, dict(side)) for row in range(batch)]

    def restore(self, latent: Latent) -> Partial:
        """Every tensor, (1, C, H, W), from the components that were received. Raises CorruptStream."""
        return self._restored([latent])

    def restore_batch(self, latents: Sequence[Latent]) -> list[Partial]:
        """Together those of equally many components and bits."""
        return restore_alike(latents, self._restored)

    def _restored(self, latents: Sequence[Latent]) -> Partial:
        first, bases, rebuilt = latents[0], self.bases, {}
        for name in first.symbols:
            sent = [latent.symbols[name] for latent in latents]
            rebuilt[name] = bases[name].rebuild(bases[name].quantiser.batch_values(sent, first.side["bits"]))
        with torch.no_grad():
            return Partial(self.adapted(rebuilt))

    def adapted(self, features: Features) -> Features:
        """What is made of rebuilt features (B, C, H, W): here nothing."""
        return features

    def forward_train(self, features: Features, rng: np.random.Generator) -> list[tuple[Partial, Tensor | None]]:
        """At a number of components that is drawn, so that one set of weights serves them all."""
        powers = [1 << k for k in range(self.most.bit_length())]
        count = int(rng.choice([*powers, self.most]))
        rebuilt = {}
        for name, basis in self.bases.items():
            y = basis.project(features[name], count).float()
            rebuilt[name] = basis.rebuild(basis.quantiser.soft(y))
        return [(Partial(self.adapted(rebuilt)), None)]

    def explained(self, count: int) -> dict[str, float]:
        """By tensor, the share of its variance that its first ``count`` components explain."""
        return {name: float(basis.explained[:count].sum()) for name, basis in self.bases.items()}

    def explanation(self) -> dict[str, float]:
        """For cards: the share of each tensor's variance that 1, 4, 16, ... components explain."""
        counts = [1 << k for k in range(0, self.most.bit_length(), 2)]
        return {f"{name}: {count} explain": self.explained(count)[name] for name in self.shapes for count in counts}

    def panels(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], partial: Partial
    ) -> list[Panel]:
        """Of each tensor: at the cut, its components, as it arrives."""
        from semcodec.panels import Panel, maps, usual

        shown = usual(features, partial)
        for name, basis in self.bases.items():
            share = 100 * self.explained(basis.rank)[name]
            title = f"{name}: first of {basis.rank} components, which explain {share:.1f} % of the variance"
            shown.append(Panel(title, heat=maps(basis.project(features[name], 16))))
        return shown


class PCAAdapt(PCA):
    """PCA and, of each tensor, a learned 1x1 convolution of what is rebuilt: the same whatever number of components.

    Untrained it changes nothing.
    """

    def __init__(self, features: FeatureSpec, *, rank: int) -> None:
        super().__init__(features, rank=rank)
        self.adapt = nn.ModuleList()
        for channels, _, _ in self.shapes.values():
            layer = nn.Conv2d(channels, channels, 1)
            nn.init.dirac_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            self.adapt.append(layer)

    def server_state(self) -> Sequence[str]:
        """The convolutions too."""
        return [*super().server_state(), "adapt."]

    def adapted(self, features: Features) -> Features:
        """By the convolution of each."""
        return {name: layer(features[name]) for name, layer in zip(self.shapes, self.adapt, strict=True)}
