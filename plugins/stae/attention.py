"""STAE's spatial attention: equation (7). Frame attention, equation (6), is ``semcodec.training.frame_attention``."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
