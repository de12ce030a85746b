"""A task in one module: how bright an image is on average. With it a model, an encoder and data for it. No tests."""

from __future__ import annotations

import struct

import numpy as np
import torch
from torch import nn

from semcodec.component import Component
from semcodec.data.base import Dataset
from semcodec.errors import UsageError
from semcodec.interfaces import Backbone, Encoder, Latent, Partial
from semcodec.priors import Bits
from semcodec.specs import BackboneSpec, EncoderSpec, TensorSpec
from semcodec.tasks.base import Metric, Score, Task
from semcodec.tasks.prediction import Prediction
from semcodec.tasks.statistics import paired, wilson

NEAR = 0.05
"""Of the whole range: a guess that is no farther off counts as right."""


class Brightness(Task):
    """Labels are float32 (B,), 0 to 1. A packet begins with the shutter time that the device knows."""

    metric = Metric("near", "share of samples within 0.05", "near %")

    def check_labels(self, name, labels):
        if not np.ptp(labels):
            raise UsageError(f"{name} has samples of one brightness alone")

    def example_labels(self, count):
        return torch.linspace(0, 1, count)

    def write_side(self, sink, size, request):
        sink.blob("shutter", struct.pack("<H", 125), side=True)

    def read_side(self, source):
        source.blob("shutter", 2)

    def output(self, classes):
        return TensorSpec((1,))

    def port(self, classes):
        return {"brightness": "float32[1]"}

    def answers(self, output, clock):
        with clock("clip"):
            return output[:, 0].clamp(0, 1).tolist()

    def predict(self, packet, answer, classes, request, rows):
        layers = packet.layers_present, packet.layers_total
        return Prediction(-1, "brightness", answer, None, layers, rows=rows)

    def score(self, dataset, classes, request, input_bytes):
        return BrightnessScore(input_bytes)

    def compare(self, first, second):
        return paired(*([abs(e) <= NEAR for e in record["errors"]] for record in (first, second)))

    def columns(self, record):
        return [("mean error", f"{record['mean_error']:.4f}")]

    def notes(self, record):
        return [("brightness", "of 0 to 1")]

    def describe(self, prediction, classes, label, names):
        value = {"brightness": prediction.probability, "where": prediction.where}
        return {"prediction": value, "label": None if label is None else float(label)}

    def fields(self, told):
        there = "" if told["label"] is None else f"; it is {told['label']:.3f}"
        return [("brightness", f"{told['prediction']['brightness']:.3f}{there}")]

    def cells(self, told):
        return [("brightness", f"{told['prediction']['brightness']:.3f}")]

    def headline(self, told):
        return [f"brightness {told['prediction']['brightness']:.3f}"]


class BrightnessScore(Score):
    def __init__(self, input_bytes):
        self.input_bytes, self.errors = input_bytes, []

    @property
    def source_bytes(self):
        return self.input_bytes

    def add(self, predictions, labels, sizes):
        self.errors += [p.probability - float(label) for p, label in zip(predictions, labels, strict=True)]

    def accuracy(self):
        near, total = sum(abs(e) <= NEAR for e in self.errors), len(self.errors)
        mean = sum(map(abs, self.errors)) / total
        return {"near": near / total, "near_interval": list(wilson(near, total)), "mean_error": mean}

    def by_sample(self):
        return {"errors": self.errors}


# -- data and components for it ----------------------------------------------------------------------------------------

SIDE = 32
IMAGE = {"image": TensorSpec((3, SIDE, SIDE))}


class Greys(Dataset):
    """Even greys, from black to white; train and test are the same."""

    kind = "image"

    def __init__(self, split, request):
        self.name, self.classes, self.split, self.request = "greys", [], split, request

    @property
    def tasks(self):
        return ("brightness",)

    def __len__(self):
        return 12

    def batch(self, indices):
        values = np.array(indices) * 20
        pixels = np.broadcast_to(values[:, None, None, None], (len(values), *self.request.shape)).astype(np.uint8)
        return pixels, (values / 255).astype(np.float32)

    def sizes(self, indices):
        return [(SIDE, SIDE)] * len(indices)

    def ids(self, indices):
        return [f"greys/{i}" for i in indices]


def backbone_spec(params):
    return BackboneSpec("brightness", IMAGE, {"input": IMAGE})


def encoder_spec(features, params):
    return EncoderSpec({"image": TensorSpec((3, SIDE, SIDE), "uint8")}, features)


class Mean(Backbone, nn.Module):
    """The mean of all values. It takes dark for a little darker, so that some guesses are wrong."""

    def __init__(self, classes):
        super().__init__()
        self.classes = []

    def head(self, x, cut):
        return x

    def tail(self, features, cut):
        mean = features["image"].mean((1, 2, 3))[:, None]
        return mean - 0.2 * (mean < 0.2)


class Bytes(Encoder):
    """8-bit pixels as they are."""

    def __init__(self, features, **params):
        pass

    def encode(self, features, analysis, masks, params):
        return [Latent({"image": (image * 255).round().to(torch.uint8).numpy()}) for image in features["image"]]

    def write(self, latent, sink):
        sink.symbols("image", latent.symbols["image"].reshape(-1).astype(np.int32), Bits(8))

    def read(self, source):
        values = source.symbols("image", 3 * SIDE * SIDE, Bits(8))
        return Latent({"image": values.reshape(3, SIDE, SIDE).astype(np.uint8)})

    def restore(self, latent):
        return Partial({"image": torch.from_numpy(latent.symbols["image"]).float()[None] / 255})


def _component(kind, name, target, **more):
    return Component(kind, name, f"mean_brightness:{target}", f"a toy {kind}", **more)


COMPONENTS = [
    _component("backbone", "mean", "Mean", spec="mean_brightness:backbone_spec"),
    _component(
        "encoder", "bytes", "Bytes", spec="mean_brightness:encoder_spec",
        traits={"entropy": "required", "tasks": ("brightness",)},
    ),
]  # fmt: skip
