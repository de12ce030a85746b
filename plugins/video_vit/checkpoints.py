"""Weights of other libraries in the form of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.errors import WeightsError

VIDEOMAE = {
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}


def from_videomae(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A Hugging Face ``VideoMAEForVideoClassification``. Keys have no bias; checkpoints name the biases of queries
    and values ``q_bias``, ``v_bias`` or ``query.bias``, ``value.bias``. What VideoMAE has not, positions of an image
    ViT, gets the values that leave it out. Raises WeightsError for anything else."""
    patch = "videomae.embeddings.patch_embeddings.projection"
    if f"{patch}.weight" not in tensors:
        if "patch_embed.proj.weight" in tensors:
            raise WeightsError(
                "these are weights of an image ViT, which no video was recognised with: "
                "start training from them, semcodec train ... --init PATH"
            )
        raise WeightsError("these weights are neither semcodec's nor a Hugging Face VideoMAE classifier's")
    if "fc_norm.weight" not in tensors:
        raise WeightsError("this VideoMAE checkpoint has no mean pooling or no classifier: use a fine-tuned one")
    absent = {"embed.place": torch.zeros, "embed.loudness": torch.ones}
    try:
        return _converted(tensors, patch) | {
            name: make(own[name].shape) for name, make in absent.items() if name in own
        }
    except KeyError as error:
        raise WeightsError(f"this VideoMAE checkpoint lacks {error.args[0]}: it was not saved whole") from None


def _converted(tensors: Mapping[str, Tensor], patch: str) -> dict[str, Tensor]:
    out = {f"embed.proj.{part}": tensors[f"{patch}.{part}"] for part in ("weight", "bias")}
    layers = "videomae.encoder.layer."
    numbers = {int(name.removeprefix(layers).split(".")[0]) for name in tensors if name.startswith(layers)}
    for i in sorted(numbers):
        attention = f"{layers}{i}.attention.attention."
        weight = [tensors[f"{attention}{name}.weight"] for name in ("query", "key", "value")]
        zero = torch.zeros(len(weight[0]))
        query, value = (
            tensors.get(f"{attention}{long}.bias", tensors.get(f"{attention}{short}_bias", zero))
            for long, short in (("query", "q"), ("value", "v"))
        )
        out[f"blocks.{i}.attn.qkv.weight"] = torch.cat(weight)
        out[f"blocks.{i}.attn.qkv.bias"] = torch.cat([query, zero, value])
        for theirs, ours in VIDEOMAE.items():
            for part in ("weight", "bias"):
                out[f"blocks.{i}.{ours}.{part}"] = tensors[f"{layers}{i}.{theirs}.{part}"]
    for part in ("weight", "bias"):
        out[f"norm.{part}"] = tensors[f"fc_norm.{part}"]
        out[f"classifier.{part}"] = tensors[f"classifier.{part}"]
    return out


def from_image_vit(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A timm image ViT such as DeiT, to start training from: its patch embedding inflated over the tubelet.

    Each of a tubelet's frames gets an equal share of the kernel, so a still clip embeds as its picture does
    (Carreira and Zisserman, 2017). Its learned positions, resized to the grid here, say where a token is, as its
    blocks expect; the sinusoids, several times as large, would drown them and begin at a tenth. The class token
    has no place here; the classifier stays as it is in ``own``. Raises WeightsError where sizes differ.
    """
    for name in ("patch_embed.proj.weight", "patch_embed.proj.bias", "pos_embed"):
        if name not in tensors:
            raise WeightsError(f"these are no weights of a timm image ViT: {name} is missing")
    kernel = tensors["patch_embed.proj.weight"]
    target = own.get("embed.proj.weight")
    if target is None:
        raise WeightsError("this backbone has a convolutional stem, which no image ViT has; take vit-tiny or larger")
    if kernel.shape != (len(target), 3, *target.shape[3:]):
        raise WeightsError(f"the image ViT embeds by {tuple(kernel.shape)}, no slice of {tuple(target.shape)}")
    tubelet = target.shape[2]
    kept = {name: value for name, value in tensors.items() if name.startswith(("blocks.", "norm."))}
    return {
        **kept,
        "embed.proj.weight": kernel[:, :, None].expand(-1, -1, tubelet, -1, -1) / tubelet,
        "embed.proj.bias": tensors["patch_embed.proj.bias"],
        "embed.place": _resized(tensors["pos_embed"], len(own["embed.place"])),
        "embed.loudness": torch.tensor(0.1),
        **{name: value for name, value in own.items() if name.startswith("classifier.")},
    }


def _resized(positions: Tensor, places: int) -> Tensor:
    """Learned positions (1, prefix + grid ** 2, dim) to those of a square grid of ``places``, (places, dim)."""
    grid, side = math.isqrt(positions.shape[1]), math.isqrt(places)  # prefix tokens are fewer than a row
    square = positions[0, positions.shape[1] - grid**2 :].T.reshape(1, -1, grid, grid)
    square = F.interpolate(square, (side, side), mode="bicubic", antialias=True)
    return square[0].flatten(1).T.contiguous()
