"""The models of the stand-in backbones: fixed sums, the same in every process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.interfaces import Backbone
from semcodec.testing.stand_ins import CHANNELS, PATCH, POOL, patches
from semcodec.types import Features


def _mix(rows: int, columns: int, like: Tensor) -> Tensor:
    """A fixed matrix of mixed signs, on the device of a tensor."""
    return torch.cos(torch.arange(rows * columns, dtype=torch.float32)).view(rows, columns).to(like.device)


class Clips(Backbone):
    """Sums of the frames of a clip."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)

    def head(self, x: Features, cut: str) -> Features:
        """All frames with their numbers, "index"."""
        frames = x["frames"]
        return {"frames": frames, "index": torch.arange(frames.shape[1], device=frames.device).expand(len(frames), -1)}

    def tail(self, features: Features, cut: str) -> Tensor:
        """Any number of frames; when they were counts too."""
        colours = features["frames"].mean((3, 4))
        when = torch.cos(features["index"].float())[..., None]
        return (colours * (1 + when)).mean(1) @ _mix(3, len(self.classes), colours)


class Images(Backbone):
    """Sums of pooled maps of an image, at the input and at three cuts after it."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)

    def head(self, x: Features, cut: str) -> Features:
        """The image, maps, a pyramid of maps, or tokens."""
        if cut == "input":
            return x
        maps = torch.einsum("bchw,cd->bdhw", F.avg_pool2d(x["image"], POOL), _mix(3, CHANNELS, x["image"]))
        if cut == "tokens":
            return {"tokens": maps.flatten(2).transpose(1, 2)}
        return {"maps": maps} if cut == "maps" else {"fine": maps, "coarse": F.avg_pool2d(maps, 2)}

    def tail(self, features: Features, cut: str) -> Tensor:
        """Sums of what the head gives at the cut."""
        if cut == "input":
            return self.tail(self.head(features, "maps"), "maps")
        if cut == "tokens":
            pooled = features["tokens"].mean(1)
        elif cut == "maps":
            pooled = features["maps"].mean((2, 3))
        else:
            pooled = (features["fine"].mean((2, 3)) + features["coarse"].mean((2, 3))) / 2
        return pooled @ _mix(CHANNELS, len(self.classes), pooled)


class Patches(Backbone):
    """Attends to bright patches; where each lies counts too."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.spec = patches({})

    def head(self, x: Features, cut: str) -> Features:
        """The image as it is."""
        return x

    def tail(self, features: Features, cut: str) -> Tensor:
        """Any number of patches of any side, or the whole image."""
        if "patches" in features:
            colours, index = features["patches"].mean((3, 4)), features["index"]
        else:
            colours = self._colours(features["image"])
            index = torch.arange(colours.shape[1], device=colours.device).expand(len(colours), -1)
        return (colours * (1 + torch.cos(index.float())[..., None])).mean(1) @ _mix(3, len(self.classes), colours)

    def attend(self, features: Features, scores: str = "mean") -> tuple[Tensor, Tensor]:
        """The same scores for both kinds."""
        return self.tail(features, "input"), (8 * self._colours(features["image"]).mean(2)).softmax(1)

    def _colours(self, image: Tensor) -> Tensor:
        return F.avg_pool2d(image, PATCH).flatten(2).transpose(1, 2)
