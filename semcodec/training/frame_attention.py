"""Attention that says which frames of a clip to keep, and how it learns through the frames that were kept.

After STAE (Li, Bennis, Iosifidis, Zhang, 2023), for any Encoder of clips. ``semcodec.training.frame_steps`` trains it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FrameAttention(nn.Module):
    """Importance of each frame, equation (6):

    M_FA = sigmoid(MLP(AvgPool(X)) + MLP(MaxPool(X))), pooled over all but the frame axis.

    The paper leaves the MLP open; its width here is four times the number of frames, and what it is given is
    standardised over the frames of the clip: which frames stand out, not how bright the clip is. Without that it
    learns the same frames for every clip.
    """

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(frames, 4 * frames), nn.ReLU(), nn.Linear(4 * frames, frames))

    def forward(self, x: Tensor) -> Tensor:
        """Frames (B, F, C, H, W) to M_FA (B, F) in (0, 1)."""
        flat = x.flatten(2)
        return torch.sigmoid(self.mlp(_standardise(flat.mean(2))) + self.mlp(_standardise(flat.amax(2))))


def _standardise(pooled: Tensor) -> Tensor:
    spread = pooled.std(1, correction=0, keepdim=True)
    return (pooled - pooled.mean(1, keepdim=True)) / (spread + 1 / 255)


def weigh(values: Tensor, reference: Tensor, mask: Tensor, scores: Tensor) -> Tensor:
    """``values`` where ``mask`` is 1 and ``reference`` where it is 0, with a gradient to the attention M that chose.

    The hard mask is straight-through: mask + M - stop_grad(M). Kept values are so multiplied by M / stop_grad(M), up
    to a factor, and dropped ones say what they would have brought. Without these last, spatial attention learns to
    keep what matters least: measured in the README of ``stae``.
    """
    return reference + (values - reference) * (mask + scores - scores.detach())


def numbers_of(mask: Tensor) -> Tensor:
    """The numbers (B, k), in order, of the frames that mask (B, F) keeps, k of each sample."""
    return (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(mask[0].sum())]


def keep_frames(frames: Tensor, mask: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The kept frames (B, k, C, H, W) of a batch that keeps equally many, weighed by M_FA, and their numbers (B, k).

    frames: (B, F, C, H, W). mask: bool (B, F). scores: M_FA (B, F), by which they were chosen.
    """
    index = numbers_of(mask)
    weight = scores.gather(1, index)[..., None, None, None]
    frames = frames.gather(1, index[:, :, None, None, None].expand(-1, -1, *frames.shape[2:]))
    return weigh(frames, frames.mean(1, keepdim=True).detach(), torch.ones_like(weight), weight), index
