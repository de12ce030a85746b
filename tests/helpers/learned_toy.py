"""A tiny codec that learns by ``forward_train``, with densities beside its weights, and a backbone. No tests."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from semcodec.coding.tables import channel_prior
from semcodec.component import Component
from semcodec.interfaces import Backbone, Encoder, Latent, Partial, TrainableParts
from semcodec.specs import BackboneSpec, EncoderSpec, TensorSpec
from semcodec.training.loop import Step

SIDE, STEP, REACH = 16, 4, 60
IMAGE = {"image": TensorSpec((3, SIDE, SIDE))}
SHAPE = (3, SIDE // STEP, SIDE // STEP)


def backbone_spec(params):
    return BackboneSpec("classification", IMAGE, {"input": IMAGE})


def encoder_spec(features, params):
    return EncoderSpec({"q": TensorSpec(SHAPE, "int32")}, features)


class Tiny(Backbone, nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.classes = classes
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(196, 2))
        nn.init.zeros_(self.net[-1].weight)

    def head(self, x, cut):
        return x

    def tail(self, features, cut):
        return 20 * self.net(5 * features["image"] - 2.5).float()  # so that few small steps tell


class Density(nn.Module):
    """Logistic, of one spread for each channel."""

    def __init__(self):
        super().__init__()
        self.spread = nn.Parameter(torch.full((3, 1, 1), 0.02))

    def forward(self, y):
        s = (75 * self.spread).exp()
        return (torch.sigmoid((y + 0.5) / s) - torch.sigmoid((y - 0.5) / s)).clamp_min(1e-6)


class Blocks(nn.Module, Encoder):
    """Means of blocks of pixels, times a gain that is learned, rounded; tables are made when learning ends."""

    def __init__(self, features):
        super().__init__()
        self.gain = nn.Parameter(torch.full((3, 1, 1), 0.04))
        self.register_buffer("counts", torch.ones(3, 2 * REACH + 1, dtype=torch.int32))
        self.density = []

    @property
    def scale(self):
        return (75 * self.gain).exp()  # a log, so that few small steps of an optimiser tell

    def sent(self, image):
        return (F.avg_pool2d(image, STEP) - 0.5) * self.scale

    def rebuilt(self, y):
        return {"image": F.interpolate(y / self.scale + 0.5, scale_factor=STEP)}

    def encode(self, features, analysis, masks, params):
        y = self.sent(features["image"]).round().clamp(-REACH, REACH)
        return [Latent({"q": q}) for q in y.int().numpy()]

    def prior(self):
        return channel_prior(self.counts.numpy(), SHAPE[1] * SHAPE[2], -REACH, escape=True)

    def write(self, latent, sink):
        sink.symbols("q", latent.symbols["q"].ravel(), self.prior())

    def read(self, source):
        return Latent({"q": source.symbols("q", int(np.prod(SHAPE)), self.prior()).reshape(SHAPE)})

    def restore(self, latent):
        with torch.no_grad():
            return Partial(self.rebuilt(torch.from_numpy(latent.symbols["q"])[None].float()))

    def forward_train(self, features, rng):
        y = self.sent(features["image"].float())
        noisy = y + torch.from_numpy(rng.random(y.shape, np.float32)) - 0.5
        return [(Partial(self.rebuilt(noisy)), -self.density[0](noisy).log2().flatten(1).sum(1))]

    def trainable_parts(self):
        self.density = [Density()]
        return TrainableParts([self], self.settle, densities={"density": self.density[0]})

    @torch.no_grad()
    def settle(self):
        likelihood = self.density[0](torch.arange(-REACH, REACH + 1.0).expand(3, 1, -1))[:, 0]
        self.counts.copy_((likelihood * 65536).round() + 1)


class Fixed(Blocks):
    """The same without a rate: it is none of its choice."""

    def forward_train(self, features, rng):
        return [(partial, None) for partial, _ in super().forward_train(features, rng)]


def recipe(job):
    encoder, learning = job.modules["encoder"], job.trainable_parts

    def loss(b):
        [(partial, bits)] = encoder.forward_train({"image": b.pixels}, b.rng)
        error = (partial.features["image"] - b.pixels).square().mean()
        return 100 * error + (0 if bits is None else bits.mean() / SIDE**2), {"error": error.item()}

    return [Step("pixels", [encoder, *learning.densities.values()], loss, 2000, 4e-4, 16, finish=learning.settle)]


COMPONENTS = [
    Component("backbone", "tiny", "learned_toy:Tiny", "two classes", "learned_toy:backbone_spec"),
    *(
        Component(
            "encoder",
            name,
            f"learned_toy:{kind}",
            "means of blocks",
            "learned_toy:encoder_spec",
            traits={"entropy": "required"},
            license="MIT",
            recipe="learned_toy:recipe",
        )
        for name, kind in (("blocks", "Blocks"), ("fixed-blocks", "Fixed"))
    ),
]
