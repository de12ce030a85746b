"""What the codecs here send, to chunks and back: one file of a picture or video, or tensors at 8 bits; no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.errors import CorruptStream, UsageError
from semcodec.interfaces import Coding, Int32, Latent, Sink, Source
from semcodec.priors import Counted
from semcodec.specs import FeatureSpec
from semcodec_plugins.image_codecs.spec import FLOATS

Int64 = npt.NDArray[np.int64]
Array = npt.NDArray[Any]
State = Mapping[str, Array]

MAX_PIXELS = 1 << 26
"""Bound on a picture whose size the spec leaves open."""
MAX_ELEMENTS = 1 << 27
"""Bound on a tensor whose shape the spec leaves open."""
HEAD, RATIO = 4096, 6
"""No format here spends more bytes than so many and so many a pixel, twice the raw size, whatever the pixels."""


def spaced(total: int, count: int) -> Int64:
    """Positions of ``count`` frames in the middles of equal stretches of ``total``; 0 is all of them.

    Raises UsageError for more frames than there are.
    """
    count = count or total
    if not 1 <= count <= total:
        raise UsageError(f"frames={count} of a clip of {total}; ask for 1 to {total}, or 0 for all")
    return (2 * np.arange(count, dtype=np.int64) + 1) * total // (2 * count)


class PictureCoding(Coding):
    """The file of one picture, of a whole image or of the frames of a clip stacked.

    A latent's side information: "picture", the file; of a clip also "index", the frames' positions, int64.
    """

    def __init__(self, features: FeatureSpec, state: State, **params: Any) -> None:
        self.clip = "frames" in features
        self.shape = features["frames" if self.clip else "image"].shape

    def write(self, latent: Latent, sink: Sink) -> None:
        """One blob, "picture"."""
        sink.blob("picture", latent.side["picture"])

    def read(self, source: Source) -> Latent:
        """The inverse of ``write``; frames are the ones that the call parameter says."""
        side: dict[str, Any] = {}
        count = 1
        if self.clip:
            assert self.shape[0] is not None  # the spec function refuses open clips
            side["index"] = spaced(self.shape[0], source.params.get("frames", 0))
            count = len(side["index"])
        side["picture"] = source.blob("picture", HEAD + RATIO * self.pixels(count))
        return Latent({}, side)

    def pixels(self, count: int) -> int:
        """The most pixels that a picture of ``count`` images or frames may have."""
        height, width = self.shape[-2:]
        return MAX_PIXELS if height is None or width is None else count * height * width


class VideoCoding(Coding):
    """The bare stream of one clip. A latent's side information: "video", the stream, and "index" as of pictures.

    total, height, width: of the whole clip.
    """

    def __init__(self, features: FeatureSpec, state: State, **params: Any) -> None:
        total, _, height, width = features["frames"].shape
        assert total is not None and height is not None and width is not None  # the spec function refuses open clips
        self.total, self.height, self.width = total, height, width

    def write(self, latent: Latent, sink: Sink) -> None:
        """One blob, "video"."""
        sink.blob("video", latent.side["video"])

    def read(self, source: Source) -> Latent:
        """The inverse of ``write``; frames are the ones that the call parameter says."""
        index = spaced(self.total, source.params["frames"])
        size = HEAD + RATIO * len(index) * self.height * self.width
        return Latent({}, {"video": source.blob("video", size), "index": index})


class TensorCoding(Coding):
    """Tensors at 8 bits a value, integers as they are.

    Side information: each float tensor's minimum and maximum as float32, and the axes that the spec leaves open.
    """

    def __init__(self, features: FeatureSpec, state: State, **params: Any) -> None:
        self.specs = dict(features)

    def write(self, latent: Latent, sink: Sink) -> None:
        """The blob "ranges", where there is anything to say, then the symbols of each tensor by its name."""
        head = b""
        for name, spec in self.specs.items():
            array = latent.symbols[name]
            axes = [n for n, due in zip(array.shape, spec.shape, strict=True) if due is None]
            head += np.array(axes, "<u4").tobytes() + np.array(latent.side.get(name, ()), "<f4").tobytes()
        if head:
            sink.blob("ranges", head, side=True)
        for name in self.specs:
            for part, words in _words(name, latent.symbols[name]).items():
                sink.symbols(part, words, Counted())

    def read(self, source: Source) -> Latent:
        """The inverse of ``write``. Raises CorruptStream for shapes, ranges and values that cannot be."""
        opens = {name: spec.shape.count(None) for name, spec in self.specs.items()}
        floats = {name: 2 * (spec.dtype in FLOATS) for name, spec in self.specs.items()}
        size = 4 * (sum(opens.values()) + sum(floats.values()))
        head = source.blob("ranges", size) if size else b""
        if len(head) != size:
            raise CorruptStream(f"tensor8: {len(head)} bytes of ranges where {size} are due")
        latent, at = Latent({}), 0
        for name, spec in self.specs.items():
            axes = iter(np.frombuffer(head, "<u4", opens[name], at).tolist())
            shape = tuple(next(axes) if due is None else due for due in spec.shape)
            at += 4 * opens[name]
            if math.prod(shape) > max(MAX_ELEMENTS, spec.size if not opens[name] else 0):
                raise CorruptStream(f"tensor8: '{name}' claims the shape {shape}, more than {MAX_ELEMENTS} values")
            if floats[name]:
                low, high = np.frombuffer(head, "<f4", 2, at).tolist()
                at += 8
                if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                    raise CorruptStream(f"tensor8: '{name}' claims the range {low} to {high}")
                latent.side[name] = (low, high)
            latent.symbols[name] = _read_words(name, shape, "uint8" if floats[name] else spec.dtype, source)
        return latent


def _words(name: str, array: Array) -> dict[str, Int32]:
    """Symbols by chunk name: values as int32, or 64-bit ones as their low and high halves."""
    if array.dtype.itemsize < 8:
        return {name: array.ravel().astype(np.int32)}
    halves = np.ascontiguousarray(array.ravel(), "<i8").view("<i4").reshape(-1, 2).astype(np.int32)
    return {name: halves[:, 0].copy(), f"{name}.high": halves[:, 1].copy()}


def _read_words(name: str, shape: tuple[int, ...], dtype: str, source: Source) -> Array:
    count = math.prod(shape)
    words = source.symbols(name, count, Counted())
    if np.dtype(dtype).itemsize == 8:
        halves = np.stack([words, source.symbols(f"{name}.high", count, Counted())], axis=1)
        return halves.astype("<i4").view("<i8").astype(dtype).reshape(shape)
    values: Array = words.astype(dtype)
    if not np.array_equal(values, words):
        raise CorruptStream(f"tensor8: '{name}' holds a value that is no {dtype}; the stream is damaged, get it again")
    return values.reshape(shape)
