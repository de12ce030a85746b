"""Panels as pictures of a size that can be seen."""

from __future__ import annotations

import numpy as np
from PIL import Image

from semcodec.painting import draw_frame, paint
from semcodec.panels import Panel, UInt8

LEAST, MOST = 256, 960
"""Pixels of a picture's longer side as it is shown: small ones are magnified, in whole steps."""


def picture(panel: Panel) -> UInt8:
    """RGB (H, W, 3) of a panel."""
    image = _magnified(paint(panel))
    if not panel.frames:
        return image
    drawn = Image.fromarray(image)
    for frame in panel.frames:
        draw_frame(drawn, frame, width=2, labelled=True)
    return np.asarray(drawn)


def _magnified(image: UInt8) -> UInt8:
    longer = max(image.shape[:2])
    if longer > MOST:
        scale = MOST / longer
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    times = max(1, LEAST // longer)
    return image.repeat(times, 0).repeat(times, 1)
