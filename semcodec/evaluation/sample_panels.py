"""The panels of one sample, which goes through real bytes: what the Encoder shows, and what a detector finds."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

from semcodec.panels import Frame, Panel, UInt8, source_of

if TYPE_CHECKING:
    from semcodec.pipeline.pipeline import Pipeline
    from semcodec.tasks.prediction import Prediction
    from semcodec.types import Latent


def make_panels(pipeline: Pipeline, pixels: UInt8, size: tuple[int, int] | None = None) -> list[Panel]:
    """The panels of one sample, uint8 (1, T, H, W, 3) or (1, H, W, 3), which goes through real bytes.

    A gate is left out, so that what it would keep on the device is shown too. size: width and height of a detector's
    source; what it finds is then shown for each number of layers.
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
        found = detections(pipeline, latent, pixels[0], size) if size else []
    at_input = "image" in features or "frames" in features
    return [*found, *([] if at_input or found else [source_of(pipeline.features(pixels))]), *panels]


def detections(pipeline: Pipeline, latent: Latent, pixels: UInt8, size: tuple[int, int]) -> list[Panel]:
    """What is found when only the first layers of a sample's packet arrive, for each number of them.

    pixels: (H, W, 3) as they are fitted to the input. size: width and height of the source.
    """
    from semcodec.boxes import Letterbox
    from semcodec.container.packets import Packet, read_stream
    from semcodec.container.truncation import cut_stream
    from semcodec.pipeline.timing import Clock

    whole = pipeline.stream([pipeline.pack(latent, 0, {}, Clock(), size=size)])
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
    from semcodec.tasks.detection import SHOWN

    assert prediction.boxes is not None
    shown = prediction.boxes.above(SHOWN)
    assert shown.scores is not None
    width, height = size
    columns = shown.xyxy.tolist(), prediction.names, shown.scores.tolist(), shown.classes.tolist()
    for (left, top, right, bottom), name, score, label in zip(*columns, strict=False):  # names are of all that is found
        yield Frame((left / width, top / height, right / width, bottom / height), f"{name} {score:.2f}", label)
