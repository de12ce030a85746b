"""What a server has of a record, as pictures for a page: the panels of ``semcodec.panels`` without their sources."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from semcodec.container.packets import LocalRecord, Packet
from semcodec.painting import draw_frame, paint
from semcodec.panels import Panel, received
from semcodec.pipeline.server import Joined, Record, Server
from semcodec.tasks.prediction import Prediction
from semcodec.tasks.table import get_task
from semcodec.tensors import eight_bits, inference

LARGEST = 960
"""Pixels of a picture's longer side."""
PANELS = 4


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
    picture = Image.fromarray(np.ascontiguousarray(paint(panel)))
    picture.thumbnail((LARGEST, LARGEST))
    for frame in panel.frames:
        draw_frame(picture, frame, width=1, labelled=False)
    return picture
