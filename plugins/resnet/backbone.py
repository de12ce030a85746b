"""Residual networks of timm's form as Backbones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
from timm.data import resolve_model_data_config
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from semcodec.errors import WeightsError
from semcodec.pipeline import sequential_graph
from semcodec.pipeline.image_classifier import SequentialClassifier, imagenet_classes
from semcodec_plugins.resnet.spec import CROP, NANO, NANO_SIDE


class Published(SequentialClassifier):
    """One of timm's networks; ``published``: its name there, with the tag of its weights."""

    published: str

    def __init__(self, classes: Sequence[str]) -> None:
        model = timm.create_model(self.published, pretrained=False, num_classes=len(classes))
        config = resolve_model_data_config(model)
        super().__init__(classes, model, config, sequential_graph.find(model, config["input_size"]))

    @property
    def model_name(self) -> str:
        """As timm calls it."""
        return self.published

    @classmethod
    def published_classes(cls, **params: Any) -> list[str] | None:
        """ImageNet's, of timm's weights."""
        return imagenet_classes(cls.published)


class ResNet18(Published):
    """ResNet-18 of He et al., by timm's recipe A1."""

    published = "resnet18.a1_in1k"


class ResNet34(Published):
    """ResNet-34 of He et al., by timm's recipe A1."""

    published = "resnet34.a1_in1k"


class ResNet50(Published):
    """ResNet-50 of He et al., by timm's recipe A1."""

    published = "resnet50.a1_in1k"


COUNTED = "num_batches_tracked"
SCALE = 4 / 255
"""What pixels less the mean are divided by: a quarter of Caffe's values, whose variances half precision cannot hold."""


class ResNet50Caffe(SequentialClassifier):
    """ResNet-50 of He et al. as they published it for Caffe.

    A stage's stride is in its first 1x1 convolution, pooling has no padding but may overhang the edge, and pixels are
    0-255 less a mean. side: of the input, in pixels.
    """

    def __init__(self, classes: Sequence[str], *, side: int) -> None:
        model = timm.create_model("resnet50", num_classes=len(classes))
        model.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)
        for stage in ("layer2", "layer3", "layer4"):
            for conv, stride in (("conv1", (2, 2)), ("conv2", (1, 1))):
                layer = model.get_submodule(f"{stage}.0.{conv}")
                assert isinstance(layer, nn.Conv2d)
                layer.stride = stride
        config: dict[str, Any] = {
            "input_size": (3, side, side),
            "crop_pct": CROP,
            "interpolation": "bilinear",
            "mean": (123.15 / 255, 115.9 / 255, 103.06 / 255),
            "std": (SCALE,) * 3,
        }
        super().__init__(classes, model, config, sequential_graph.find(model, config["input_size"]))

    def adapt_init(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A Caffe trunk: for BGR of 0-255 less the mean, from ``conv1`` to at least ``layer3``, by torchvision's names.

        Of ``layer4``, convolutions that are there come with their norms; its others and the classifier stay as they
        are here. Raises WeightsError where the trunk is not whole.
        """
        own, given = self.state_dict(), self.adapt(tensors)
        due = [n for n in own if not n.startswith(("model.layer4.", "model.fc.")) and not n.endswith(COUNTED)]
        lacking = next((name for name in due if name not in given), None)
        if lacking:
            raise WeightsError(f"this is no trunk of a Caffe ResNet-50: {lacking.removeprefix('model.')} is missing")
        more = [n for n in own if n.startswith("model.layer4.") and n in given and f"{_conv_of(n)}.weight" in given]
        given["model.conv1.weight"] = given["model.conv1.weight"].flip(1)
        given["model.bn1.running_mean"] = given["model.bn1.running_mean"] / (255 * SCALE)
        given["model.bn1.running_var"] = given["model.bn1.running_var"] / (255 * SCALE) ** 2
        return {**own, **{name: given[name] for name in (*due, *more)}}


def _conv_of(name: str) -> str:
    """The convolution that a tensor belongs to, its own or that before its norm."""
    return name.rpartition(".")[0].replace("bn", "conv").replace("downsample.1", "downsample.0")


class ResNetNano(SequentialClassifier):
    """For 96x96 pixels: ResNet-50's stem, and fewer and narrower blocks."""

    def __init__(self, classes: Sequence[str]) -> None:
        planes = tuple(channels // Bottleneck.expansion for channels in NANO.stages)
        kind: Any = Bottleneck  # a class, where timm declares an instance
        model = ResNet(kind, NANO.blocks, num_classes=len(classes), channels=planes)
        config: dict[str, Any] = {
            "input_size": (3, NANO_SIDE, NANO_SIDE),
            "crop_pct": 1.0,
            "interpolation": "bicubic",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
        }
        super().__init__(classes, model, config, sequential_graph.find(model, config["input_size"]))
