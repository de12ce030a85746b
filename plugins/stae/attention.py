"""STAE's two attention modules: equations (6) and (7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FrameAttention(nn.Module):
    """Importance of each frame, equation (6):

    M_FA = sigmoid(MLP(AvgPool(X)) + MLP(MaxPool(X))), pooled over all but the frame axis.

    The paper leaves the MLP's width open; it is the number of frames.
    """

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(frames, frames), nn.ReLU(), nn.Linear(frames, frames))

    def forward(self, x: Tensor) -> Tensor:
        """Frames (B, F, C, H, W) to M_FA (B, F) in (0, 1)."""
        flat = x.flatten(2)
        return torch.sigmoid(self.mlp(flat.mean(2)) + self.mlp(flat.amax(2)))


class SpatialAttention(nn.Module):
    """Importance of each pixel within its frame, equation (7):

    M_SA = sigmoid(Conv3x3[AvgPool(X); MaxPool(X)]), pooled over channels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Kept frames (B, k, C, H, W) to M_SA (B, k, H, W) in (0, 1)."""
        pooled = torch.stack([x.mean(2), x.amax(2)], 2)
        return torch.sigmoid(self.conv(pooled.flatten(0, 1))).view(pooled[:, :, 0].shape)


def straight_through(values: Tensor, mean: Tensor, scores: Tensor) -> Tensor:
    """``values`` unchanged, with a gradient to the attention M that chose them.

    A value's difference to the mean of what is kept is multiplied by M / stop_grad(M), so that M grows where more
    contrast lowers the loss. Scaling the value itself would only ask what brighter or darker does.
    """
    mean = mean.detach()
    return mean + (values - mean) * (scores / scores.detach())
