"""What a pipeline makes of one sample, as pictures: the source, what was chosen and by what, what the server has.

An Encoder gives the panels (``Encoder.panels``, ``usual`` unless it has more to show), ``of`` runs a sample through
bytes to get them. ``semcodec.evaluation.drawing`` lays them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from semcodec.errors import UsageError
from semcodec.tensors import as_array, eight_bits
from semcodec.types import Features, Partial

if TYPE_CHECKING:
    from torch import Tensor


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


def usual(features: Features, partial: Partial) -> list[Panel]:
    """What can be shown of any method: features at the cut and what the server has of them, one sample each.

    Known by name: "image" (1, 3, H, W), "frames" (1, T, 3, H, W) with "index" (1, T), "patches" (1, K, 3, p, p) of
    an image with their raster positions "index" (1, K). Any other tensor is shown as maps.
    """
    source = [source_of(features)] if "image" in features or "frames" in features else []
    return [*source, *received(features, partial, at_cut=True)]


def received(features: Features, partial: Partial, at_cut: bool = False) -> list[Panel]:
    """The panels of ``usual`` that show what the server has. features: of the input no more than the shapes is read.

    at_cut: each map beside the one of the features at the cut that it belongs to.
    """
    panels = []
    for name, values in partial.features.items():
        present = partial.present.get(name)
        if name == "index":
            continue
        if name == "frames":
            panels.append(Panel(*received_frames(features, partial)))
        elif name == "image":
            there = _present(present, values)
            title = "received" if there.all() else f"received: {100 * there.mean():.0f} % of the pixels"
            panels.append(Panel(title, grey_out(eight_bits(values)[0], there)))
        elif name == "patches" and "image" in features:
            panels.append(Panel(*received_patches(features, partial)))
        elif values.is_floating_point():
            if at_cut and name in features:
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
    index = as_array(partial.features["index"][0]) if "index" in partial.features else np.arange(kept)
    there = np.broadcast_to(_present(partial.present.get("frames"), values), (kept, *values.shape[-2:]))
    strip = np.full((max(total, int(index.max()) + 1), *values.shape[-2:], 3), MISSING, np.uint8)
    strip[index] = grey_out(eight_bits(values)[0], there)
    share = "" if there.all() else f", {100 * there.mean():.0f} % of their pixels"
    return f"received: {kept} of {total} frames{share}", side_by_side(strip)


def received_patches(features: Features, partial: Partial) -> tuple[str, UInt8]:
    """Title and picture of an image's patches at their places, the others grey."""
    patches = eight_bits(partial.features["patches"])[0]
    index = as_array(partial.features["index"][0])
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
    there: Bool = as_array((present.expand_as(values) > 0).all(-3)[0])
    return there


def grey_out(image: UInt8, present: Bool) -> UInt8:
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
    found: Floats = as_array(cells)
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
