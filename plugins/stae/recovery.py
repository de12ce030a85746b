"""STAE's feature recovery (Section III-B, Fig. 3) and the Recoverer that does nothing."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.interfaces import Features, Partial, Recoverer
from semcodec.specs import FeatureSpec


class Conv3d(nn.Conv3d):
    """The same for one clip as for several.

    Of a single clip torch takes its own implementation on CPUs, ten times slower than oneDNN, which it asks for more.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, k, H, W) to (B, C', k, H', W')."""
        alone = len(x) == 1 and x.device.type == "cpu" and x.dtype == torch.float32
        if not alone or torch.is_grad_enabled() or not torch._C._has_mkldnn or not torch.backends.mkldnn.enabled:
            return super().forward(x)
        assert not isinstance(self.padding, str)
        return torch.mkldnn_convolution(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )


def _conv3d(inside: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(Conv3d(inside, out, 3, (1, stride, stride), 1), nn.ReLU())


def _conv2d(inside: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, out, 3, stride, 1), nn.ReLU())


class TemporalNet(nn.Module):
    """The 3D CNN: incomplete frames and mask at half resolution to complete ones, X'_{M,3D}.

    Strides of two and U-Net skips in space; time keeps its length, so that any number of frames goes through.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down0 = _conv3d(4, width)
        self.down1 = _conv3d(width, 2 * width, 2)
        self.down2 = _conv3d(2 * width, 2 * width, 2)
        self.up1 = _conv3d(4 * width, 2 * width)
        self.up0 = _conv3d(3 * width, width)
        self.out = Conv3d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4, k, H/2, W/2) to (B, 3, k, H/2, W/2)."""
        fine = self.down0(x)
        middle = self.down1(fine)
        coarse = self.down2(middle)
        middle = self.up1(torch.cat([F.interpolate(coarse, size=middle.shape[2:]), middle], 1))
        out: Tensor = self.out(self.up0(torch.cat([F.interpolate(middle, size=fine.shape[2:]), fine], 1)))
        return out


class CNN3D2D(nn.Module, Recoverer):
    """Two networks (Wang et al., AAAI 2019, as STAE adapts it): the 3D CNN infers structure over time at half
    resolution; the 3D-2D CNN completes each frame at full resolution and adds two feature maps of the 3D
    CNN's output to its first and last layers of that size.

    Received pixels pass unchanged; frames without a mask are not touched.
    """

    def __init__(self, features: FeatureSpec, *, width: int = 8, **params: Any) -> None:
        super().__init__()
        half = 3 * width  # channels at half resolution
        self.temporal = TemporalNet(width)
        self.guide_first = nn.Conv2d(3, half, 3, padding=1)
        self.guide_last = nn.Conv2d(3, half, 3, padding=1)
        self.enter = _conv2d(4, width)
        self.first = _conv2d(width, half, 2)
        self.middle = nn.Sequential(_conv2d(half, half, 2), _conv2d(half, half))
        self.last = _conv2d(2 * half, half)
        self.leave = nn.Sequential(_conv2d(half + width, width), nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Zero-filled frames (B, k, 3, H, W) and mask (B, k, 1, H, W), float, to complete frames X'_R."""
        batch, kept = frames.shape[:2]
        # Channels last: several times faster on CPUs.
        x = torch.cat([frames, mask], 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        half = F.avg_pool2d(x, 2)
        half = half.reshape(batch, kept, *half.shape[1:]).transpose(1, 2)
        half = half.contiguous(memory_format=torch.channels_last_3d)
        # In float32 always: on CPUs, bfloat16 gradients of strided 3D convolutions of two frames are not finite.
        with torch.autocast(half.device.type, enabled=False):
            guide = self.temporal(half.float()).transpose(1, 2).flatten(0, 1)
        fine = self.enter(x)
        first = self.first(fine) + self.guide_first(guide)
        coarse = F.interpolate(self.middle(first), size=first.shape[2:])
        last = self.last(torch.cat([coarse, first], 1)) + self.guide_last(guide)
        out: Tensor = self.leave(torch.cat([F.interpolate(last, size=fine.shape[2:]), fine], 1))
        return frames + (1 - mask) * out.reshape(frames.shape)

    def recover(self, partial: Partial) -> Features:
        mask = partial.present.get("frames")
        if mask is None:
            return partial.features
        frames = self(partial.features["frames"], mask).clamp(0, 1)
        return {**partial.features, "frames": frames}


class Identity(Recoverer):
    """What is missing stays zero."""

    def __init__(self, features: FeatureSpec, **params: Any) -> None:
        pass

    def recover(self, partial: Partial) -> Features:
        return partial.features
