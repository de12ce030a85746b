"""Panels as pictures: images, maps in false colours and boxes, by numpy and Pillow alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from semcodec.panels import MISSING, Panel

UInt8 = npt.NDArray[np.uint8]
LEAST, MOST = 256, 960
"""Pixels of a picture's longer side as it is shown: small ones are magnified, in whole steps."""
HEAT = np.array(
    [(0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39),
     (252, 255, 164)],
    np.float64,
)  # fmt: skip
"""Colours from the least to the greatest value, evenly apart: those of matplotlib's "inferno"."""
FRAMES = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194))
LUMA = np.array([0.299, 0.587, 0.114])


def picture(panel: Panel) -> UInt8:
    """RGB (H, W, 3) of a panel."""
    image = panel.image
    if panel.heat is not None:
        heat, opacity = _colours(np.asarray(panel.heat, np.float64), 1.0 if image is None else 0.6)
        if image is None:
            image = _mixed(np.full(heat.shape, 255, np.uint8), heat, opacity)
        else:
            size = (image.shape[1], image.shape[0])
            grey = (0.6 * (image @ LUMA) + 0.4 * 255)[..., None].repeat(3, 2).astype(np.uint8)
            over = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.NEAREST))
            wide = np.asarray(Image.fromarray(opacity).resize(size, Image.Resampling.NEAREST))
            image = _mixed(grey, over, wide)
    assert image is not None
    return _framed(_magnified(image), panel)


def _mixed(under: UInt8, over: UInt8, opacity: npt.NDArray[Any]) -> UInt8:
    share = opacity[..., None].astype(np.float64)
    return np.rint((1 - share) * under + share * over).astype(np.uint8)


def _colours(heat: npt.NDArray[np.float64], opacity: float) -> tuple[UInt8, npt.NDArray[np.float32]]:
    """RGB and opacity of a map; what is missing is grey, or shines through over an image, and infinity is nothing."""
    finite = np.isfinite(heat)
    low, high = (heat[finite].min(), heat[finite].max()) if finite.any() else (0.0, 0.0)
    scaled = np.where(finite, heat - low, 0.0) / (high - low if high > low else 1.0)
    at = np.linspace(0, 1, len(HEAT))
    rgb = np.stack([np.interp(scaled, at, HEAT[:, i]) for i in range(3)], -1)
    rgb[np.isnan(heat)] = MISSING
    shown = np.where(finite, opacity, np.where(np.isnan(heat) & (opacity == 1.0), 1.0, 0.0))
    return np.rint(rgb).astype(np.uint8), shown.astype(np.float32)


def _magnified(image: UInt8) -> UInt8:
    longer = max(image.shape[:2])
    if longer > MOST:
        scale = MOST / longer
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    times = max(1, LEAST // longer)
    return image.repeat(times, 0).repeat(times, 1)


def _framed(image: UInt8, panel: Panel) -> UInt8:
    if not panel.frames:
        return image
    drawn = Image.fromarray(image)
    pen = ImageDraw.Draw(drawn)
    for frame in panel.frames:
        colour = FRAMES[frame.colour % len(FRAMES)]
        left, top, right, bottom = (
            share * side for share, side in zip(frame.place, (drawn.width, drawn.height) * 2, strict=True)
        )
        pen.rectangle((left, top, right, bottom), outline=colour, width=2)
        text = frame.text.encode("latin-1", "replace").decode("latin-1")  # what the built-in font has
        pen.rectangle(pen.textbbox((left + 2, top + 1), text), fill=colour)
        pen.text((left + 2, top + 1), text, fill="white")
    return np.asarray(drawn)
