"""Models whose every place of y is coded under what its neighbours above and to the left are: place after place.

mbt2018 and its kin. Tables depend on symbols before them, so no stage can be given a list: a range coder is fed here,
as a blob. It is memory-safe, whatever bytes it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.errors import CorruptStream
from semcodec_plugins.entropy.arithmetic import only_corrupt

Int32 = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
Symbols = Callable[[Tensor, Bytes], Int32]

REACH = 1 << 15
"""Symbols beyond are clamped, which the places after them take into account."""
KERNEL = 5
_HALF = KERNEL // 2
_MODEL = constriction.stream.model.QuantizedGaussian(-REACH, REACH)


def most_bytes(count: int) -> int:
    """Of so many symbols: the coder's probabilities have 24 bits."""
    return 3 * count + 64


@torch.no_grad()
def compress(net: Any, y: Tensor, z: Tensor) -> tuple[Int32, Bytes]:
    """Symbols of y (1, M, h, w) and their indexes of scales, (h * w * M,) each, in the order in which they are coded.

    z: what the decoder has of z.
    """

    def symbols(means: Tensor, index: Bytes) -> Int32:
        nonlocal at
        row, column = divmod(at, y.shape[3])
        at += 1
        away = y[0, :, row, column] - means
        return torch.round(away).clamp(-REACH, REACH).to(torch.int32).numpy()

    at = 0
    return _walk(net, z, symbols)[1:]


@torch.no_grad()
def decompress(net: Any, z: Tensor, data: bytes) -> tuple[Tensor, Int32, Bytes]:
    """y as the decoder has it, (1, M, h, w), its symbols and indexes. Raises CorruptStream."""
    if len(data) % 4:
        raise CorruptStream("coded symbols are no whole words; the stream is damaged, get it again")
    scales = net.gaussian_conditional.scale_table.double().numpy()
    with only_corrupt():
        coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))
        found = _walk(net, z, lambda means, index: coder.decode(_MODEL, np.zeros(len(index)), scales[index]))
        if not coder.maybe_exhausted():
            raise CorruptStream("coded symbols are followed by more")
    return found


def replay(net: Any, z: Tensor, symbols: Int32) -> Tensor:
    """y as the decoder has it of symbols that are there."""
    rows = iter(symbols.reshape(-1, net.M))
    with torch.no_grad():
        return _walk(net, z, lambda means, index: next(rows))[0]


def coded(net: Any, symbols: Int32, index: Bytes) -> bytes:
    scales = net.gaussian_conditional.scale_table.double().numpy()
    coder = constriction.stream.queue.RangeEncoder()
    coder.encode(symbols, _MODEL, np.zeros(len(index)), scales[index])
    return coder.get_compressed().astype("<u4").tobytes()


def _walk(net: Any, z: Tensor, symbols: Symbols) -> tuple[Tensor, Int32, Bytes]:
    """Goes over the places; ``symbols`` gives those of a place from its means and indexes."""
    params = net.h_s(z)
    height, width = params.shape[-2:]
    weight = net.context_prediction.weight * net.context_prediction.mask
    y = F.pad(torch.zeros(1, net.M, height, width), (_HALF,) * 4)
    taken, indexes = [], []
    for row in range(height):
        for column in range(width):
            around = y[:, :, row : row + KERNEL, column : column + KERNEL]
            context = F.conv2d(around, weight, net.context_prediction.bias)
            place = params[:, :, row : row + 1, column : column + 1]
            scales, means = net.entropy_parameters(torch.cat((place, context), 1)).flatten().chunk(2)
            index = net.gaussian_conditional.build_indexes(scales).numpy().astype(np.uint8)
            found = symbols(means, index)
            y[0, :, row + _HALF, column + _HALF] = torch.from_numpy(found) + means
            taken.append(found)
            indexes.append(index)
    inner = y[:, :, _HALF:-_HALF, _HALF:-_HALF]
    return inner, np.concatenate(taken).astype(np.int32), np.concatenate(indexes)
