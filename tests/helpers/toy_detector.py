"""A detector without weights, an encoder of its features with two layers, and pictures for them. No tests.

It sees strong red and blue in cells of eight pixels of its input, and these are its two classes.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from semcodec.boxes import centred
from semcodec.component import Component
from semcodec.interfaces import Backbone, Encoder, Latent, Partial
from semcodec.priors import Bits
from semcodec.specs import BackboneSpec, EncoderSpec, TensorSpec

SIDE, CELL = 64, 8
CELLS = SIDE // CELL
CLASSES = ["red", "blue"]
IMAGE = {"image": TensorSpec((3, SIDE, SIDE))}
MAP = {"map": TensorSpec((2, CELLS, CELLS))}
COUNT = 2 * CELLS * CELLS


def backbone_spec(params):
    return BackboneSpec("detection", IMAGE, {"input": IMAGE, "map": MAP}, fit="letterbox")


def encoder_spec(features, params):
    return EncoderSpec({"map": TensorSpec((2, CELLS, CELLS), "uint8")}, features)


class Cells(Backbone, nn.Module):
    """One box a cell that is all red or all blue, with the share of it that is as its score."""

    def __init__(self, classes):
        super().__init__()
        self.classes = list(CLASSES)
        edges = torch.arange(CELLS) * float(CELL)
        top, left = torch.meshgrid(edges, edges, indexing="ij")
        corners = torch.stack([left, top, left + CELL, top + CELL], -1).reshape(-1, 4)
        self.register_buffer("boxes", centred(corners), persistent=False)

    def head(self, x, cut):
        if cut == "input":
            return x
        image = x["image"]
        strong = torch.stack([image[:, 0] > 0.6, image[:, 2] > 0.6], 1) & (image[:, 1:2] < 0.4)
        return {"map": nn.functional.avg_pool2d(strong.float(), CELL)}

    def tail(self, features, cut):
        scores = self.head(features, "map")["map"] if cut == "input" else features["map"]
        rows = scores.flatten(2).transpose(1, 2)
        return torch.cat([self.boxes.expand(len(rows), -1, -1), rows], 2)


class TwoNibbles(Encoder):
    """The map at eight bits, four in each of two layers."""

    def __init__(self, features, **params):
        pass

    def encode(self, features, analysis, masks, params):
        return [Latent({"map": (one * 255).round().to(torch.uint8).numpy()}) for one in features["map"]]

    def write(self, latent, sink):
        values = latent.symbols["map"].reshape(-1).astype(np.int32)
        sink.symbols("high", values >> 4, Bits(4))
        sink.layer()
        sink.symbols("low", values & 15, Bits(4))
        sink.layer()

    def read(self, source):
        values = source.symbols("high", COUNT, Bits(4)) << 4
        if source.layer():
            values = values | source.symbols("low", COUNT, Bits(4))
            source.layer()
        return Latent({"map": values.reshape(2, CELLS, CELLS)})

    def restore(self, latent):
        return Partial({"map": torch.from_numpy(latent.symbols["map"]).float()[None] / 255})


COMPONENTS = [
    Component(
        "backbone",
        "cells",
        "toy_detector:Cells",
        "red and blue cells",
        "toy_detector:backbone_spec",
    ),
    Component(
        "encoder",
        "two-nibbles",
        "toy_detector:TwoNibbles",
        "two layers of four bits",
        "toy_detector:encoder_spec",
        traits={"entropy": "required", "cut": "map"},
    ),
]

WIDE, HIGH, SQUARE = 128, 64, 16
"""Of the pictures, of which a square is a cell once they are fitted to the input."""
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def picture(objects):
    """uint8 (64, 128, 3) with squares: colour, column from 0 to 7, row from 0 to 3."""
    pixels = np.full((HIGH, WIDE, 3), 90, np.uint8)
    for colour, column, row in objects:
        pixels[row * SQUARE : (row + 1) * SQUARE, column * SQUARE : (column + 1) * SQUARE] = COLOURS[colour]
    return pixels


def line(colour, column, row):
    """A label in YOLO's form."""
    columns, rows = WIDE // SQUARE, HIGH // SQUARE
    return f"{CLASSES.index(colour)} {(column + 0.5) / columns} {(row + 0.5) / rows} {1 / columns} {1 / rows}"


def yolo_folder(root, scenes, split="val"):
    """Images in YOLO's layout: of each what is drawn and what its labels list (None: no file of labels)."""
    for kind in ("images", "labels"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    (root / "data.yaml").write_text(f"names: {CLASSES}\n")
    for number, (drawn, listed) in enumerate(scenes):
        Image.fromarray(picture(drawn)).save(root / "images" / split / f"{number:03}.png")
        if listed is not None:
            text = "".join(line(*one) + "\n" for one in listed)
            (root / "labels" / split / f"{number:03}.txt").write_text(text)
    return str(root)


def scenes(count, seed=0):
    """Some squares in each picture; some are drawn and not listed, and some are listed and not drawn."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        places = rng.permutation(32)[: rng.integers(0, 6)]
        objects = [(CLASSES[rng.integers(2)], int(place % 8), int(place // 8)) for place in places]
        made.append(([o for o in objects if rng.random() < 0.8], [o for o in objects if rng.random() < 0.8]))
    return made
