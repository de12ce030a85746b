"""Blocks of each channel, their DCT, a quantiser with a dead zone, and for each band of each channel the best prior."""

import math

import numpy as np
import torch
from semcodec.errors import CorruptStream, DataError
from semcodec.interfaces import Encoder, Latent, Partial
from semcodec.priors import Counted, Indexed

from semcodec_dct import blocks
from semcodec_dct.tables import RATIOS, REACH, costs, tables

ROUNDING = 1 / 3
"""What is added before the integer part is taken: below a half, so that small coefficients become zero."""
LARGEST = 1e30
"""Root mean square of maps that are taken, so that whatever is read is finite."""


class Dct(Encoder):
    """Maps (C, H, W) by a block transform. NaN and infinity are refused.

    Sent of each tensor: its root mean square as float32, a prior for each channel and band, the coefficients.
    """

    def __init__(self, features, block):
        self.features, self.side = features, block
        self.basis = basis(block)
        place = np.add.outer(np.arange(block), np.arange(block))
        self.band = np.array([0, 1, 2, 3, 3, 4, 4] + [5] * (2 * block))[place]  # (block, block) by u + v
        self.bands = int(self.band.max()) + 1

    def encode(self, features, analysis, masks, params):
        """One sample after another, so that its bytes do not depend on those beside it."""
        arrays = {name: tensor.cpu().numpy().astype(np.float64) for name, tensor in features.items()}
        batch = len(next(iter(arrays.values())))
        return [self.quantised({n: a[row] for n, a in arrays.items()}, params["step"]) for row in range(batch)]

    def quantised(self, maps, step):
        latent = Latent({}, {"step": step})
        for name, x in maps.items():
            size = math.sqrt(np.square(x).mean()) if np.isfinite(x).all() else math.inf
            if not size < LARGEST:
                raise DataError(f"{name} holds NaN, infinity or values too large to send")
            scale = np.float32(size)
            _, down, side, across, _ = shape = blocks(x.shape, self.side)
            padded = np.pad(x, [(0, 0), (0, down * side - x.shape[1]), (0, across * side - x.shape[2])], "edge")
            y = np.einsum("cbidj,ui,vj->cbudv", padded.reshape(shape), self.basis, self.basis)
            y /= float(scale) * step or 1.0
            q = np.copysign(np.floor(np.abs(y) + ROUNDING), y).astype(np.int32)
            latent.symbols[name] = q
            latent.side[name] = (scale, self.choice(q))
        return latent

    def choice(self, q):
        """For each channel and band the table that codes it in the fewest bits, uint8 (C, bands)."""
        level = np.minimum(np.abs(q), REACH + 1)
        channel = np.arange(len(q))[:, None, None, None, None]
        cell = (channel * self.bands + self.band[:, None, :]) * (REACH + 2) + level
        counts = np.bincount(cell.ravel(), minlength=len(q) * self.bands * (REACH + 2))
        return (counts.reshape(len(q), self.bands, -1) @ costs().T).argmin(-1).astype(np.uint8)

    def write(self, latent, sink):
        scales = np.array([latent.side[name][0] for name in self.features], "<f4")
        sink.blob("scales", scales.tobytes(), side=True)
        for name in self.features:
            q, chosen = latent.symbols[name], latent.side[name][1]
            sink.symbols(f"{name} priors", chosen.ravel().astype(np.int32), Counted(), side=True)
            sink.symbols(name, q.ravel(), Indexed(tables(), self.index(q.shape, chosen)))

    def index(self, shape, chosen):
        """Which table is for which coefficient, as long as these are: its channel's for its band."""
        return np.broadcast_to(chosen[:, self.band][:, None, :, None, :], shape).ravel()

    def read(self, source):
        """The inverse of ``write``. What restoring could not bear, or nobody can have written, is refused."""
        data = source.blob("scales", 4 * len(self.features))
        if len(data) != 4 * len(self.features):
            raise CorruptStream("scales: not one for each tensor")
        scales = np.frombuffer(data, "<f4")
        if not ((scales >= 0) & (scales <= LARGEST)).all():
            raise CorruptStream("scales: not what maps can have")
        latent = Latent({}, {"step": source.params["step"]})
        for (name, spec), scale in zip(self.features.items(), scales, strict=True):
            shape = blocks(spec.shape, self.side)
            chosen = source.symbols(f"{name} priors", shape[0] * self.bands, Counted())
            if chosen.min() < 0 or chosen.max() >= len(RATIOS):
                raise CorruptStream(f"{name}: there is no such prior")
            chosen = chosen.astype(np.uint8).reshape(shape[0], self.bands)
            q = source.symbols(name, math.prod(shape), Indexed(tables(), self.index(shape, chosen)))
            most = self.side * math.sqrt(spec.size) / source.params["step"] + 2  # all of a tensor's energy in one
            if np.abs(q.astype(np.int64)).max() > most:
                raise CorruptStream(f"{name}: a coefficient is larger than any can be")
            latent.symbols[name], latent.side[name] = q.reshape(shape), (scale, chosen)
        return latent

    def restore(self, latent):
        features = {}
        for name, spec in self.features.items():
            q, (scale, _) = latent.symbols[name], latent.side[name]
            x = np.einsum("cbudv,ui,vj->cbidj", q * (float(scale) * latent.side["step"]), self.basis, self.basis)
            channels, height, width = spec.shape
            x = x.reshape(channels, x.shape[1] * self.side, -1)[:, :height, :width]
            features[name] = torch.from_numpy(x.astype(np.float32))[None]
        return Partial(features)


def basis(side):
    """Rows of the orthonormal DCT-II, float64 (side, side)."""
    frequency, place = np.mgrid[:side, :side]
    rows = np.cos(np.pi * frequency * (2 * place + 1) / (2 * side))
    return rows / np.sqrt(np.square(rows).sum(1, keepdims=True))
