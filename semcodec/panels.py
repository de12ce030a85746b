"""What a pipeline makes of one sample, as pictures: the source, what was chosen and by what, what the server has.

An Encoder gives the panels (``Encoder.panels``, ``usual`` unless it has more to show), ``of`` runs a sample through
bytes to get them. ``semcodec.drawing`` lays them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semcodec.errors import UsageError
from semcodec.interfaces import Features, Partial
from semcodec.pixels import eight_bits

if TYPE_CHECKING:
    from torch import Tensor

    from semcodec.interfaces import Latent
    from semcodec.pipeline import Pipeline
    from semcodec.prediction import Prediction

UInt8 = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]
Bool = npt.NDArray[np.bool_]

MISSING = 205
"""Grey of what was not sent."""
CHANNELS = 16
FRAMES_A_ROW = 16


@dataclass(frozen=True)
class Frame:
    """A box over a picture. place: left, top, right, bottom as shares of its width and height. colour: any number."""

    place: tuple[float, float, float, float]
    text: str
    colour: int


@dataclass(frozen=True)
class Panel:
    """One picture under a title: an image, a map in false colours, or the map over the image that it belongs to.

    image: uint8 (H, W, 3), RGB. heat: float (h, w), stretched over the image where there is one; NaN shows as missing
    and infinity as nothing. frames: drawn over it.
    """

    title: str
    image: UInt8 | None = None
    heat: Floats | None = None
    frames: tuple[Frame, ...] = ()

    def __post_init__(self) -> None:
        shape = (0, 0) if self.image is None and self.heat is None else self._shown().shape[:2]
        if 0 in shape:
            raise UsageError(f"the panel {self.title!r} has nothing to show: give it an image or a map")

    def _shown(self) -> npt.NDArray[Any]:
        shown = self.heat if self.image is None else self.image
        assert shown is not None
        return shown

    @property
    def aspect(self) -> float:
        """Width over height as it is drawn: what is very long or high is stretched, so that it can be seen."""
        height, width = self._shown().shape[:2]
        return float(min(max(width / height, 0.25), 40.0))


def of(pipeline: Pipeline, pixels: UInt8, size: tuple[int, int] | None = None) -> list[Panel]:
    """The panels of one sample, uint8 (1, T, H, W, 3) or (1, H, W, 3), which goes through real bytes.

    A gate is left out, so that what it would keep on the device is shown too. size: width and height of a detector's
    source; what it finds is then shown for each number of layers.
    """
    import torch

    from semcodec.container import Packet
    from semcodec.device import Encoded
    from semcodec.packet import PacketSink, PacketSource
    from semcodec.selection import select

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
    from semcodec.clock import Clock
    from semcodec.container import Packet, read_stream
    from semcodec.detection import Letterbox
    from semcodec.layers import cut_stream

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
    from semcodec.detection import SHOWN

    assert prediction.boxes is not None
    shown = prediction.boxes.above(SHOWN)
    assert shown.scores is not None
    width, height = size
    columns = shown.xyxy.tolist(), prediction.names, shown.scores.tolist(), shown.classes.tolist()
    for (left, top, right, bottom), name, score, label in zip(*columns, strict=False):  # names are of all that is found
        yield Frame((left / width, top / height, right / width, bottom / height), f"{name} {score:.2f}", label)


def usual(features: Features, partial: Partial) -> list[Panel]:
    """What can be shown of any method: features at the cut and what the server has of them, one sample each.

    Known by name: "image" (1, 3, H, W), "frames" (1, T, 3, H, W) with "index" (1, T), "patches" (1, K, 3, p, p) of
    an image with their raster positions "index" (1, K). Any other tensor is shown as maps.
    """
    panels = [source_of(features)] if "image" in features or "frames" in features else []
    for name, values in partial.features.items():
        present = partial.present.get(name)
        if name == "index":
            continue
        if name == "frames":
            panels.append(Panel(*received_frames(features, partial)))
        elif name == "image":
            there = _present(present, values)
            title = "received" if there.all() else f"received: {100 * there.mean():.0f} % of the pixels"
            panels.append(Panel(title, greyed(eight_bits(values)[0], there)))
        elif name == "patches" and "image" in features:
            panels.append(Panel(*received_patches(features, partial)))
        elif values.is_floating_point():
            if name in features:
                panels.append(Panel(f"{name} at the cut", heat=maps(features[name])))
            panels.append(Panel(f"{name}, received", heat=maps(values, present)))
    return panels


def source_of(features: Features) -> Panel:
    """The input's image or frames."""
    if "frames" in features:
        return Panel(f"source: {features['frames'].shape[1]} frames", side_by_side(eight_bits(features["frames"])[0]))
    return Panel("source", eight_bits(features["image"])[0])


def received_frames(features: Features, partial: Partial) -> tuple[str, UInt8]:
    """Title and strip of a clip's frames, those that are missing and the pixels that are missing in others grey."""
    values = partial.features["frames"]
    total, kept = features["frames"].shape[1], values.shape[1]
    index = partial.features["index"][0].cpu().numpy() if "index" in partial.features else np.arange(kept)
    there = np.broadcast_to(_present(partial.present.get("frames"), values), (kept, *values.shape[-2:]))
    strip = np.full((max(total, int(index.max()) + 1), *values.shape[-2:], 3), MISSING, np.uint8)
    strip[index] = greyed(eight_bits(values)[0], there)
    share = "" if there.all() else f", {100 * there.mean():.0f} % of their pixels"
    return f"received: {kept} of {total} frames{share}", side_by_side(strip)


def received_patches(features: Features, partial: Partial) -> tuple[str, UInt8]:
    """Title and picture of an image's patches at their places, the others grey."""
    patches = eight_bits(partial.features["patches"])[0]
    index = partial.features["index"][0].cpu().numpy()
    side = patches.shape[1]
    across, down = (n // side for n in (features["image"].shape[3], features["image"].shape[2]))
    grid = np.full((down * across, side, side, 3), MISSING, np.uint8)
    grid[index] = patches
    picture = grid.reshape(down, across, side, side, 3).swapaxes(1, 2).reshape(down * side, across * side, 3)
    return f"received: {len(index)} of {down * across} patches", picture


def _present(present: Tensor | None, values: Tensor) -> Bool:
    """Where a sample's pixels (..., H, W) are all there; ``present`` broadcasts to values (1, ..., C, H, W)."""
    if present is None:
        return np.ones((1,) * (values.ndim - 2), np.bool_)
    there: Bool = (present.expand_as(values) > 0).all(-3)[0].cpu().numpy()
    return there


def greyed(image: UInt8, present: Bool) -> UInt8:
    """Pixels (..., H, W, 3) with grey where ``present`` (..., H, W) is false."""
    return np.where(present[..., None], image, np.uint8(MISSING))


def side_by_side(frames: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Cells (N, H, W, ...) side by side, up to 16 a line, with a white gap between them."""
    return _tiled(frames, min(len(frames), FRAMES_A_ROW))


def maps(values: Tensor, present: Tensor | None = None) -> Floats:
    """The first 16 channels of one sample's features (1, ..., H, W) in a square, each from 0 to 1; NaN if missing.

    Features of two axes, such as tokens by width, are one map, and those of one axis a line.
    """
    cells = values[0].float()
    if present is not None:
        cells = cells.masked_fill(present.expand_as(values)[0] <= 0, float("nan"))
    cells = cells.reshape(-1, *cells.shape[-2:])[:CHANNELS] if cells.ndim > 1 else cells.reshape(1, 1, -1)
    found: Floats = cells.cpu().numpy()
    finite = np.isfinite(found)
    low = found.min((1, 2), where=finite, initial=np.inf, keepdims=True)
    high = found.max((1, 2), where=finite, initial=-np.inf, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(finite, np.where(high > low, (found - low) / (high - low), 0.5), np.nan)
    return _tiled(found, int(np.ceil(np.sqrt(len(found)))))


def _tiled(cells: npt.NDArray[Any], columns: int) -> npt.NDArray[Any]:
    """Cells (N, H, W, ...) in a grid; between them white, which among floats is infinity."""
    count, height, width = cells.shape[:3]
    gap = max(1, width // 24)
    blank: Any = np.inf if np.issubdtype(cells.dtype, np.floating) else 255
    lines = -(-count // columns)
    full = np.full((lines * columns, height + gap, width + gap, *cells.shape[3:]), blank, cells.dtype)
    full[:count, :height, :width] = cells
    grid = full.reshape(lines, columns, *full.shape[1:]).swapaxes(1, 2)
    return grid.reshape(lines * (height + gap), columns * (width + gap), *cells.shape[3:])[:-gap, :-gap]
