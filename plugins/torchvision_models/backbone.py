"""torchvision's models as Backbones: pixels in [0, 1] to logits of each pixel, or to boxes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from semcodec.boxes import centred
from semcodec.class_masks import pixel_loss
from semcodec.errors import SemcodecError
from semcodec.interfaces import Backbone, Features, Labels
from semcodec.specs import BackboneSpec, TensorSpec
from semcodec_plugins.torchvision_models import names
from semcodec_plugins.torchvision_models.extractors import MAPS, Given, carried, steps_of, with_modules

INPUT = "input"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixels that the models for segmentation were trained on."""


class TorchvisionModel(nn.Module, Backbone):
    """What both kinds share: a feature extractor as steps, then the library's own heads.

    classes: names of the classes. model: the library's. side: of the input in pixels. mean, std: of what it learned on.
    Features at a cut are maps (B, C, H, W) by name: "maps" is read next, others by later stages or heads.
    """

    model: Any
    spec: BackboneSpec
    task: str
    mean: Tensor
    std: Tensor

    def __init__(
        self, classes: Sequence[str], model: nn.Module, side: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.classes, self.side = list(classes), side
        self.model = model
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        steps = self.steps
        self.places = {INPUT: 0, **{step.name: number + 1 for number, step in enumerate(steps) if step.name}}
        self.spec = self._spec()

    @property
    def steps(self) -> list[Any]:
        """Of the extractor as it is now: a copy of this model has its own."""
        return steps_of(self.model.backbone)

    def head(self, x: Features, cut: str) -> Features:
        """{"image": (B, 3, side, side)} float32 in [0, 1], RGB, to the maps that cross the cut."""
        return self.advance(x, INPUT, cut)

    def advance(self, features: Features, cut: str, to: str) -> Features:
        """From the maps that cross ``cut`` to those that cross ``to``, which is no earlier."""
        if cut == to:
            return features
        maps = {MAPS: self.normalised(features["image"])} if cut == INPUT else dict(features)
        return carried(self.steps, maps, self.places[cut], self.places[to])

    def tail(self, features: Features, cut: str) -> Tensor:
        """From the maps that cross the cut to the answer."""
        raise NotImplementedError

    def head_state(self, cut: str) -> Sequence[str]:
        """The weights of the steps before the cut."""
        return [name for step in self.steps[: self.places[cut]] for name in step.state]

    def tail_state(self, cut: str) -> Sequence[str]:
        """All others."""
        used = tuple(self.head_state(cut))
        return [name for name in self.state_dict() if not used or not name.startswith(used)]

    def read(self, features: Features, cut: str) -> dict[str, Tensor]:
        """The maps that the heads read."""
        maps = {MAPS: self.normalised(features["image"])} if cut == INPUT else dict(features)
        return OrderedDict(carried(self.steps, maps, self.places[cut], len(self.steps)))

    def adapt(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of torchvision's, less the classifier that only training reads."""
        return {f"model.{name}": t for name, t in tensors.items() if not name.startswith("aux_classifier.")}

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1] to what the model was trained on."""
        return (pixels - self.mean) / self.std

    def stand_in(self, maps: dict[str, Tensor]) -> Tensor:
        """For the library's code that looks at the size of an input which was read long ago: (B, 3, side, side)."""
        some = next(iter(maps.values()))
        return some.new_zeros(1).expand(len(some), 3, self.side, self.side)

    def _spec(self) -> BackboneSpec:
        """The shapes of all maps, from a copy that holds no numbers and computes none."""
        blank = deepcopy(self).to("meta").eval()
        features: Features = {"image": torch.empty(1, 3, self.side, self.side, device="meta")}
        cuts, at = {}, INPUT
        for cut in self.places:
            features, at = blank.advance(features, at, cut), cut
            cuts[cut] = {name: TensorSpec(tuple(x.shape[1:])) for name, x in features.items()}
        return BackboneSpec(task=self.task, input=cuts[INPUT], cuts=cuts, fit="letterbox")


class Segmenter(TorchvisionModel):
    """FCN, DeepLab v3 and LR-ASPP."""

    task = "segmentation"

    def tail(self, features: Features, cut: str) -> Tensor:
        """To logits (B, classes, side, side) float32."""
        maps = self.read(features, cut)
        logits: Tensor = with_modules(self.model, backbone=Given(maps))(self.stand_in(maps))["out"]
        return logits.float()

    def task_loss(self, features: Features, cut: str, labels: Labels) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the pixels whose class is known. labels: masks of the sources."""
        return pixel_loss(self.tail(features, cut), labels)


class Detector(TorchvisionModel):
    """Faster R-CNN, RetinaNet, FCOS and SSD, which choose among their boxes themselves."""

    task = "detection"

    def tail(self, features: Features, cut: str) -> Tensor:
        """To (B, N, 4 + classes) float32: the library's own boxes cx, cy, w, h in pixels, each with the score of its
        class alone; N is as many as it gives at most, and rows beyond those are zeros.
        """
        maps = self.read(features, cut)
        images = self.stand_in(maps)
        seen = ImageList(images, [(self.side, self.side)] * len(images))
        shell = with_modules(self.model, backbone=Given(maps), transform=_Placed(seen)).eval()
        found = shell(list(images))
        most = getattr(self.model, "roi_heads", self.model).detections_per_img
        out = images.new_zeros(len(images), most, 4 + len(self.classes))
        for row, one in zip(out, found, strict=True):
            real = one["labels"] > 0  # 0 is the background, which RetinaNet and FCOS score like any class
            places = torch.arange(int(real.sum()), device=row.device)
            row[places, :4] = centred(one["boxes"][real])
            row[places, 3 + one["labels"][real]] = one["scores"][real]
        return out.float()

    def task_loss(self, features: Features, cut: str, labels: Labels) -> tuple[Tensor, dict[str, float]]:
        """Raises SemcodecError: these models are used as they are published."""
        raise SemcodecError("torchvision's detectors are not trained here: use them with published weights")


class _Placed(nn.Module):
    """Stands in for a detector's transform: its pictures are of the right size already, and so are its boxes."""

    def __init__(self, images: ImageList) -> None:
        super().__init__()
        self.images = images

    def forward(self, images: Any, targets: Any = None) -> tuple[ImageList, Any]:
        """What the model goes on with."""
        return self.images, targets

    def postprocess(self, found: Any, *sizes: Any) -> Any:
        """Boxes as they are."""
        return found


class TorchvisionBackbone(TorchvisionModel):
    """``torchvision/<model>``: a ``Segmenter`` or a ``Detector``, by torchvision's name for it.

    Raises UsageError for a name that is none of theirs, and a side that the model cannot take.
    """

    def __new__(cls, classes: Sequence[str], *, model: str, side: int | None = None) -> TorchvisionModel:  # type: ignore[misc]
        """The backbone itself."""
        names.check(model)
        pixels = names.side_of(model, side)
        if model in names.SEGMENTING:
            made = torchvision.models.get_model(
                model, weights=None, weights_backbone=None, num_classes=len(classes), aux_loss=None
            )
            return Segmenter(classes, made, pixels, MEAN, STD)
        made = torchvision.models.get_model(
            model, weights=None, weights_backbone=None, num_classes=len(classes) + 1, **_sized(model, pixels)
        )
        return Detector(classes, made, pixels, made.transform.image_mean, made.transform.image_std)

    @classmethod
    def published_classes(cls, **params: Any) -> list[str] | None:
        """Those of the weights that torchvision would take itself."""
        return names.classes(params["model"])


def _sized(model: str, side: int) -> dict[str, int]:
    return {} if model in names.FIXED else {"min_size": side, "max_size": side}
