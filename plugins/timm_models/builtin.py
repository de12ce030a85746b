"""The embedded image ViTs: timm's VisionTransformer with a stem of convolutions within each patch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from semcodec_plugins.timm_models import tokens
from semcodec_plugins.timm_models.backbone import ImageClassifier
from semcodec_plugins.timm_models.spec import EDGE, PATCH, SERVER, SIDE, Size

CONFIG = {
    "input_size": (3, SIDE, SIDE),
    "crop_pct": 1.0,
    "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
}


class PatchStem(nn.Module):
    """Patch embedding of non-overlapping convolutions, so that no patch sees another (hMLP: Touvron et al., 2022).

    stem: channels after the first of the two. Other arguments are what timm's
    VisionTransformer gives its ``embed_layer``.
    """

    patchwise = True

    def __init__(
        self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, *, stem: int, **timm: Any
    ) -> None:
        super().__init__()
        self.patch_size = (patch_size, patch_size)
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        layers: list[nn.Module] = []
        for channels, side in ((stem, patch_size // 2), (embed_dim, 2)):
            layers += [nn.Conv2d(in_chans, channels, side, side, bias=False), nn.BatchNorm2d(channels), nn.GELU()]
            in_chans = channels
        self.proj = nn.Sequential(*layers[:-1])
        self.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, N, D)."""
        tokens: Tensor = self.norm(self.proj(x).flatten(2).transpose(1, 2))
        return tokens


HEAD = 16
"""Width of a head, and the channels that begin as positions: cosine and sine of four frequencies, for rows, columns."""

FREQUENCY = torch.pi / 12 * torch.tensor([1.0, 3.0, 5.0, 7.0])
LOUDNESS, SHARPNESS = 1.5, 1.7
CORNERS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (1, 0))
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1))
OFFSETS = (CORNERS, SIDES, tuple((2 * r, 2 * c) for r, c in CORNERS), tuple((2 * r, 2 * c) for r, c in SIDES))
"""Of the rows and columns that each head begins by looking at, by block, in turn."""


def waves(side: int) -> Tensor:
    """Positions on a square grid: (side ** 2, 16) float32."""
    angle = torch.arange(side)[:, None] * FREQUENCY
    axis = torch.cat([angle.cos(), angle.sin()], 1)
    return torch.cat([axis[:, None].expand(side, side, -1), axis.expand(side, side, -1)], 2).flatten(0, 1)


def shift(offset: tuple[int, int]) -> Tensor:
    """(16, 16): turns the waves of a place into those of the place at ``offset`` rows and columns from it."""
    blocks = []
    for steps in offset:
        cos, sin = torch.diag((FREQUENCY * steps).cos()), torch.diag((FREQUENCY * steps).sin())
        blocks.append(torch.cat([torch.cat([cos, -sin], 1), torch.cat([sin, cos], 1)]))
    turned: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return turned


def begin_as_convolutions(model: VisionTransformer) -> None:
    """Each head first attends to one neighbour of each patch, as a convolution's tap does; it may learn otherwise.

    From random weights attention must find out what is near what, which ten thousand images do not tell.
    """
    dim = model.embed_dim
    assert model.pos_embed is not None
    model.pos_embed.zero_()
    model.pos_embed[0, model.num_prefix_tokens :, :HEAD] = LOUDNESS * waves(model.patch_embed.grid_size[0])
    model.patch_embed.proj[-1].weight[:HEAD] = 0  # the last batch norm's: patches begin in the other channels
    for block, offsets in zip(model.blocks, cycle(OFFSETS), strict=False):
        attention = block.attn
        assert isinstance(attention, Attention)
        query, key, _ = attention.qkv.weight.view(3, attention.num_heads, HEAD, dim)
        query.zero_(), key.zero_()
        for head, offset in zip(range(len(query)), offsets, strict=False):
            query[head, :, :HEAD] = SHARPNESS * shift(offset)
            key[head, :, :HEAD] = SHARPNESS * torch.eye(HEAD)


class ViTNano(ImageClassifier):
    """One of the two embedded ViTs; ``size``: its width, depth and stem."""

    size: Size

    def __init__(self, classes: Sequence[str]) -> None:
        size = self.size
        model = VisionTransformer(
            img_size=SIDE,
            patch_size=PATCH,
            embed_dim=size.dim,
            depth=size.depth,
            num_heads=size.dim // HEAD,
            num_classes=len(classes),
            embed_layer=lambda *args, **kwargs: PatchStem(*args, stem=size.stem, **kwargs),
        )
        with torch.no_grad():
            begin_as_convolutions(model)
        super().__init__(classes, model, CONFIG)

    def read(self, pixels: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Of (B, 3, 96, 96) pixels at places (B, K): logits (B, classes) and those patches' last tokens (B, K, D)."""
        grid = pixels.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
        patches = self.normalised(grid[torch.arange(len(index), device=index.device)[:, None], index])
        x = tokens.transform(self.vit, tokens.embed(self.vit, patches, index))
        return self.vit.forward_head(x), x[:, self.vit.num_prefix_tokens :]


class ViTNanoEdge(ViTNano):
    """The one for the device."""

    size = EDGE


class ViTNanoServer(ViTNano):
    """The one for the server."""

    size = SERVER
