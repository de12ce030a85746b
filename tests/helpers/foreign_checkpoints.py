"""Checkpoints of other libraries, small and random: no tests."""

from __future__ import annotations

import torch
from torch import nn

SIDE = 32
NAMES = ["jump", "run", "sit", "walk", "wave"]


def shake(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, biases and norms that are far from their initial values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim > 1:
                p.copy_(noise * (2 / p[0].numel()) ** 0.5)
            else:
                p.copy_(noise * 0.3 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return module.eval()


def hugging_face(folder, **config):
    """A classifier of vit-tiny's size with random weights, as ``save_pretrained`` leaves it."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    names = dict(enumerate(NAMES))
    config = VideoMAEConfig(
        image_size=SIDE, num_frames=16, tubelet_size=2, hidden_size=192, num_hidden_layers=12, num_attention_heads=3,
        intermediate_size=768, id2label=names, label2id={name: i for i, name in names.items()}, **config,
    )  # fmt: skip
    model = shake(VideoMAEForVideoClassification(config))
    model.save_pretrained(folder)
    return model


def image_vit(dim: int = 192, depth: int = 12, patch: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    """The state of a timm ViT such as DeiT: names as timm gives them."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "cls_token": (1, 1, dim), "pos_embed": (1, 197, dim), "norm.weight": (dim,), "norm.bias": (dim,),
        "patch_embed.proj.weight": (dim, 3, patch, patch), "patch_embed.proj.bias": (dim,),
        "head.weight": (1000, dim), "head.bias": (1000,),
    }  # fmt: skip
    for i in range(depth):
        for name, out, inside in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)):
            shapes |= {f"blocks.{i}.{name}.weight": (out * dim, inside * dim), f"blocks.{i}.{name}.bias": (out * dim,)}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.weight": (dim,), f"blocks.{i}.{name}.bias": (dim,)}
    return {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}
