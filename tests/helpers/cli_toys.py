"""A tiny image pipeline with what the built-in ones lack: layers, the device's own answer and a gate. No tests."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from semcodec.component import Component, Param
from semcodec.interfaces import Analysis, Backbone, Encoder, Latent, Partial, Selector
from semcodec.priors import Bits
from semcodec.specs import BackboneSpec, EncoderSpec, TensorSpec

IMAGE = {"image": TensorSpec((3, 24, 24))}
SHAPE = (3, 24, 24)
COUNT = 3 * 24 * 24


def backbone_spec(params):
    return BackboneSpec("classification", IMAGE, {"input": IMAGE})


def encoder_spec(features, params):
    return EncoderSpec({"image": TensorSpec(SHAPE, "uint8")}, features)


class Brightness(Backbone, nn.Module):
    """Two classes: dark and bright."""

    def __init__(self, classes):
        super().__init__()
        self.classes = ["dark", "bright"]
        self.register_buffer("weight", torch.tensor([[-8.0], [8.0]]))  # nothing to train or to look for

    def head(self, x, cut):
        return x

    def tail(self, features, cut):
        return nn.functional.linear(features["image"].mean((1, 2, 3))[:, None] - 0.5, self.weight)


class Nibbles(Encoder):
    """8-bit pixels in two layers of four bits; answers by the brightest pixel."""

    def __init__(self, features, **params):
        pass

    def analyse(self, features):
        brightest = features["image"].amax((1, 2, 3))
        return Analysis(features, {}, torch.stack([-brightest, brightest], 1) * 4)

    def encode(self, features, analysis, masks, params):
        return [Latent({"image": (image * 255).round().to(torch.uint8).numpy()}) for image in features["image"]]

    def write(self, latent, sink):
        values = latent.symbols["image"].reshape(-1).astype(np.int32)
        sink.blob("tag", b"tt", side=True)
        sink.symbols("high", values >> 4, Bits(4))
        sink.layer()
        sink.symbols("low", values & 15, Bits(4))
        sink.layer()

    def read(self, source):
        source.blob("tag", 2)
        values = source.symbols("high", COUNT, Bits(4)) << 4
        if source.layer():
            values = values | source.symbols("low", COUNT, Bits(4))
            source.layer()
        return Latent({"image": values.reshape(SHAPE)})

    def restore(self, latent):
        return Partial({"image": torch.from_numpy(latent.symbols["image"]).float()[None] / 255})


class Doubtful(Selector):
    def __init__(self, below):
        self.below = below

    def gate(self, prediction):
        return prediction.softmax(1).amax(1) < self.below


COMPONENTS = [
    Component("backbone", "brightness", "cli_toys:Brightness", "dark or bright", "cli_toys:backbone_spec"),
    Component(
        "encoder",
        "nibbles",
        "cli_toys:Nibbles",
        "two layers of four bits",
        "cli_toys:encoder_spec",
        traits={"entropy": "required", "predicts": True},
        license="AGPL-3.0",
    ),
    Component(
        "selector",
        "doubtful",
        "cli_toys:Doubtful",
        "sends what the device is not sure of",
        params=(Param("below", float, 0.9, "probability", when="build"),),
        positional="below",
        traits={"abilities": ("gate",)},
    ),
]
