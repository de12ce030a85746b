"""Models whose every place of y is coded under what its neighbours above and to the left are: place after place.

mbt2018 and its kin. Tables depend on symbols before them, so no stage can be given a list: a range coder is fed here,
as a blob (``coding``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.interfaces import Int32
from semcodec.tensors import as_array, beside
from semcodec_plugins.learned.coding import RASTER_REACH, Bytes, RasterDecoder

Symbols = Callable[[Tensor, Bytes], Int32]

KERNEL = 5
_HALF = KERNEL // 2


@torch.no_grad()
def compress(net: Any, y: Tensor, z: Tensor) -> tuple[Int32, Bytes]:
    """Symbols of y (1, M, h, w) and their indexes of scales, (h * w * M,) each, in the order in which they are coded.

    z: what the decoder has of z.
    """

    places = iter(y[0].permute(1, 2, 0).flatten(0, 1))

    def symbols(means: Tensor, index: Bytes) -> Int32:
        away: Int32 = as_array(torch.round(next(places) - means).clamp(-RASTER_REACH, RASTER_REACH).to(torch.int32))
        return away

    return _walk(net, z, symbols)[1:]


@torch.no_grad()
def decompress(net: Any, z: Tensor, data: bytes) -> tuple[Tensor, Int32, Bytes]:
    """y as the decoder has it, (1, M, h, w), its symbols and indexes. Raises CorruptStream."""
    decoder = RasterDecoder(data)
    found = _walk(net, z, lambda means, index: decoder.decode(index))
    decoder.finish()
    return found


def replay(net: Any, z: Tensor, symbols: Int32) -> Tensor:
    """y as the decoder has it, (1, M, h, w), of symbols that are there."""
    rows = iter(symbols.reshape(-1, net.M))
    with torch.no_grad():
        return _walk(net, z, lambda means, index: next(rows))[0]


def _walk(net: Any, z: Tensor, symbols: Symbols) -> tuple[Tensor, Int32, Bytes]:
    """Goes over the places; ``symbols`` gives those of a place from its means and indexes."""
    params = net.h_s(z)
    height, width = params.shape[-2:]
    weight = net.context_prediction.weight * net.context_prediction.mask
    y = F.pad(params.new_zeros(1, net.M, height, width), (_HALF,) * 4)
    taken, indexes = [], []
    for row in range(height):
        for column in range(width):
            around = y[:, :, row : row + KERNEL, column : column + KERNEL]
            context = F.conv2d(around, weight, net.context_prediction.bias)
            place = params[:, :, row : row + 1, column : column + 1]
            scales, means = net.entropy_parameters(torch.cat((place, context), 1)).flatten().chunk(2)
            index = as_array(net.gaussian_conditional.build_indexes(scales)).astype(np.uint8)
            found = symbols(means, index)
            y[0, :, row + _HALF, column + _HALF] = beside(found, means) + means
            taken.append(found)
            indexes.append(index)
    inner = y[:, :, _HALF:-_HALF, _HALF:-_HALF]
    return inner, np.concatenate(taken).astype(np.int32), np.concatenate(indexes)
