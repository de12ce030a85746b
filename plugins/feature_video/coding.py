"""What feature-video sends, to chunks and back: ranges, tokens without a place, and a stream of video; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.coding.video_params import CODECS
from semcodec.errors import CorruptStream
from semcodec.interfaces import Coding, Latent, Sink, Source
from semcodec.priors import Counted
from semcodec.specs import PREFIX, TOKENS, FeatureSpec
from semcodec_plugins.feature_video.packing import Layout
from semcodec_plugins.feature_video.spec import layout_of, prefix_of, ranks, shapes_of

Floats = npt.NDArray[np.float64]

HEAD, RATIO = 4096, 4
"""No codec spends more bytes than so many and so many a value, twice what 10 bits take as they are."""
CODES = 255
"""Steps in a tensor's range, in which the ranges of its channels are told."""


class FeatureVideoCoding(Coding):
    """A latent's side information: "ranges", by tensor its minimum and maximum, float32 (2,); "channels", where each
    channel has its own, by tensor these as int32 (2, C) in ``CODES`` steps of the tensor's; "video", the stream; and
    the call parameters. Its symbols: "prefix", int32 (P, D), of tokens that have some.
    """

    def __init__(self, features: FeatureSpec, state: Mapping[str, npt.NDArray[Any]], *, rank: int = 0) -> None:
        self.shapes = shapes_of(features)
        self.ranks = ranks(self.shapes, rank)
        self.prefix = prefix_of(features)

    def layout(self, params: Mapping[str, Any]) -> Layout:
        """Of the frames that call parameters name."""
        return layout_of(self.shapes, self.ranks, params)

    def write(self, latent: Latent, sink: Sink) -> None:
        """Write the blob "ranges", the symbols "channels" and "prefix" where there are any, and the blob "video"."""
        side = latent.side
        sink.blob("ranges", b"".join(side["ranges"][name].astype("<f4").tobytes() for name in self.shapes), side=True)
        if side["params"]["ranges"] == "channel":
            codes = np.concatenate([side["channels"][name].ravel() for name in self.shapes])
            sink.symbols("channels", codes.astype(np.int32), Counted(), side=True)
        if self.prefix:
            sink.symbols(PREFIX, latent.symbols[PREFIX].ravel(), Counted())
        sink.blob("video", side["video"])

    def read(self, source: Source) -> Latent:
        """The inverse of ``write``. Raises CorruptStream for ranges that cannot be."""
        params = source.params
        if params["qp"] > CODECS[params["codec"]].worst:
            raise CorruptStream(f"feature-video: {params['codec']} has no qp of {params['qp']}")
        layout = self.layout(params)
        latent = Latent({}, {"params": dict(params)})
        latent.side["ranges"] = self._read_ranges(source)
        if params["ranges"] == "channel":
            latent.side["channels"] = self._read_channels(source, layout)
        if self.prefix:
            latent.symbols[PREFIX] = source.symbols(PREFIX, int(np.prod(self.prefix)), Counted()).reshape(self.prefix)
        size = HEAD + RATIO * layout.count * layout.height * layout.width
        latent.side["video"] = source.blob("video", size)
        return latent

    def _read_ranges(self, source: Source) -> dict[str, npt.NDArray[np.float32]]:
        size = 8 * len(self.shapes)
        data = source.blob("ranges", size)
        if len(data) != size:
            raise CorruptStream(f"feature-video: {len(data)} bytes of ranges where {size} are due")
        found = np.frombuffer(data, "<f4").astype(np.float32).reshape(-1, 2)
        if not np.isfinite(found).all() or (found[:, 0] > found[:, 1]).any():
            raise CorruptStream("feature-video: a range that is none; the stream is damaged, get it again")
        return dict(zip(self.shapes, found, strict=True))

    def _read_channels(self, source: Source, layout: Layout) -> dict[str, npt.NDArray[np.int32]]:
        counts = [tiles.shape[0] for tiles in layout.tiles.values()]
        codes = source.symbols("channels", 2 * sum(counts), Counted())
        parts = np.split(codes, np.cumsum([2 * count for count in counts])[:-1])
        found = {name: part.reshape(2, -1) for name, part in zip(self.shapes, parts, strict=True)}
        if codes.min() < 0 or codes.max() > CODES or any((low > high).any() for low, high in found.values()):
            raise CorruptStream("feature-video: a channel's range is none; the stream is damaged, get it again")
        return found


def range_codes(low: Floats, high: Floats, whole: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Ranges of channels, (C,) each, in steps of the tensor's, (2,), that hold them: int32 (2, C)."""
    start, stop = whole.astype(np.float64)
    steps = CODES / ((stop - start) or 1.0)
    codes = [np.floor((low - start) * steps), np.ceil((high - start) * steps)]
    return np.clip(codes, 0, CODES).astype(np.int32)


def bounds(latent: Latent, name: str) -> tuple[Floats, Floats]:
    """Where the least and the greatest value of each plane stand, float64, (1,) of a tensor or (C,)."""
    start, stop = latent.side["ranges"][name].astype(np.float64)
    if "channels" not in latent.side:
        return np.array([start]), np.array([stop])
    low, high = latent.side["channels"][name] * ((stop - start) / CODES) + start
    return low, high


def quantise(x: Floats, low: Floats, high: Floats, bits: int) -> npt.NDArray[Any]:
    """Planes (C, T, H, W) between bounds, (1,) or (C,), to unsigned integers of ``bits``."""
    levels = (1 << bits) - 1
    low, width = (a.reshape(-1, 1, 1, 1) for a in (low, high - low))
    cells = np.rint((x - low) * (levels / np.where(width > 0, width, 1)))
    return np.clip(cells, 0, levels).astype(np.uint16 if bits > 8 else np.uint8)


def dequantise(cells: npt.NDArray[Any], low: Floats, high: Floats, bits: int) -> Floats:
    """The inverse, float64."""
    low, width = (a.reshape(-1, 1, 1, 1) for a in (low, high - low))
    values: Floats = cells * (width / ((1 << bits) - 1)) + low
    return values


def prefix_step(latent: Latent) -> float:
    """Of tokens that have no place, the step of the codec's quantiser at its ``qp``, in the tokens' own units.

    Of H.264 and H.265 it doubles every six qp and is one level of 8 bits at 4; AV1's is taken for the same share of
    its scale.
    """
    params = latent.side["params"]
    start, stop = latent.side["ranges"][TOKENS].astype(np.float64)
    qp = params["qp"] * 51 / CODECS[params["codec"]].worst
    return float(((stop - start) or 1.0) / 255 * 2 ** ((qp - 4) / 6))
