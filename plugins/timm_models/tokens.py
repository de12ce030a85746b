"""timm's vision transformers on some of an image's patches, and what their class token attends to.

Relied on of timm: the modules ``patch_embed``, ``norm_pre``, ``blocks``, ``norm`` and ``forward_head``, and the private
``_pos_embed``, which puts the prefix tokens (class, distillation, registers) before the patches' and adds positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TypeGuard, TypeVar, cast

import torch
from timm.layers.attention import Attention
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from semcodec.interfaces import Features
from semcodec.specs import EMBED, PREFIX, TOKENS, FeatureSpec, token_cuts
from semcodec.tensors import alike, stack

PADDING = -1  # the index of a patch that is not there
PARTS = ("patches", TOKENS)  # of which a sample has one for each index
EMBEDDING = ("patch_embed.", "cls_token", "reg_token", "pos_embed", "norm_pre.")
"""Beginnings of the names of what makes the tokens that enter the first block."""
Heard = tuple[Tensor, Tensor]
Module = TypeVar("Module", bound=nn.Module)


def takes_patches(model: nn.Module) -> bool:
    """Whether ``model`` embeds square patches each by itself and adds a position to each."""
    if not isinstance(model, VisionTransformer) or model.dynamic_img_size or model.pos_embed is None:
        return False
    embed = _embedding(model)
    apart = type(embed) is PatchEmbed or bool(getattr(embed, "patchwise", False))
    return apart and embed.patch_size[0] == embed.patch_size[1]


def patch_side(model: VisionTransformer) -> int:
    """Pixels a side of the patches of a model that takes them."""
    return int(_embedding(model).patch_size[0])


def _embedding(model: VisionTransformer) -> PatchEmbed:
    """timm's own, or a module with what is used of it here."""
    return cast(PatchEmbed, model.patch_embed)


def has_scores(model: nn.Module) -> TypeGuard[VisionTransformer]:
    """Whether the attention of a class token can be told."""
    return (
        isinstance(model, VisionTransformer)
        and takes_patches(model)
        and model.has_class_token
        and all(isinstance(getattr(block, "attn", None), Attention) for block in model.blocks)
    )


def inner_cuts(model: nn.Module) -> dict[str, FeatureSpec]:
    """Between which of its blocks a vision transformer is cut; none of any other model."""
    if (
        not isinstance(model, VisionTransformer)
        or type(model).forward_features is not VisionTransformer.forward_features
        or not hasattr(model.patch_embed, "grid_size")
    ):
        return {}
    height, width = _embedding(model).grid_size
    return token_cuts(len(model.blocks), (int(height), int(width)), model.embed_dim, model.num_prefix_tokens)


def place(cut: str) -> int:
    """How many blocks are before an inner cut."""
    return 0 if cut == EMBED else int(cut.removeprefix("block"))


def pads(model: VisionTransformer) -> bool:
    """Whether absent patches can be masked: not where the answer is pooled over all tokens."""
    return model.global_pool == "token"


def embed(model: VisionTransformer, patches: Tensor, index: Tensor) -> Tensor:
    """Patches (B, K, 3, p, p), normalised, at places (B, K) in raster order, to tokens (B, prefix + K, D).

    Where the index is ``PADDING`` the token means nothing.
    """
    # Laid side by side they are images of one row, which the convolution of the whole image takes as well.
    row = patches.permute(0, 2, 3, 1, 4).flatten(3)
    x = model.patch_embed.norm(model.patch_embed.proj(row).flatten(2).transpose(1, 2))
    nothing = x.new_zeros(1, model.patch_embed.num_patches, x.shape[-1])
    prefix, places = _positioned(model, nothing).tensor_split([model.num_prefix_tokens], 1)
    return torch.cat([prefix.expand(x.shape[0], -1, -1), x + places[0][index.clamp(min=0)]], 1)


def embed_whole(model: VisionTransformer, image: Tensor) -> Tensor:
    """A whole image (B, 3, H, W), normalised, to tokens (B, prefix + N, D)."""
    return _positioned(model, model.patch_embed(image))


def _positioned(model: VisionTransformer, x: Tensor) -> Tensor:
    return model._pos_embed(x)


def classify(model: VisionTransformer, tokens: Tensor, index: Tensor | None = None) -> Tensor:
    """Tokens with their prefix to logits (B, classes). ``index``: of the patches, whose padding none attends to."""
    return model.forward_head(transform(model, tokens, index))


def transform(model: VisionTransformer, tokens: Tensor, index: Tensor | None = None) -> Tensor:
    """Tokens (B, prefix + K, D) through all blocks and the last norm."""
    normed: Tensor = model.norm(run(model, enter(model, tokens), 0, None, index))
    return normed


def enter(model: VisionTransformer, tokens: Tensor) -> Tensor:
    """Embedded tokens as the first block takes them."""
    normed: Tensor = model.norm_pre(tokens)
    return normed


def run(model: VisionTransformer, x: Tensor, start: int, stop: int | None, index: Tensor | None = None) -> Tensor:
    """Tokens with their prefix, (B, prefix + K, D), through some of the blocks. ``index``: as of ``classify``."""
    options = {}
    if index is not None and not bool((there := index != PADDING).all()):  # without a mask attention is fastest
        options["attn_mask"] = nn.functional.pad(there, (model.num_prefix_tokens, 0), value=True)[:, None, None]
    for block in list(model.blocks)[start:stop]:
        x = block(x, **options)
    return x


def join(features: Features) -> Tensor:
    """Features at an inner cut as the blocks take them: (B, prefix + K, D)."""
    tokens: Tensor = features[TOKENS]
    return torch.cat([features[PREFIX], tokens], 1) if PREFIX in features else tokens


def part(model: VisionTransformer, x: Tensor, index: Tensor | None) -> Features:
    """The inverse of ``join``; ``index``, where there is one, goes along."""
    features = {TOKENS: x[:, model.num_prefix_tokens :]}
    if model.num_prefix_tokens:
        features[PREFIX] = x[:, : model.num_prefix_tokens]
    return features if index is None else {**features, "index": index}


def bucket(samples: Sequence[Features], pad: bool) -> list[tuple[list[int], Features]]:
    """Batches of single samples with an "index"; their padding is at most an eighth, or 8 tokens where that is more.

    A bucket begins with its sample of fewest patches. Without ``pad`` only samples of equal counts go together.
    """
    if not pad:
        return [(rows, stack([samples[i] for i in rows])) for rows in alike(samples)]
    count = [sample["index"].shape[1] for sample in samples]
    buckets: list[list[int]] = []
    for i in sorted(range(len(samples)), key=count.__getitem__):
        fewest = count[buckets[-1][0]] if buckets else -1
        if buckets and count[i] <= max(fewest + 8, fewest * 9 // 8):
            buckets[-1].append(i)
        else:
            buckets.append([i])
    return [(rows, stack([_padded(samples[i], max(1, count[rows[-1]])) for i in rows])) for rows in buckets]


def _padded(sample: Features, length: int) -> Features:
    index = sample["index"]
    more = length - index.shape[1]
    padded = {n: nn.functional.pad(sample[n], (0,) * (2 * sample[n].dim() - 3) + (more,)) for n in sample if n in PARTS}
    return {**sample, **padded, "index": nn.functional.pad(index, (0, more), value=PADDING)}


class _Listener(nn.Module):
    """The layer of queries, keys and values of one attention, which also appends what it gives to ``heard``."""

    def __init__(self, attention: Attention, heard: list[Heard]) -> None:
        super().__init__()
        self.attention, self.heard = attention, heard

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, D) to (B, tokens, 3 D), as the layer itself."""
        out: Tensor = self.attention.qkv(x)
        heads = self.attention.num_heads
        q, k, _ = out.view(*out.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
        self.heard.append((self.attention.q_norm(q), self.attention.k_norm(k)))
        return out


def listening(model: VisionTransformer, blocks: int) -> tuple[VisionTransformer, list[Heard]]:
    """The same model, and a list to which one call of it appends what each of its last ``blocks`` blocks looks by.

    That is the queries and keys, (B, heads, tokens, d) each: fused attention never makes its matrix. What is returned
    shares all weights with ``model``, which stays as it is, so that any number of threads may listen at once.
    """
    heard: list[Heard] = []
    listeners: list[nn.Module] = list(model.blocks)
    for place in range(len(listeners) - blocks, len(listeners)):
        attention = listeners[place].attn
        assert isinstance(attention, Attention)  # see has_scores
        listeners[place] = _with(listeners[place], attn=_with(attention, qkv=_Listener(attention, heard)))
    return _with(model, blocks=nn.Sequential(*listeners)), heard


def _with(module: Module, **children: nn.Module) -> Module:
    """A module that differs in some children alone and shares everything else."""
    other = copy(module)
    other._modules = {**module._modules, **children}
    return other


def attention(q: Tensor, k: Tensor) -> Tensor:
    """Scaled dot-product attention's weights, (B, heads, queries, keys) float32."""
    weights: Tensor = (q * float(q.shape[-1]) ** -0.5) @ k.transpose(-2, -1)
    return weights.float().softmax(-1)


def mean_row(q: Tensor, k: Tensor) -> Tensor:
    """The class token's attention in one block, heads averaged: (B, tokens)."""
    return attention(q[:, :, :1], k).mean(1)[:, 0]


def rollout_row(heard: Sequence[Heard]) -> Tensor:
    """The class token's row of the product over blocks of (A + I) / 2, heads averaged: (B, tokens).

    From the last block on, so that a vector is multiplied and no matrix.
    """
    q, k = heard[-1]
    row = nn.functional.one_hot(torch.zeros(q.shape[0], dtype=torch.int64, device=q.device), q.shape[2]).float()
    for q, k in reversed(heard):
        row = (row + (row[:, None] @ attention(q, k).mean(1))[:, 0]) / 2
    return row
