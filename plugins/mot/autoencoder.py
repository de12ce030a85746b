"""The masked autoencoder (MAE: He et al., 2022) as a Recoverer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.coding.patches import whole
from semcodec.interfaces import Features, Partial, Recoverer
from semcodec.specs import FeatureSpec
from semcodec_plugins.mot.spec import grid_of

HEAD = 32
NARROWER = 2 / 3
"""Width of the decoder over that of the encoder, as MAE's 512 over 768; and a quarter of its blocks, at least two."""


class Block(nn.Module):
    """Pre-norm transformer block; (B, N, D) to the same. ``there``: (B, 1, 1, N) bool, False for padding."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = dim // HEAD
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, HEAD)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=there)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def positions(rows: int, columns: int, dim: int) -> Tensor:
    """MAE's fixed positions: sines and cosines of row and column, (rows * columns, dim)."""
    rate = 10_000.0 ** (-torch.arange(dim // 4) / (dim // 4))
    y, x = (torch.arange(n)[:, None] * rate for n in (rows, columns))
    y, x = (torch.cat([one.sin(), one.cos()], 1) for one in (y, x))
    return torch.cat([y[:, None].expand(-1, columns, -1), x.expand(rows, -1, -1)], 2).flatten(0, 1)


def smooth(image: Tensor, present: Tensor) -> Tensor:
    """Zero-filled ``image`` (B, 3, H, W) with its holes filled smoothly; ``present`` (B, 1, H, W) is 0 there.

    Push-pull: means over ever larger squares, and back, interpolated, where a square has nothing.
    """
    total, weight = image * present, present
    levels = [(total, weight)]
    while max(total.shape[-2:]) > 1:
        total, weight = (F.avg_pool2d(t, 2, ceil_mode=True, count_include_pad=False) for t in (total, weight))
        levels.append((total, weight))
    filled = torch.full_like(total, 0.5)
    for total, weight in reversed(levels):
        coarse = F.interpolate(filled, size=total.shape[-2:], mode="bilinear")
        filled = torch.where(weight > 0, total / weight.clamp(min=1e-6), coarse)
    return filled


class MaskedAutoencoder(nn.Module, Recoverer):
    """An encoder sees the patches that are there, a light decoder with mask tokens rebuilds the others.

    What it rebuilds is added to a smooth fill, which each mask token carries of its place, so that it learns what
    interpolation lacks. A patch counts as there when all of it is; received pixels pass unchanged in any case.

    features: {"patches": (K, 3, p, p), "index": (K,), "grid": (h, w)}, or {"image": (3, H, W)} with holes of any form.
    dim, depth: of the encoder.
    """

    places: Tensor
    narrow_places: Tensor

    def __init__(self, features: FeatureSpec, *, dim: int, depth: int) -> None:
        super().__init__()
        rows, columns, side = grid_of(features)
        assert rows is not None and columns is not None and side is not None  # known once models are built
        self.rows, self.columns, self.side = rows, columns, side
        narrow = max(HEAD, round(dim * NARROWER / HEAD) * HEAD)
        values = 3 * self.side**2
        self.embed = nn.Linear(values, dim)
        self.overview = nn.Parameter(torch.zeros(1, 1, dim))  # MAE's class token: something to see where nothing is
        self.encoder = nn.ModuleList(Block(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.bridge = nn.Linear(dim, narrow)
        self.hole = nn.Parameter(torch.zeros(1, 1, narrow))
        self.filled = nn.Linear(values, narrow)
        self.decoder = nn.ModuleList(Block(narrow) for _ in range(max(2, depth // 4)))
        self.decoder_norm = nn.LayerNorm(narrow)
        self.predict = nn.Linear(narrow, values)
        nn.init.zeros_(self.predict.weight)
        nn.init.zeros_(self.predict.bias)
        self.register_buffer("places", positions(self.rows, self.columns, dim), persistent=False)
        self.register_buffer("narrow_places", positions(self.rows, self.columns, narrow), persistent=False)

    def forward(self, image: Tensor, present: Tensor) -> Tensor:
        """Image (B, 3, H, W) and mask (B, 1, H, W), float, to the rebuilt image, right only where it was missing."""
        given = self._cut(image * present)
        complete = self._cut(present).amin(2) > 0
        order = (~complete).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(complete.sum(1).max())]
        there = complete.gather(1, order)
        tokens = self.embed(given.gather(1, order[..., None].expand(-1, -1, given.shape[2])) - 0.5)
        x = torch.cat([self.overview.expand(len(image), -1, -1), tokens + self.places[order]], 1)
        # Samples may keep different numbers: the longest decides, padding is not attended to.
        mask = None if bool(there.all()) else F.pad(there, (1, 0), value=True)[:, None, None]
        for block in self.encoder:
            x = block(x, mask)
        x = self.bridge(self.norm(x))
        fill = smooth(image, present)
        holes = (self.hole + self.filled(self._cut(fill) - 0.5)).to(x.dtype)
        places = order[..., None].expand(-1, -1, x.shape[2])
        seen = torch.where(there[..., None], x[:, 1:], holes.gather(1, places))
        full = holes.scatter(1, places, seen) + self.narrow_places
        x = torch.cat([x[:, :1], full], 1)
        for block in self.decoder:
            x = block(x)
        return fill + self._join(self.predict(self.decoder_norm(x[:, 1:])))

    def _cut(self, image: Tensor) -> Tensor:
        """(B, C, H, W) to (B, N, C * p * p), patches in raster order."""
        tiles = image.reshape(*image.shape[:2], self.rows, self.side, self.columns, self.side)
        return tiles.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def _join(self, patches: Tensor) -> Tensor:
        """The inverse for three channels."""
        tiles = patches.reshape(len(patches), self.rows, self.columns, 3, self.side, self.side)
        return tiles.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)

    def recover(self, partial: Partial) -> Features:
        """{"image": (B, 3, H, W)} in [0, 1]."""
        partial = whole(partial)
        image, present = partial.features["image"], partial.present.get("image")
        if present is None or bool((present > 0).all()):
            return {"image": image}
        rebuilt = self(image, (present > 0).to(image.dtype)).clamp(0, 1)
        return {"image": torch.where(present > 0, image, rebuilt)}
