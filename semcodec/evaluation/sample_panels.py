"""The panels of one sample, which goes through real bytes: what the Encoder shows, and what a detector finds."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

from semcodec.container.packets import Packet, read_stream
from semcodec.container.truncation import cut_stream
from semcodec.panels import Panel, UInt8, source_of
from semcodec.pipeline.device import Prepared
from semcodec.pipeline.pipeline import Pipeline
from semcodec.tasks.table import get_task
from semcodec.tensors import inference
from semcodec.types import Latent


def make_panels(pipeline: Pipeline, pixels: UInt8, size: tuple[int, int] | None = None) -> list[Panel]:
    """The panels of one sample, uint8 (1, T, H, W, 3) or (1, H, W, 3), which goes through real bytes.

    A gate is left out, so that what it would keep on the device is shown too. size: width and height of the source;
    what the model answers is then shown for each number of layers, of a task that draws it.
    """
    device = pipeline.replace(selectors=replace(pipeline.stages.selectors, gate=None)).device
    prepared, _, _ = device.prepare(pixels, [0])
    [latent] = prepared.latents
    [packet] = pipeline.records([device.pack(latent, 0, {})])
    assert isinstance(packet, Packet)
    panels = _panels_of(pipeline, prepared, packet)
    draws = get_task(pipeline.composition.task).draws
    found = answer_panels(pipeline, latent, pixels[0], size) if draws and size else []
    at_input = "image" in prepared.features or "frames" in prepared.features
    return [*found, *([] if at_input or found else [source_of(pipeline.features(pixels))]), *panels]


@inference
def _panels_of(pipeline: Pipeline, prepared: Prepared, packet: Packet) -> list[Panel]:
    """What the Encoder shows of a sample and of what is restored of its packet."""
    restored = pipeline.server.restore(pipeline.server.source(packet))
    return pipeline.stages.encoder.panels(prepared.features, prepared.analysis, prepared.masks, restored)


def answer_panels(pipeline: Pipeline, latent: Latent, pixels: UInt8, size: tuple[int, int]) -> list[Panel]:
    """What is answered when only the first layers of a sample's packet arrive, for each number of them.

    pixels: (H, W, 3) as they are fitted to the input. size: width and height of the source.
    """
    task = get_task(pipeline.composition.task)
    whole = pipeline.stream([pipeline.device.pack(latent, 0, {}, size=size)])
    [packet] = read_stream(whole)[1]
    assert isinstance(packet, Packet)
    total = packet.layers_total
    panels = []
    for layers in range(1, total + 1):
        stream = BytesIO()
        if total > 1:
            cut_stream(BytesIO(whole), stream, layers)
        [record] = read_stream(stream.getvalue() or whole)[1]
        assert isinstance(record, Packet)
        [prediction] = pipeline.decode_batch([record])
        sent = f"{layers} of {total} layers, {record.size:,} bytes: " if total > 1 else ""
        panels.append(task.panel(prediction, pixels, sent))
    return panels
