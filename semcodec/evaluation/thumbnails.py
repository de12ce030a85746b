"""Panels as small pictures of their own, by Pillow alone: for pages and notebooks, where matplotlib may be absent."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from semcodec.panels import MISSING, Floats, Panel, UInt8

INFERNO = np.array(
    [(0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10),
     (249, 201, 50), (252, 255, 164)],
    np.float64,
)  # fmt: skip
"""Nine colours of the map that ``drawing`` uses, evenly over it."""
LUMA = np.array([0.299, 0.587, 0.114])


def paint(panel: Panel) -> UInt8:
    """A panel without its title and frames, uint8 (H, W, 3)."""
    if panel.heat is None:
        assert panel.image is not None
        return panel.image
    heat = panel.heat
    colours, there = _colours(heat)
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


def folded(picture: UInt8, lines: int = 4) -> UInt8:
    """A strip of frames in several lines, so that it can be seen where there is little room; others as they are."""
    high, wide = picture.shape[:2]
    if wide < 6 * high:
        return picture
    part = wide // lines
    return np.concatenate([picture[:, i * part : (i + 1) * part] for i in range(lines)])


def data_url(picture: UInt8, width: int) -> str:
    """A picture as PNG in a data: URL, scaled to a width: smoothly down, by whole pixels up."""
    image = Image.fromarray(picture)
    scale = width / image.width
    if scale >= 2:
        image = image.resize((image.width * int(scale), image.height * int(scale)), Image.Resampling.NEAREST)
    elif scale < 1:
        image = image.resize((width, max(1, round(image.height * scale))), Image.Resampling.LANCZOS)
    held = BytesIO()
    image.convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(held, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
