"""What the embedded data sets are made of: handwritten digits, counter-based random numbers, textured backgrounds.

Random numbers are hashes of (seed, position), so a sample depends on its own index only, never on the batch
it is made in. Pixels are computed by elementwise IEEE arithmetic alone (no BLAS, no sin or cos), so they are
the same on every machine.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
UInt64 = npt.NDArray[np.uint64]

DIGITS = "digits.npz"
TRAIN_DIGITS = 1297  # of 1797; the other 500 are the test split
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_CHUNK_BYTES = 1 << 19  # samples are made in groups that stay in the cache: three times faster than all at once


def hash64(seeds: npt.ArrayLike, counters: npt.ArrayLike) -> UInt64:
    """The ``counters``-th output of splitmix64 started at ``seeds``; uint64, the two broadcast."""
    z = np.atleast_1d(np.asarray(counters, dtype=np.uint64)) * _GOLDEN + np.asarray(seeds, dtype=np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def seeds_for(salt: int, indices: npt.ArrayLike) -> UInt64:
    """Independent seeds, uint64 (B,), for the samples ``indices`` of the set (or the purpose) ``salt``."""
    return hash64(hash64(np.uint64(salt), 1), np.atleast_1d(np.asarray(indices)).astype(np.uint64) + np.uint64(1))


def uniform(seeds: UInt64, count: int, salt: int = 0) -> npt.NDArray[np.float64]:
    """(B, count) numbers in [0, 1), multiples of 2**-53; another ``salt`` gives other numbers."""
    streams = hash64(seeds, salt + 1)[:, None]
    return (hash64(streams, np.arange(1, count + 1)) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@lru_cache(maxsize=2)
def digit_images(split: str) -> tuple[Float32, npt.NDArray[np.int64]]:
    """Handwritten digits of ``split`` ("train" or "test", disjoint): float32 (N, 8, 8) in 0..1 and their classes.

    They are those of Alpaydin and Kaynak's "Optical Recognition of Handwritten Digits" (UCI, 1998; CC BY 4.0) that
    scikit-learn has, in its order. The order here is a fixed permutation. The arrays are shared: read-only.
    """
    with (files(__package__) / DIGITS).open("rb") as file, np.load(file, allow_pickle=False) as kept:
        found, classes = kept["images"], kept["classes"]
    order = np.argsort(hash64(np.uint64(1797), np.arange(1, len(classes) + 1)), kind="stable")
    order = order[:TRAIN_DIGITS] if split == "train" else order[TRAIN_DIGITS:]
    images = (found[order].astype(np.float64) / 16).astype(np.float32)
    labels = classes[order].astype(np.int64)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def upsample(images: Float32, size: int) -> Float32:
    """(N, h, w) to (N, size, size) by quadratic B-splines: smooth, within the input's range, zero outside."""
    for axis in (1, 2):
        n = images.shape[axis]
        position = (np.arange(size) + 0.5) * n / size - 0.5
        nearest = np.rint(position).astype(np.int64)
        t = (position - nearest).astype(np.float32)
        weights = (0.5 * (0.5 - t) ** 2, 0.75 - t * t, 0.5 * (0.5 + t) ** 2)
        pad = [(0, 0)] * 3
        pad[axis] = (2, 2)
        padded = np.pad(images, pad)
        shape = [1, 1, 1]
        shape[axis] = size
        taps = [np.take(padded, nearest + k + 1, axis=axis) * w.reshape(shape) for k, w in enumerate(weights)]
        images = taps[0] + taps[1] + taps[2]
    return images


def base_colour(seeds: UInt64, channels: int = 3) -> Float32:
    """The colour, (B, channels) in 90..165, around which ``texture`` of the same seeds varies."""
    return np.float32(90) + np.float32(75) * uniform(seeds, channels, salt=1).astype(np.float32)


def texture(seeds: npt.ArrayLike, height: int, width: int, channels: int = 3) -> Float32:
    """Smooth coloured noise with light grain, float32 (B, height, width, channels) in 0..255, one per uint64 seed.

    Four octaves of value noise, correlated over the channels as in natural pictures, around a random colour.
    Rounded to 8 bits, a channel's order-0 entropy is about 7 bit: no flat areas that make ratios easy.
    """
    seeds = np.atleast_1d(np.asarray(seeds, dtype=np.uint64))
    out = np.empty((len(seeds), height, width, channels), np.float32)
    step = max(1, _CHUNK_BYTES // max(1, out[:1].nbytes))
    for start in range(0, len(seeds), step):
        _fill(out[start : start + step], seeds[start : start + step])
    return out


# Cells along the shorter side and amplitude of each octave; half the range of 8 bits altogether.
_OCTAVES = ((2, 46.0), (4, 36.0), (9, 25.0), (19, 15.0))
_GRAIN = 5.0
_OWN = 0.35  # how much of a channel's noise is its own; the rest is shared


def _fill(out: Float32, seeds: UInt64) -> None:
    batch, height, width, channels = out.shape
    out[:] = base_colour(seeds, channels)[:, None, None, :]
    for octave, (cells, amplitude) in enumerate(_OCTAVES):
        side = min(height, width)
        rows, columns = -(-cells * height // side) + 2, -(-cells * width // side) + 2
        nodes = uniform(seeds, rows * columns * (channels + 1), salt=2 + octave).astype(np.float32) * 2 - 1
        nodes = nodes.reshape(batch, rows, columns, channels + 1)
        own, shared = nodes[..., :channels], nodes[..., channels:]
        lattice = (own * np.float32(_OWN * 2) + shared * np.float32((1 - _OWN) * 2)) * np.float32(amplitude)
        lattice = _stretch(lattice, 2, width, cells / side)  # columns first: then whole rows are copied
        out += _stretch(lattice, 1, height, cells / side)
    # one hash gives the grain of eight values
    values = height * width * channels
    words = hash64(hash64(seeds, 7)[:, None], np.arange(1, -(-values // 8) + 1)).astype("<u8")
    grain = words.view(np.uint8)[:, :values].reshape(out.shape).astype(np.float32)
    out += (grain - np.float32(127.5)) * np.float32(_GRAIN / 127.5)
    np.clip(out, 0, 255, out=out)


def _stretch(lattice: Float32, axis: int, size: int, cells_per_pixel: float) -> Float32:
    """Interpolate (B, rows, columns, C) along ``axis`` to ``size`` points, smoothly (value noise)."""
    position = (np.arange(size) + 0.5) * cells_per_pixel
    low = position.astype(np.int64)
    t = position - low
    t = (t * t * (3 - 2 * t)).astype(np.float32)
    shape = [1, 1, 1, 1]
    shape[axis] = size
    left = np.take(lattice, low, axis=axis)
    right = np.take(lattice, low + 1, axis=axis)
    right -= left
    right *= t.reshape(shape)
    right += left
    return right
