"""A detector whose layers are a graph, cut before any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from semcodec.boxes import Boxes
from semcodec.interfaces import Backbone, Features
from semcodec_plugins.yolo.spec import carried, cuts, feature


def reads(layers: nn.Sequential) -> list[tuple[int, ...]]:
    """For each layer of ultralytics' form the numbers of those that it reads; -1 is the model's input."""
    return [tuple(i + j if j < 0 else j for j in _sources(layer)) for i, layer in enumerate(layers)]


def _sources(layer: nn.Module) -> Sequence[int]:
    given: Any = layer.f  # by ultralytics
    return [given] if isinstance(given, int) else given


class GraphDetector(nn.Module, Backbone):
    """Layers in order, the last of which detects.

    classes: names of the classes. layers: each with ``f``, what it reads: a number, or a list of them; from itself
    back where it is negative. A cut carries the maps that later layers read, {"layer4": (B, C, H, W), ...} float32,
    and nothing else.
    """

    def __init__(self, classes: Sequence[str], layers: nn.Sequential) -> None:
        super().__init__()
        self.classes = list(classes)
        self.model = layers
        self.reads = reads(layers)
        self.last = cuts(len(layers))[-1]
        self._number = {name: cut for cut, name in enumerate(cuts(len(layers)))}
        self._carried = [carried(self.reads, cut) for cut in range(len(layers))]

    def adapt(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of ultralytics', or of YOLOv5's own repository, which has the same names."""
        return dict(tensors)

    def adapt_init(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of a model for other classes: what of its last layer has another shape begins anew."""
        own, last = self.state_dict(), f"model.{self.last}."
        anew = {n for n, t in tensors.items() if n.startswith(last) and n in own and own[n].shape != t.shape}
        return {name: own[name] if name in anew else tensor for name, tensor in tensors.items()}

    def head(self, x: Features, cut: str) -> Features:
        """{"image": (B, 3, side, side)} float32 in [0, 1], RGB, to the maps that cross the cut."""
        return self.advance(x, "input", cut)

    def advance(self, features: Features, cut: str, to: str) -> Features:
        """From the maps that cross ``cut`` to those that cross ``to``, which is no earlier."""
        start, stop = self._number[cut], self._number[to]
        maps = {number: features[feature(number)] for number in self._carried[start]}
        for i in range(start, stop):
            layer, given = self.model[i], [maps[j] for j in self.reads[i]]
            maps[i] = layer(given[0] if isinstance(layer.f, int) else given)
            maps = {j: maps[j] for j in self._carried[i + 1]}
        return {feature(number): map_ for number, map_ in maps.items()}

    def head_state(self, cut: str) -> Sequence[str]:
        """The layers before the cut."""
        return [f"model.{number}." for number in range(self._number[cut])]

    def tail_state(self, cut: str) -> Sequence[str]:
        """The layers from the cut on."""
        return [f"model.{number}." for number in range(self._number[cut], len(self.reads))]

    def tail(self, features: Features, cut: str) -> Tensor:
        """To (B, N, 4 + classes) float32: boxes cx, cy, w, h in pixels of the input, then scores in [0, 1]."""
        return self.detect(self.detected(features, cut)).float()

    def detected(self, features: Features, cut: str) -> list[Tensor]:
        """The maps that the last layer reads, in its order."""
        maps = self.advance(features, cut, self.last)
        return [maps[feature(number)] for number in self.reads[-1]]

    def detect(self, maps: list[Tensor]) -> Tensor:
        """What ``tail`` gives, from the maps that the last layer reads."""
        raise NotImplementedError

    def task_loss(self, features: Features, cut: str, labels: Sequence[Boxes]) -> tuple[Tensor, dict[str, float]]:
        """The model's own loss, and its parts by name."""
        raise NotImplementedError
