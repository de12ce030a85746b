"""Five stages of convolutions, and the embedded detector: at every eighth pixel one box with its scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.boxes import Boxes
from semcodec.interfaces import Backbone, Features
from semcodec_plugins.det_nano.loss import detection_loss
from semcodec_plugins.det_nano.spec import SIDE, STAGES

STRIDE = STAGES["neck"].stride
RARE = 0.01
"""The score that every class begins with everywhere (RetinaNet: Lin et al., 2017)."""


def conv(before: int, channels: int, side: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution of ``side`` x ``side``, batch norm and SiLU: maps of ``before`` channels to ``channels``."""
    return nn.Sequential(
        nn.Conv2d(before, channels, side, stride, side // 2, bias=False), nn.BatchNorm2d(channels), nn.SiLU()
    )


class Residual(nn.Module):
    """Two convolutions beside the map itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(conv(channels, channels), conv(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        out: Tensor = x + self.net(x)
        return out


class Neck(nn.Module):
    """The coarse map, enlarged, onto the fine one."""

    def __init__(self, fine: int, coarse: int, channels: int) -> None:
        super().__init__()
        self.coarse = conv(coarse, fine, 1)
        self.net = nn.Sequential(conv(fine, channels), conv(channels, channels))

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Maps (B, fine, H, W) and (B, coarse, H / 2, W / 2) to (B, channels, H, W)."""
        out: Tensor = self.net(fine + F.interpolate(self.coarse(coarse), scale_factor=2.0))
        return out


class Head(nn.Module):
    """A map (B, C, H, W) to boxes (B, H * W, 4), cx, cy, w, h in pixels, and class logits (B, H * W, classes)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.box = nn.Sequential(conv(channels, channels), nn.Conv2d(channels, 4, 1))
        self.score = nn.Sequential(conv(channels, channels), nn.Conv2d(channels, classes, 1))
        last = self.score[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.constant_(last.bias, math.log(RARE / (1 - RARE)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and logits, float32; see the class."""
        t = self.box(x).float().flatten(2).transpose(1, 2)
        middle = places(x.shape[2], x.shape[3], x.device) + t[..., :2] * STRIDE
        size = t[..., 2:].clamp(-4, 4).exp() * 4 * STRIDE
        return torch.cat((middle, size), -1), self.score(x).float().flatten(2).transpose(1, 2)


def places(rows: int, columns: int, device: torch.device) -> Tensor:
    """Centres x, y of the cells in pixels, row by row: (rows * columns, 2) float32."""
    y, x = (torch.arange(count, device=device) + 0.5 for count in (rows, columns))
    return STRIDE * torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)


def stage(name: str) -> nn.Module:
    """One of the stages of ``spec.STAGES``, which reads the maps that are named there."""
    channels = STAGES[name].channels
    if name == "stem":
        return conv(3, channels, stride=2)
    first, *more = (STAGES[read].channels for read in STAGES[name].reads)
    if more:
        return Neck(first, more[0], channels)
    return nn.Sequential(conv(first, channels, stride=2), Residual(channels))


class Staged(nn.Module, Backbone):
    """The stages, and behind the last one what answers: every other module of a class that is made from this one.

    classes: names of the classes. stages: which there are, from the first on. Input: {"image": (B, 3, 96, 96)} float32
    in [0, 1].
    """

    def __init__(self, classes: Sequence[str], stages: Sequence[str] = tuple(STAGES)) -> None:
        super().__init__()
        self.classes = list(classes)
        self.stages = nn.ModuleDict({name: stage(name) for name in stages})

    def head(self, x: Features, cut: str) -> Features:
        """To the maps that cross the cut; cuts are named by the stage before them."""
        return self.advance(x, "input", cut)

    def head_state(self, cut: str) -> Sequence[str]:
        """The stages before the cut."""
        return [f"stages.{name}." for name in self._between("input", cut)]

    def tail_state(self, cut: str) -> Sequence[str]:
        """The stages after the cut, and what answers."""
        answers = [name for name, _ in self.named_children() if name != "stages"]
        return [*(f"stages.{name}." for name in self._between(cut, list(self.stages)[-1])), *(f"{a}." for a in answers)]

    def advance(self, features: Features, cut: str, to: str) -> Features:
        """From the maps that cross the cut to those that cross a later one."""
        maps = dict(features)
        for name in self._between(cut, to):
            given = [maps[read] for read in STAGES[name].reads]
            maps[name] = self.stages[name](*(2 * given[0] - 1,) if name == "stem" else given)
            maps = {crossing: maps[crossing] for crossing in STAGES[name].crosses}
        return maps

    def last(self, features: Features, cut: str) -> Tensor:
        """The map of the last stage, from those that cross a cut."""
        name = list(self.stages)[-1]
        return self.advance(features, cut, name)[name]

    def _between(self, cut: str, to: str) -> list[str]:
        names = ["input", *self.stages]
        return names[names.index(cut) + 1 : names.index(to) + 1]


class DetNano(Staged):
    """The detector, cut at any stage: see ``Staged``."""

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self.detect = Head(STAGES["neck"].channels, len(classes))

    def tail(self, features: Features, cut: str) -> Tensor:
        """To (B, 144, 4 + classes) float32: boxes cx, cy, w, h in pixels, then scores in [0, 1]."""
        boxes, scores = self._found(features, cut)
        return torch.cat((boxes, scores.sigmoid()), -1)

    def task_loss(self, features: Features, cut: str, labels: Sequence[Boxes]) -> tuple[Tensor, dict[str, float]]:
        """From what crosses the cut; figures are "score", "box" and "iou"."""
        boxes, scores = self._found(features, cut)
        return detection_loss(boxes, scores, places(SIDE // STRIDE, SIDE // STRIDE, boxes.device), STRIDE, labels)

    def _found(self, features: Features, cut: str) -> tuple[Tensor, Tensor]:
        boxes, scores = self.detect(self.last(features, cut))
        return boxes, scores
