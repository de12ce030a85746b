"""``digits-motion``: clips of one handwritten digit moving over a textured background; the class is the motion.

The digit is hidden in some frames of every clip, so some frames carry nothing, and no single frame tells the
motion. Every frame has its own sensor noise. A clip depends on its index alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from semcodec.data.base import Dataset
from semcodec.data.contents import digest_of
from semcodec.data.textures import digit_images, hash64, seeds_for, texture, uniform, upsample
from semcodec.errors import DataError
from semcodec.specs import InputRequest

if TYPE_CHECKING:
    import numpy.typing as npt

    from semcodec.data.base import Int64, UInt8

CLASSES = ["left", "right", "up", "down", "rotate-cw", "rotate-ccw", "zoom-in", "zoom-out", "bounce", "orbit"]
VERSION = 1
"""Rises when samples change: they are made from name, split and number alone."""
SIZES = {"train": 20_000, "test": 1_000}
HIDDEN = (4, 9)  # frames without the digit, of 16: at least and at most
NOISE = 4.0  # half width of the sensor noise, in 8-bit steps
BACKGROUND = 0.8  # of the range of 8 bits: the digit is the brightest thing in a clip
GLYPH = 24
CHUNK = 8  # clips made at a time: they stay in the cache


class DigitsMotion(Dataset):
    """20,000 clips for training and 1,000 for the test, made of disjoint digits."""

    name = "digits-motion"
    kind = "video"
    classes = CLASSES
    split: str

    def __init__(self, split: str, request: InputRequest) -> None:
        if request.frames is None:
            raise DataError("digits-motion holds clips; for still images take digits-scenes")
        self.split, self.request = split, request
        self.frames, self.height, self.width = request.frames, request.height, request.width

    def __len__(self) -> int:
        return SIZES[self.split]

    def content(self, count: int) -> str:
        return digest_of([self.name, VERSION, self.split, count])

    def ids(self, indices: Sequence[int]) -> list[str]:
        return [f"digits-motion/{self.split}/{int(i)}" for i in indices]

    def batch(self, indices: Sequence[int]) -> tuple[UInt8, Int64]:
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"digits-motion/{self.split} has samples 0 to {len(self) - 1}, not {int(rows.max())}")
        pixels = np.empty((len(rows), self.frames, self.height, self.width, 3), np.uint8)
        labels = np.empty(len(rows), np.int64)
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            pixels[part], labels[part] = self._make(rows[part])
        return pixels, labels

    def _make(self, rows: Int64) -> tuple[UInt8, Int64]:
        batch, frames = len(rows), self.frames
        seeds = seeds_for(1 if self.split == "train" else 2, rows)
        draw = uniform(seeds, 16, salt=100)
        images, _ = digit_images(self.split)
        labels = (draw[:, 0] * len(CLASSES)).astype(np.int64)
        glyphs = upsample(images[(draw[:, 1] * len(images)).astype(np.int64)], GLYPH)
        x, y, angle, scale = path(labels, draw, frames)

        canvas = np.empty((batch, frames, self.height, self.width, 3), np.float32)
        canvas[:] = (texture(seeds, self.height, self.width) * np.float32(BACKGROUND))[:, None]
        who, when = np.nonzero(~hidden(seeds, frames))
        alpha = render(
            glyphs[who], x[who, when], y[who, when], angle[who, when], scale[who, when], self.height, self.width
        )
        colour = (235 + 20 * draw[:, 13:16]).astype(np.float32)[who][:, None, None]
        behind = canvas[who, when]
        canvas[who, when] = behind + (colour - behind) * alpha[..., None]

        words = hash64(hash64(seeds, 9)[:, None], np.arange(1, canvas[0].size // 8 + 2)).astype("<u8")
        noise = words.view(np.uint8)[:, : canvas[0].size].reshape(canvas.shape).astype(np.float32)
        canvas += (noise - np.float32(127.5)) * np.float32(NOISE / 127.5)
        return np.rint(np.clip(canvas, 0, 255, out=canvas)).astype(np.uint8), labels


def hidden(seeds: npt.NDArray[np.uint64], frames: int) -> npt.NDArray[np.bool_]:
    """(B, frames): where the digit is not shown."""
    low, high = (max(0, round(n * frames / 16)) for n in HIDDEN)
    order = uniform(seeds, frames, salt=101).argsort(1, kind="stable").argsort(1, kind="stable")
    count = low + (uniform(seeds, 1, salt=102) * (high - low + 1)).astype(np.int64)
    return order < np.minimum(count, frames - 2)


def _wave(turns: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Cosine and sine, rounded to 2**-12: library differences in the last bit do not reach the pixels."""
    radians = 2 * np.pi * turns
    return np.rint(np.cos(radians) * 4096) / 4096, np.rint(np.sin(radians) * 4096) / 4096


def path(labels: Int64, draw: npt.NDArray[np.float64], frames: int) -> tuple[npt.NDArray[np.float64], ...]:
    """Centre x, y (in sides), angle (in turns) and size (in sides) of the digit, each (B, frames).

    ``draw`` holds uniform numbers (B, 16) for each clip's speed, start and so on.
    """
    time = np.linspace(0, 1, frames)[None]
    name = np.array(CLASSES)[labels][:, None]
    names = ("start", "across", "span", "turn", "size", "sign", "tilt")
    d = {name: draw[:, i : i + 1] for i, name in enumerate(names, start=2)}
    zero = np.zeros((len(labels), frames))

    span = 0.30 + 0.25 * d["span"]
    along = 0.5 + (time - 0.5) * span + 0.1 * (d["start"] - 0.5)
    across = 0.3 + 0.4 * d["across"] + zero
    x = np.where(name == "right", along, np.where(name == "left", 1 - along, across))
    y = np.where(name == "down", along, np.where(name == "up", 1 - along, 0.3 + 0.4 * d["start"] + zero))
    y = np.where((name == "left") | (name == "right"), across, y)

    hop = (2 * time + d["turn"]) % 1  # two parabolic hops, drifting sideways
    bounce = name == "bounce"
    y = np.where(bounce, 0.72 - 0.45 * (0.6 + 0.4 * d["span"]) * 4 * hop * (1 - hop), y)
    x = np.where(bounce, x + (d["size"] - 0.5) * 0.4 * (time - 0.5), x)

    sign = np.where(d["sign"] < 0.5, -1.0, 1.0)
    cos, sin = _wave(d["turn"] + sign * (0.8 + 0.3 * d["span"]) * time)
    radius = 0.14 + 0.08 * d["start"]
    orbit = name == "orbit"
    x, y = np.where(orbit, 0.5 + radius * cos, x), np.where(orbit, 0.5 + radius * sin, y)

    sweep = (0.30 + 0.15 * d["span"]) * (time - 0.5)  # clockwise on the screen, whose y axis points down
    angle = np.where(name == "rotate-cw", sweep, np.where(name == "rotate-ccw", -sweep, zero))
    angle = angle + (d["tilt"] - 0.5) * 0.1
    growth = 0.6 + 0.9 * time
    scale = np.where(name == "zoom-in", growth, np.where(name == "zoom-out", growth[:, ::-1], 1 + zero))
    return x, y, angle, scale * (0.28 + 0.08 * d["size"])


def render(
    glyphs: npt.NDArray[np.float32],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    angle: npt.NDArray[np.float64],
    scale: npt.NDArray[np.float64],
    height: int,
    width: int,
) -> npt.NDArray[np.float32]:
    """Opacity (N, height, width) of the glyphs (N, G, G), turned, scaled and placed; bilinear."""
    size = glyphs.shape[1]
    side = min(height, width)
    cos, sin = _wave(angle)
    per_pixel = size / (scale * side)
    f = np.float32
    dx = (np.arange(width) - x[:, None] * width + 0.5).astype(f)[:, None, :]
    dy = (np.arange(height) - y[:, None] * height + 0.5).astype(f)[:, :, None]
    a, b = (cos * per_pixel).astype(f)[:, None, None], (sin * per_pixel).astype(f)[:, None, None]
    # The glyph gets a border of one, on which everything outside it lands.
    u = np.clip(a * dx + b * dy + f(size / 2 + 0.5), 0, size + 1)
    v = np.clip(a * dy - b * dx + f(size / 2 + 0.5), 0, size + 1)
    padded = np.pad(glyphs, ((0, 0), (1, 2), (1, 2)))
    row, column = v.astype(np.int32), u.astype(np.int32)
    v -= row
    u -= column
    flat = padded.ravel()
    at = (np.arange(len(glyphs), dtype=np.int32) * padded[0].size)[:, None, None] + row * padded.shape[2] + column
    top = flat[at] * (1 - u) + flat[at + 1] * u
    at += padded.shape[2]
    bottom = flat[at] * (1 - u) + flat[at + 1] * u
    alpha: npt.NDArray[np.float32] = top * (1 - v) + bottom * v
    return alpha
