"""What a server has of a record, as pictures for a page: the panels of ``semcodec.panels`` without their sources."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from semcodec.container.packets import LocalRecord, Packet
from semcodec.errors import CorruptStream
from semcodec.panels import MISSING, Floats, Panel, received
from semcodec.pipeline.server import Joined, Record, Server
from semcodec.tasks.prediction import Prediction
from semcodec.tasks.table import get_task
from semcodec.tensors import eight_bits, inference

LARGEST = 960
"""Pixels of a picture's longer side."""
PANELS = 4
INFERNO = np.array(
    [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39],
     [252, 255, 164]], np.float64,
)  # fmt: skip
"""Of false colours from least to greatest, evenly apart."""
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")
LUMA = np.array([0.299, 0.587, 0.114])

RGB = npt.NDArray[np.uint8]


@inference
def show(server: Server, record: Record, prediction: Prediction | None) -> list[Mapping[str, Any]]:
    """The panels of one record of the server's stream, as ``as_data`` gives them; none of a LOCAL record.

    prediction: of a task that draws it, drawn over the input where that was received. Raises StreamError.
    """
    if isinstance(record, LocalRecord):
        return []
    return [as_data(panel) for panel in panels_of(server, record, prediction)[:PANELS]]


def panels_of(server: Server, record: Packet | Joined, prediction: Prediction | None) -> list[Panel]:
    """What is restored of a record and, where that is the input with holes, what was recovered of it."""
    import torch

    shapes = {name: torch.empty((1, *spec.shape), device="meta") for name, spec in server.input.items()}  # type: ignore[arg-type]
    partial = server.restored(record)
    panels = received(shapes, partial)
    [features] = server.recover([partial])
    image = features.get("image") if server.composition.cut == "input" else None
    task = get_task(server.composition.task)
    if image is not None:
        whole = eight_bits(image.cpu())[0]
        if prediction is not None and prediction.boxes is not None and task.draws:
            return [task.panel(prediction, whole, "received, "), *panels[1:]]
        if "image" not in partial.features or "image" in partial.present:
            panels.append(Panel("recovered", whole))
    return panels


def as_data(panel: Panel) -> dict[str, Any]:
    """title, width, height and ``src``, a data: address of a PNG or JPEG picture."""
    picture = draw(panel)
    file, form = BytesIO(), "PNG" if max(picture.size) <= 128 or panel.image is None else "JPEG"
    picture.save(file, form, **({"quality": 85} if form == "JPEG" else {}))
    src = f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"title": panel.title, "width": picture.width, "height": picture.height, "src": src}


def draw(panel: Panel) -> Image.Image:
    """A panel without its title, its longer side at most ``LARGEST`` pixels."""
    image = panel.image
    if panel.heat is not None:
        colours, there = _colours(panel.heat)
        if image is None:
            image = colours
        else:
            grey = (0.6 * (image @ LUMA) + 0.4 * 255)[..., None].repeat(3, 2)
            mask = np.where(there[..., None], np.uint8(255), np.uint8(0))
            over = 0.6 * (_stretched(mask, image.shape)[..., :1] > 127)
            image = (over * _stretched(colours, image.shape) + (1 - over) * grey).astype(np.uint8)
    if image is None:
        raise CorruptStream(f"the panel {panel.title!r} has nothing to show")
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((LARGEST, LARGEST))
    if panel.frames:
        _draw_frames(picture, panel)
    return picture


def _draw_frames(picture: Image.Image, panel: Panel) -> None:
    pen, (width, height) = ImageDraw.Draw(picture), picture.size
    for frame in panel.frames:
        left, top, right, bottom = (share * side for share, side in zip(frame.place, (width, height) * 2, strict=True))
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=COLOURS[frame.colour % len(COLOURS)])


def _stretched(image: RGB, shape: Sequence[int]) -> RGB:
    picture = Image.fromarray(image.repeat(3, 2) if image.shape[2] == 1 else image)
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.NEAREST))


def _colours(heat: Floats) -> tuple[RGB, npt.NDArray[np.bool_]]:
    """RGB (h, w, 3) of a map between its least and greatest value, and where it has one; what is missing is grey."""
    finite = np.isfinite(heat)
    low, high = (float(heat[finite].min()), float(heat[finite].max())) if finite.any() else (0.0, 0.0)
    scaled = np.where(finite, heat - low, 0.0) / (high - low if high > low else 1.0)
    places = np.linspace(0, 1, len(INFERNO))
    colours = np.stack([np.interp(scaled, places, INFERNO[:, channel]) for channel in range(3)], -1).astype(np.uint8)
    colours[np.isnan(heat)] = MISSING
    colours[np.isinf(heat)] = 255
    return colours, finite
