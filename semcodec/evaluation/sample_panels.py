"""The panels of one sample, which goes through real bytes: what the Encoder shows, and what a detector finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO

from semcodec.boxes import Letterbox
from semcodec.container.packets import Packet, read_stream
from semcodec.container.truncation import cut_stream
from semcodec.panels import Frame, Panel, UInt8, source_of
from semcodec.pipeline.device import Prepared
from semcodec.pipeline.pipeline import Pipeline
from semcodec.tasks.detection import SHOWN
from semcodec.tasks.prediction import Prediction
from semcodec.tensors import inference
from semcodec.types import Latent


def make_panels(pipeline: Pipeline, pixels: UInt8, size: tuple[int, int] | None = None) -> list[Panel]:
    """The panels of one sample, uint8 (1, T, H, W, 3) or (1, H, W, 3), which goes through real bytes.

    A gate is left out, so that what it would keep on the device is shown too. size: width and height of a detector's
    source; what it finds is then shown for each number of layers.
    """
    device = pipeline.replace(selectors=replace(pipeline.stages.selectors, gate=None)).device
    prepared, _, _ = device.prepare(pixels, [0])
    [latent] = prepared.latents
    [packet] = pipeline.records([device.pack(latent, 0, {})])
    assert isinstance(packet, Packet)
    panels = _panels_of(pipeline, prepared, packet)
    found = detections(pipeline, latent, pixels[0], size) if size else []
    at_input = "image" in prepared.features or "frames" in prepared.features
    return [*found, *([] if at_input or found else [source_of(pipeline.features(pixels))]), *panels]


@inference
def _panels_of(pipeline: Pipeline, prepared: Prepared, packet: Packet) -> list[Panel]:
    """What the Encoder shows of a sample and of what is restored of its packet."""
    restored = pipeline.server.restore(pipeline.server.source(packet))
    return pipeline.stages.encoder.panels(prepared.features, prepared.analysis, prepared.masks, restored)


def detections(pipeline: Pipeline, latent: Latent, pixels: UInt8, size: tuple[int, int]) -> list[Panel]:
    """What is found when only the first layers of a sample's packet arrive, for each number of them.

    pixels: (H, W, 3) as they are fitted to the input. size: width and height of the source.
    """
    whole = pipeline.stream([pipeline.device.pack(latent, 0, {}, size=size)])
    [packet] = read_stream(whole)[1]
    assert isinstance(packet, Packet)
    total = packet.layers_total
    place = Letterbox.of(*size, pixels.shape[1], pixels.shape[0])
    across, down = place.inside
    image = pixels[place.top : place.top + down, place.left : place.left + across]
    panels = []
    for layers in range(1, total + 1):
        stream = BytesIO()
        if total > 1:
            cut_stream(BytesIO(whole), stream, layers)
        [record] = read_stream(stream.getvalue() or whole)[1]
        assert isinstance(record, Packet)
        [prediction] = pipeline.decode_batch([record])
        frames = tuple(_frames(prediction, size))
        sent = f"{layers} of {total} layers, {record.size:,} bytes: " if total > 1 else ""
        panels.append(Panel(f"{sent}{len(frames)} found", image, frames=frames))
    return panels


def _frames(prediction: Prediction, size: tuple[int, int]) -> Iterator[Frame]:
    """The boxes that score enough to be shown."""
    assert prediction.boxes is not None
    shown = prediction.boxes.above(SHOWN)
    assert shown.scores is not None
    width, height = size
    columns = shown.xyxy.tolist(), prediction.names, shown.scores.tolist(), shown.classes.tolist()
    for (left, top, right, bottom), name, score, label in zip(*columns, strict=False):  # names are of all that is found
        yield Frame((left / width, top / height, right / width, bottom / height), f"{name} {score:.2f}", label)
