"""What golden streams are made of beside installed components; frozen with them, so nothing here may change.

No torch: the models of these backbones are never built, and the Encoder is all numpy but for its last line.
"""

from __future__ import annotations

import struct

import numpy as np

from semcodec.component import Component, Param
from semcodec.errors import CorruptStream
from semcodec.interfaces import Encoder, Latent, Partial
from semcodec.priors import Bits, Counted, Indexed, Table
from semcodec.specs import BackboneSpec, EncoderSpec, TensorSpec

SMALL = Table(-4, np.array([1, 2, 4, 8, 26, 12, 6, 3, 2], np.uint32), escape=True)
FLAT = Table(0, np.array([3, 5, 5, 3], np.uint32))


def numbers(params):
    values = {"values": TensorSpec((40,))}
    return BackboneSpec("classification", values, {"input": values})


def image(params):
    picture = {"image": TensorSpec((3, 20, 28))}
    return BackboneSpec("classification", picture, {"input": picture})


def maps(params):
    mixed = {"maps": TensorSpec((4, 9, 7)), "half": TensorSpec((11,), "float16"), "index": TensorSpec((5,), "int64")}
    return BackboneSpec("classification", mixed, {"input": mixed})


def clip(params):
    frames, index = TensorSpec((8, 3, 24, 32)), TensorSpec((8,), "int64")
    some = {"frames": TensorSpec((None, 3, 24, 32)), "index": TensorSpec((None,), "int64")}
    return BackboneSpec("video", {"frames": frames}, {"input": {"frames": frames, "index": index}}, {"input": (some,)})


def layered(features, params):
    return EncoderSpec({"values": TensorSpec((40,), "int32")}, dict(features))


class Layered(Encoder):
    """Values in [0, 1) as 10-bit integers in three layers, through every kind of prior, with a side blob before."""

    def __init__(self, features):
        self.count = features["values"].shape[0]

    def encode(self, features, analysis, masks, params):
        values = (features["values"].numpy() * 1024).astype(np.int32)
        return [Latent({"values": row}, {"layers": params["layers"], "mark": params["mark"]}) for row in values]

    def write(self, latent, sink):
        values, layers = latent.symbols["values"], latent.side["layers"]
        sink.blob("mark", struct.pack("<h", latent.side["mark"]), side=True)
        sink.symbols("high", values >> 6, Counted())
        sink.layer()
        if layers > 1:
            sink.symbols("middle", (values >> 4 & 3) - (values >> 9), SMALL)
            sink.layer()
        if layers > 2:
            sink.symbols("low", values >> 2 & 3, Indexed((SMALL, FLAT), values >> 9 & 1), side=True)
            sink.symbols("lowest", values & 3, Bits(2))
            sink.layer()

    def read(self, source):
        blob, layers = source.blob("mark", 2), 1
        if len(blob) != 2:
            raise CorruptStream("no mark")
        values = source.symbols("high", self.count, Counted()) << 6
        if source.layer() and source.params["layers"] > 1:
            values = values | (source.symbols("middle", self.count, SMALL) + (values >> 9)) << 4
            layers = 2
            if source.layer() and source.params["layers"] > 2:
                low = source.symbols("low", self.count, Indexed((SMALL, FLAT), values >> 9 & 1)) << 2
                values = values | low | source.symbols("lowest", self.count, Bits(2))
                layers = 3
                source.layer()
        return Latent({"values": values}, {"layers": layers, "mark": struct.unpack("<h", blob)[0]})

    def restore(self, latent):
        import torch

        return Partial({"values": torch.from_numpy(latent.symbols["values"] / np.float32(1024))[None]})


def backbone(name):
    return Component("backbone", f"golden-{name}", "golden.parts:Unbuilt", "never built", spec=f"golden.parts:{name}")


COMPONENTS = [
    backbone("numbers"),
    backbone("image"),
    backbone("maps"),
    backbone("clip"),
    Component(
        "encoder",
        "golden-layered",
        "golden.parts:Layered",
        "three layers of integers",
        spec="golden.parts:layered",
        params=(Param("layers", int, 3, "how many", low=1, high=3), Param("mark", int, -2, "any")),
    ),
]
