"""Painted panels made small, for pages and notebooks."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from semcodec.panels import UInt8


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
