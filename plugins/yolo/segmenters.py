"""ultralytics' models that segment, as Backbones, and the choice among all that it builds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from semcodec.boxes import corners
from semcodec.class_masks import pixel_loss
from semcodec.errors import SemcodecError
from semcodec.interfaces import Features, Labels
from semcodec_plugins.yolo.backbone import Ultralytics, UltralyticsDetector
from semcodec_plugins.yolo.spec import INSTANCES, SEMANTIC

BACKGROUND = "background"
CONFIDENCE, OVERLAP, LIMIT = 0.25, 0.7, 300
"""Of an object that counts: its least score, how much of it a better one of its class may cover, and how many there

are at most, as ultralytics has them where nobody says otherwise.
"""
PIXELS = 4
"""Of the input along a side of a place of a mask."""
LEAST = 1e-6
"""Of a probability, where its logarithm is taken."""
CITYSCAPES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip


class InstanceSegmenter(Ultralytics):
    """``yolo/<model>-seg``, which finds objects and the mask of each: a pixel is of the object that is likeliest there.

    classes: names of the classes; the first is that of pixels where no object is.
    """

    task = "segmentation"

    def __init__(self, classes: Sequence[str], *, model: str, side: int) -> None:
        super().__init__(classes, model, side, len(classes) - 1)

    @classmethod
    def published_classes(cls, **params: Any) -> list[str] | None:
        return [BACKGROUND, *(super().published_classes(**params) or ())]

    def detect(self, maps: list[Tensor]) -> Tensor:
        """(B, classes, side / 4, side / 4): logarithms of an object's score times how likely a pixel is of it."""
        (found, prototypes), _ = self.model[-1](maps)
        found = found if self.end2end else found.transpose(1, 2)
        return torch.stack([self._painted(*sample) for sample in zip(found.float(), prototypes.float(), strict=True)])

    def _painted(self, found: Tensor, prototypes: Tensor) -> Tensor:
        """found: (N, 4 + classes + M) of boxes, scores and coefficients, or (N, 6 + M) of chosen ones with corners,

        score and class. prototypes: (M, h, w), of which coefficients make masks: sigmoid(coefficients @ prototypes).
        """
        count, (height, width) = len(self.classes) - 1, prototypes.shape[1:]
        if self.end2end:
            boxes, scores, labels, coefficients = found[:, :4], found[:, 4], found[:, 5].long(), found[:, 6:]
        else:
            boxes, coefficients = corners(found[:, :4]), found[:, 4 + count :]
            scores, labels = found[:, 4 : 4 + count].max(1)
        kept = (scores > CONFIDENCE).nonzero()[:, 0]
        if not self.end2end:
            kept = kept[batched_nms(boxes[kept], scores[kept], labels[kept], OVERLAP)]
        kept = kept[:LIMIT]
        masks = torch.einsum("nm,mhw->nhw", coefficients[kept], prototypes)
        inside = masks.gt(0) & _within(boxes[kept] / PIXELS, height, width)
        likely = torch.where(inside, scores[kept, None, None] * masks.sigmoid(), 0)
        planes = likely.new_zeros(1 + count, height, width)
        planes[0] = CONFIDENCE / 2  # less than any pixel of an object has
        of_class = (1 + labels[kept])[:, None, None].expand_as(likely)
        return planes.scatter_reduce(0, of_class, likely, "amax").clamp_min(LEAST).log()

    def task_loss(self, features: Features, cut: str, labels: Labels) -> tuple[Tensor, dict[str, float]]:
        """Raises SemcodecError: masks of classes do not tell objects apart."""
        raise SemcodecError("ultralytics' models of objects' masks are not trained here: use them as published")


class SemanticSegmenter(Ultralytics):
    """``yolo/<model>-sem``: a class for each pixel, Cityscapes' as published."""

    task = "segmentation"

    def __init__(self, classes: Sequence[str], *, model: str, side: int) -> None:
        super().__init__(classes, model, side, len(classes))

    @classmethod
    def published_classes(cls, **params: Any) -> list[str] | None:
        return list(CITYSCAPES)

    def detect(self, maps: list[Tensor]) -> Tensor:
        """Logits (B, classes, side / 8, side / 8)."""
        logits: Tensor = self.model[-1](maps)
        return logits

    def task_loss(self, features: Features, cut: str, labels: Labels) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the pixels whose class is known. labels: masks of the sources."""
        return pixel_loss(self.tail(features, cut), labels)


def _within(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which cells of a map lie in which boxes, corners in cells (N, 4): (N, height, width)."""
    left, top, right, bottom = (edge[:, None] for edge in boxes.unbind(1))
    x, y = (torch.arange(side, device=boxes.device) for side in (width, height))
    across, down = (x >= left) & (x < right), (y >= top) & (y < bottom)
    return down[:, :, None] & across[:, None]


def _kind(model: str) -> type[UltralyticsDetector | InstanceSegmenter | SemanticSegmenter]:
    if model.endswith(INSTANCES):
        return InstanceSegmenter
    return SemanticSegmenter if model.endswith(SEMANTIC) else UltralyticsDetector


class UltralyticsBackbone(Ultralytics):
    """``yolo/<model>``: what detects, or what segments objects or pixels, by its name, as in yolo/yolo11n-seg."""

    def __new__(cls, classes: Sequence[str], *, model: str, side: int) -> Ultralytics:  # type: ignore[misc]
        """The backbone itself."""
        return _kind(model)(classes, model=model, side=side)

    @classmethod
    def published_classes(cls, **params: Any) -> list[str] | None:
        """Of the kind of model that it is."""
        return _kind(params["model"]).published_classes(**params)
