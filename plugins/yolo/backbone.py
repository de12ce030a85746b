"""YOLO as Backbones: the anchor-based YOLOv5, and whatever detector ultralytics builds."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from semcodec.boxes import Boxes, centred
from semcodec.data.boxes import COCO
from semcodec.errors import UsageError
from semcodec.interfaces import Features
from semcodec.specs import BackboneSpec, SpecMismatch, TensorSpec
from semcodec_plugins.yolo import upstream
from semcodec_plugins.yolo.anchors import AnchorDetect
from semcodec_plugins.yolo.graph import GraphDetector
from semcodec_plugins.yolo.spec import IMAGE, WIDTHS, YOLOV5, check_side, cuts, layered


class _YOLO(GraphDetector):
    @classmethod
    def published_classes(cls, **params: Any) -> list[str] | None:
        """COCO's, which all that is published for these models was trained on."""
        return list(COCO)

    def task_loss(self, features: Features, cut: str, labels: Sequence[Boxes]) -> tuple[Tensor, dict[str, float]]:
        maps = self.detected(features, cut)
        with torch.autocast(maps[0].device.type, enabled=False):
            return self.loss([x.float() for x in maps], labels)

    def loss(self, maps: list[Tensor], labels: Sequence[Boxes]) -> tuple[Tensor, dict[str, float]]:
        """What ``task_loss`` gives, from the maps that the last layer reads."""
        raise NotImplementedError


class _YOLOv5(_YOLO):
    """YOLOv5 v6.0: ultralytics' layers up to the detection, then that with anchors.

    side: of the input in pixels. It changes no weights.
    """

    size: str

    def __init__(self, classes: Sequence[str], *, side: int) -> None:
        tasks = upstream.ultralytics("nn.tasks")
        described = upstream.configuration(f"yolov5{self.size}u")
        layers, _ = tasks.parse_model({**described, "head": described["head"][:-1]}, ch=3, verbose=False)
        tasks.initialize_weights(layers)  # the batch norms' constants
        channels = [round(YOLOV5[number].channels * WIDTHS[self.size]) for number in AnchorDetect.f]
        super().__init__(classes, nn.Sequential(*layers, AnchorDetect(len(classes), channels)))

    def detect(self, maps: list[Tensor]) -> Tensor:
        return self._last.decode(self._last(maps))

    def loss(self, maps: list[Tensor], labels: Sequence[Boxes]) -> tuple[Tensor, dict[str, float]]:
        return self._last.loss(self._last(maps), labels)

    @property
    def _last(self) -> AnchorDetect:
        last = self.model[-1]
        assert isinstance(last, AnchorDetect)
        return last


class YOLOv5N(_YOLOv5):
    """Width 0.25, depth 0.33."""

    size = "n"


class YOLOv5S(_YOLOv5):
    """Width 0.5, depth 0.33."""

    size = "s"


class YOLOv5M(_YOLOv5):
    """Width 0.75, depth 0.67."""

    size = "m"


class YOLOv5L(_YOLOv5):
    """Width 1, depth 1."""

    size = "l"


class YOLOv5X(_YOLOv5):
    """Width 1.25, depth 1.33."""

    size = "x"


class Ultralytics(_YOLO):
    """A model by ultralytics' name for it.

    outputs: how many classes its last layer tells apart. side: of the input in pixels. Raises UsageError for a name
    that ultralytics does not know or whose model neither detects nor segments, and where the maps do not divide the
    side.
    """

    task = "detection"

    def __init__(self, classes: Sequence[str], model: str, side: int, outputs: int) -> None:
        made = upstream.build(model, outputs)
        super().__init__(classes, made.model)
        _freeze_constants(self)
        self.args = upstream.ultralytics("cfg").get_cfg()  # gains of the loss, where ultralytics looks for them
        made.model[-1].dynamic = True  # else it keeps positions that were made without gradient
        try:
            check_side(side, int(max(made.stride)))
        except SpecMismatch as reason:
            raise UsageError(f"yolo/{model}: {reason}") from None
        self.spec = self._spec(side)

    def _spec(self, side: int) -> BackboneSpec:
        """The shapes of all maps, from a copy that holds no numbers and computes none."""
        copy, names = deepcopy(self).to("meta").eval(), cuts(len(self.reads))
        shapes: dict[str, TensorSpec] = {}
        features = {IMAGE: torch.empty(1, 3, side, side, device="meta")}
        for cut, to in zip(names, [*names[1:], None], strict=True):
            shapes |= {name: TensorSpec(tuple(x.shape[1:])) for name, x in features.items()}
            features = copy.advance(features, cut, to) if to else {}
        return layered(self.reads, shapes, self.task)

    @property
    def end2end(self) -> bool:
        """Whether the last layer chooses among its boxes itself."""
        return bool(getattr(self.model[-1], "end2end", False))


class UltralyticsDetector(Ultralytics):
    """``yolo/<model>``: a detector, as in yolo/yolov8n."""

    def __init__(self, classes: Sequence[str], *, model: str, side: int) -> None:
        super().__init__(classes, model, side, len(classes))

    def detect(self, maps: list[Tensor]) -> Tensor:
        """(B, N, 4 + classes): boxes cx, cy, w, h in pixels, then scores."""
        out = self.model[-1](maps)
        out = out[0] if isinstance(out, tuple) else out
        return self._spread(out) if self.end2end else out.transpose(1, 2)

    def _spread(self, chosen: Tensor) -> Tensor:
        """(B, N, 6) of corners, score and class to what every detector gives."""
        scores = torch.zeros(*chosen.shape[:2], len(self.classes), dtype=chosen.dtype, device=chosen.device)
        scores = scores.scatter(2, chosen[..., 5:].long(), chosen[..., 4:5])
        return torch.cat((centred(chosen[..., :4]), scores), -1)

    def loss(self, maps: list[Tensor], labels: Sequence[Boxes]) -> tuple[Tensor, dict[str, float]]:
        """By ultralytics' own criterion, per sample."""
        head = self.model[-1]
        assert isinstance(head.stride, Tensor)
        side = maps[0].new_tensor([maps[0].shape[3], maps[0].shape[2]] * 2) * float(head.stride[0])
        counts = torch.tensor([len(boxes) for boxes in labels])
        batch = {
            "batch_idx": torch.arange(len(labels)).repeat_interleave(counts),
            "cls": torch.cat([boxes.classes for boxes in labels]).float(),
            "bboxes": torch.cat([centred(boxes.xyxy.float()) for boxes in labels]).to(side) / side,
        }
        batch = {name: t.to(maps[0].device) for name, t in batch.items()}
        training, head.training = head.training, True  # then it gives raw predictions; its batch norms stay as they are
        try:
            raw = head(maps)
        finally:
            head.training = training
        criterion = upstream.ultralytics("nn.tasks").DetectionModel.init_criterion(self)
        loss, items = criterion(raw, batch)
        if not isinstance(items, dict):  # before ultralytics 8.4
            items = dict(zip(("box_loss", "cls_loss", "dfl_loss"), items, strict=False))
        return loss.sum() / len(labels), {name.removesuffix("_loss"): float(value) for name, value in items.items()}


def _freeze_constants(model: nn.Module) -> None:
    """Parameters that are none, of which no training may think that they learn, become buffers of the same name."""
    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            if not value.requires_grad:
                delattr(module, name)
                module.register_buffer(name, value.detach())
