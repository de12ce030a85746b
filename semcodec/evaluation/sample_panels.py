"""The panels of one sample, which goes through real bytes: what the Encoder shows, and what the model answers."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from semcodec.panels import Panel, UInt8, source_of
from semcodec.tasks.table import get_task

if TYPE_CHECKING:
    from semcodec.pipeline.pipeline import Pipeline
    from semcodec.types import Latent


def make_panels(pipeline: Pipeline, pixels: UInt8, size: tuple[int, int] | None = None) -> list[Panel]:
    """The panels of one sample, uint8 (1, T, H, W, 3) or (1, H, W, 3), which goes through real bytes.

    A gate is left out, so that what it would keep on the device is shown too. size: width and height of the source;
    what the model answers is then shown for each number of layers, of a task that draws it.
    """
    import torch

    from semcodec.container.packets import Packet
    from semcodec.container.sinks import PacketSink, PacketSource
    from semcodec.pipeline.device import Encoded
    from semcodec.pipeline.selection import select

    composition, stages = pipeline.composition, pipeline.stages
    encoder, params = stages.encoder, dict(composition.call)
    with torch.inference_mode():
        features = pipeline.head(pipeline.features(pixels))
        analysis = encoder.analyse(features)
        masks, _ = select(encoder, analysis, pipeline.keep(), [0])
        [latent] = encoder.encode(features, analysis, masks, params)
        sink = PacketSink(stages.entropy)
        encoder.write(latent, sink)
        [packet] = pipeline.records([Encoded(sink.pack(pipeline.header, 0, params).data)])
        assert isinstance(packet, Packet)
        source = PacketSource(packet, stages.entropy, packet.params)
        received = encoder.read(source)
        source.finish()
        panels = encoder.panels(features, analysis, masks, encoder.restore(received))
        draws = get_task(composition.task).draws
        found = answer_panels(pipeline, latent, pixels[0], size) if draws and size else []
    at_input = "image" in features or "frames" in features
    return [*found, *([] if at_input or found else [source_of(pipeline.features(pixels))]), *panels]


def answer_panels(pipeline: Pipeline, latent: Latent, pixels: UInt8, size: tuple[int, int]) -> list[Panel]:
    """What is answered when only the first layers of a sample's packet arrive, for each number of them.

    pixels: (H, W, 3) as they are fitted to the input. size: width and height of the source.
    """
    from semcodec.container.packets import Packet, read_stream
    from semcodec.container.truncation import cut_stream
    from semcodec.pipeline.timing import Clock

    task = get_task(pipeline.composition.task)
    whole = pipeline.stream([pipeline.pack(latent, 0, {}, Clock(), size=size)])
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
