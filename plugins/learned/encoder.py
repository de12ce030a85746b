"""Pixels through one of CompressAI's image models, its integers through our stages and container."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import RLock
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.coding.module_state import ModuleState
from semcodec.errors import CorruptStream, UsageError
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial, Source, TrainableParts
from semcodec.specs import FeatureSpec, image_size
from semcodec.tensors import as_array, beside
from semcodec_plugins.learned import autoregressive, coder_bridge, network, spec
from semcodec_plugins.learned.coding import CHECK, LearnedCoding, check_of, most_raster_bytes

TOGETHER = 4
"""Images that go through the synthesis at a time: more are slower than one by one, as maps leave a CPU's cache."""


class Learned(nn.Module, Encoder):
    """``net`` is CompressAI's model, ``counts`` its static tables in integers.

    features: {"image": float32 (3, H, W) in [0, 1]} of any size, padded by its last row and column. NaN is refused.
    Samples are coded one at a time, as they are decoded, so that networks that both ends run round alike.
    """

    counts: Tensor
    coding: LearnedCoding

    def __init__(self, features: FeatureSpec, **params: Any) -> None:
        super().__init__()
        self._arguments = dict(features), params
        self._turn = RLock()  # CompressAI's context models are not for several threads at once
        self.name, self.quality = params["model"], params["quality"]
        self.model = spec.model(self.name)
        self.height, self.width = image_size(features)
        self.n, self.m = spec.channels(params)
        self.y, self.z = spec.places((self.height, self.width), self.model)
        self.net = network.build(self.name, self.n, self.m)
        self.register_buffer("counts", network.counts_of(network.bottleneck(self.net)))
        self.coding = LearnedCoding(features, ModuleState(self), **params)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by arguments and tensors: some of CompressAI's modules have classes that pickle cannot name."""
        return _rebuild, (type(self), *self._arguments, self.state_dict(), self.training)

    # -- device ------------------------------------------------------------------------------------------------------

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        """Symbols of each image and the indexes of their tables. Raises UsageError for NaN, infinity, huge latents."""
        if not bool(torch.isfinite(features["image"]).all()):
            raise UsageError("the image has NaN or infinity, which a learned codec cannot send")
        network.prepare(self.net)
        images = features["image"].clamp(0, 1)
        return [self._sample(images[i : i + 1]) for i in range(len(images))]

    @torch.no_grad()
    def _sample(self, image: Tensor) -> Latent:
        written = coder_bridge.Written()
        x = self._padded(image)
        with self._turn, coder_bridge.on(written):
            if self.model.context != spec.RASTER:
                self.net.compress(x)
            else:
                y = self.net.g_a(x)
                strings = self.net.entropy_bottleneck.compress(self.net.h_a(y))
                z = self.net.entropy_bottleneck.decompress(strings, self.z)
                values, index = autoregressive.compress(self.net, y, z)
                written.symbols.append(values)
                written.index.append(index)
        names = self.coding.names
        latent = Latent(self.coding.shape_symbols(written.symbols))
        if self.model.context != spec.FACTORIZED:
            latent.side["index"] = dict(zip(names, written.index, strict=True))
        return latent

    def device_state(self) -> Sequence[str]:
        """All but the synthesis."""
        return self._state_without("g_s")

    # -- server ------------------------------------------------------------------------------------------------------

    def server_state(self) -> Sequence[str]:
        """All but the analyses."""
        return self._state_without("g_a", "h_a")

    def _state_without(self, *networks: str) -> list[str]:
        return [name for name in self.state_dict() if not set(networks) & set(name.split("."))]

    def read(self, source: Source) -> Latent:
        """The inverse of ``write``. Raises CorruptStream.

        But for factorized models it runs the networks that predict the tables, up to the synthesis.
        """
        if self.model.context == spec.FACTORIZED:
            return self.coding.read(source)
        network.prepare(self.net)
        received = coder_bridge.Received(source, self.coding.names, self.coding.static_tables())
        most = most_raster_bytes(self.m * self.y[0] * self.y[1])
        y = self._decoded(received, lambda: source.blob("y", most))
        if self.coding.checked and source.blob("check", CHECK) != check_of(received.index):
            raise CorruptStream(
                "this machine's networks round otherwise than the sender's, or the stream is damaged: decode it on "
                "a machine like the sender's, or send it by a model whose tables are exact"
            )
        return Latent(self.coding.shape_symbols(received.symbols), {"y": as_array(y)})

    def restore(self, latent: Latent) -> Partial:
        """The image, (1, 3, H, W) in [0, 1]. Raises CorruptStream where it has NaN."""
        return self.restore_batch([latent])[0]

    def restore_batch(self, latents: Sequence[Latent]) -> list[Partial]:
        """The same of several: what predicts the tables runs for each by itself, as when it was sent."""
        network.prepare(self.net)
        with torch.no_grad():
            ys = torch.cat([self._y(latent) for latent in latents])
            images = torch.cat([self.net.g_s(part) for part in torch.split(ys, TOGETHER)])
            images = images.clamp(0, 1)[:, :, : self.height, : self.width]
        if not bool(torch.isfinite(images).all()):
            raise CorruptStream("what is decoded has NaN; the stream is damaged, get it again")
        return [Partial({"image": image[None]}) for image in images]

    def _y(self, latent: Latent) -> Tensor:
        """What the synthesis is given, (1, M, h, w)."""
        if "y" in latent.side:
            return beside(latent.side["y"], self.counts)
        symbols = [part.ravel() for part in latent.symbols.values()]
        return self._decoded(coder_bridge.Replayed(symbols), None)

    @torch.no_grad()
    def _decoded(
        self, symbols: coder_bridge.Received | coder_bridge.Replayed, blob: Callable[[], bytes] | None
    ) -> Tensor:
        """y as g_s is given it."""
        with self._turn, coder_bridge.on(symbols):
            if self.model.context != spec.RASTER:
                try:
                    self.net.decompress(*self._shape())
                except network.Received as received:
                    return received.y
                raise AssertionError("CompressAI decodes without a synthesis")
            z = self.net.entropy_bottleneck.decompress([0], self.z)
        if isinstance(symbols, coder_bridge.Replayed):
            return autoregressive.replay(self.net, z, symbols.symbols[1])
        assert blob is not None
        y, values, index = autoregressive.decompress(self.net, z, blob())
        symbols.symbols.append(values)
        symbols.index.append(index)
        return y

    def _shape(self) -> tuple[list[Any], Any]:
        """Strings, which are on the tape, and shape, as CompressAI's ``decompress`` wants them."""
        if self.model.context in (spec.FACTORIZED, spec.HYPER):
            return [[0]] * len(self.coding.names), self.y if self.model.context == spec.FACTORIZED else self.z
        groups = getattr(self.net, "groups", None)
        one = [(group, *self.y) for group in groups or [self.m]]
        strings = {"y": [[0]] * (2 * len(one)), "hyper": [[0]]}
        return [*strings["y"], *strings["hyper"]], {"y": one if groups else one[0], "hyper": self.z}

    def _padded(self, x: Tensor) -> Tensor:
        step = spec.DOWN if self.model.context == spec.FACTORIZED else 4 * spec.DOWN
        below, right = -x.shape[2] % step, -x.shape[3] % step
        return F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x

    # -- weights and training ----------------------------------------------------------------------------------------

    def adapt(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint in CompressAI's form."""
        state, counts = network.convert(self.net, tensors)
        return {**{f"net.{name}": tensor for name, tensor in state.items()}, "counts": counts}

    def forward_train(self, features: Features, rng: np.random.Generator) -> list[tuple[Partial, Tensor | None]]:
        """One entry: values rounded, straight-through, bits with uniform noise.

        Images may be of other sizes than those that packets are made of. Models that code place after place have noise
        in both.
        """
        with network.rounding(self.net):
            return self.noisy(features, rng)

    def noisy(self, features: Features, rng: np.random.Generator) -> list[tuple[Partial, Tensor | None]]:
        """The same with noise in the values too, from which training from nothing learns sooner."""
        image = features["image"]
        # In float32, as densities are. CompressAI draws its noise from the global generator.
        with torch.autocast(image.device.type, enabled=False), torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(1 << 31)))
            found = self.net(self._padded(image.float().contiguous()))
            x = found["x_hat"][:, :, : image.shape[2], : image.shape[3]]
            x = x + (x.clamp(0, 1) - x).detach()  # clamped as what is decoded, with the gradient of what is not
            bits = sum(-likelihood.log2().flatten(1).sum(1) for likelihood in found["likelihoods"].values())
        return [(Partial({"image": x}), bits)]

    def trainable_parts(self) -> TrainableParts:
        """The whole model; its bottleneck is the density that tables are made of."""
        return TrainableParts([self.net], self.freeze, densities={"density": network.bottleneck(self.net)})

    @torch.no_grad()
    def freeze(self) -> None:
        """Take medians and static tables from the density as it is now."""
        density = network.bottleneck(self.net)
        density._update_quantiles()
        self.counts.copy_(network.counts_of(density))


def _rebuild(
    kind: type[Learned], features: FeatureSpec, params: Mapping[str, Any], state: Mapping[str, Tensor], training: bool
) -> Learned:
    with torch.random.fork_rng(devices=[]):
        encoder = kind(features, **params)
    encoder.load_state_dict(state)
    return encoder.train(training)
