"""Panels as pixels, by numpy and Pillow alone: for pages and notebooks, where matplotlib may be absent."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from semcodec.panels import MISSING, Floats, Frame, Panel, UInt8

INFERNO = np.array(
    [(0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10),
     (249, 201, 50), (252, 255, 164)],
    np.float64,
)  # fmt: skip
"""Nine colours of the map that ``semcodec.evaluation.drawing`` uses, evenly over it."""
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
"""Of frames, in order; matplotlib's "tab10"."""
LUMA = np.array([0.299, 0.587, 0.114])


def paint(panel: Panel) -> UInt8:
    """A panel without its title and frames, uint8 (H, W, 3)."""
    if panel.heat is None:
        assert panel.image is not None
        return panel.image
    colours, there = _colours(panel.heat)
    if panel.image is None:
        return colours
    high, wide = panel.image.shape[:2]
    grey = (0.6 * (panel.image @ LUMA) + 0.4 * 255)[..., None].repeat(3, 2)
    over = np.asarray(Image.fromarray(colours).resize((wide, high), Image.Resampling.NEAREST), np.float64)
    shown = np.asarray(Image.fromarray(there).resize((wide, high), Image.Resampling.NEAREST))[..., None]
    return np.where(shown, 0.4 * grey + 0.6 * over, grey).astype(np.uint8)


def _colours(heat: Floats) -> tuple[UInt8, UInt8]:
    """RGB (h, w, 3) of a map between its least and greatest value, and where it has one, 0 or 255."""
    finite = np.isfinite(heat)
    low, high = (float(heat[finite].min()), float(heat[finite].max())) if finite.any() else (0.0, 0.0)
    scaled = np.where(finite, heat - low, 0.0) / (high - low if high > low else 1.0) * (len(INFERNO) - 1)
    colours = np.stack([np.interp(scaled, range(len(INFERNO)), INFERNO[:, i]) for i in range(3)], -1)
    colours[np.isnan(heat)] = MISSING
    colours[np.isinf(heat)] = 255
    return colours.astype(np.uint8), np.where(finite, 255, 0).astype(np.uint8)


def draw_frame(picture: Image.Image, frame: Frame, *, width: int, labelled: bool) -> None:
    """Outline a frame in a picture, ``width`` pixels thick; labelled: with its text, as far as Pillow's font has it."""
    pen, colour = ImageDraw.Draw(picture), COLOURS[frame.colour % len(COLOURS)]
    left, top, right, bottom = (share * side for share, side in zip(frame.place, picture.size * 2, strict=True))
    pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=width)
    if labelled:
        text = frame.text.encode("latin-1", "replace").decode("latin-1")
        pen.rectangle(pen.textbbox((left + 2, top + 1), text), fill=colour)
        pen.text((left + 2, top + 1), text, fill="white")
