"""torchvision's feature extractors as steps, so that a model can be cut between any two of them.

What is behind a cut is run by the library's own code: a shallow copy of the model, or of its extractor, in which what
was already computed is stood in for.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

MAPS = "maps"
"""Name of what the next step reads, where no later stage reads it too."""
Maps = dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """name: of the cut behind it, "" where none is. state: how the names of its weights begin. run: maps to maps."""

    name: str
    state: tuple[str, ...]
    run: Callable[[Maps], Maps]


class Given(nn.Module):
    """Stands in for a module whose output is known."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, *ignored: Any) -> Any:
        """The value."""
        return self.value


def with_modules(model: nn.Module, **modules: nn.Module) -> Any:
    """A shallow copy of a module with some of its children exchanged; the module itself stays as it is."""
    shell = copy.copy(model)
    shell._modules = {**model._modules, **modules}
    return shell


def steps_of(backbone: nn.Module) -> list[Step]:
    """Of a model's ``backbone``: children one after the other, then what makes the maps that its heads read."""
    body = getattr(backbone, "body", None)
    if body is not None:  # with a feature pyramid
        return [*_chain(body, "model.backbone.body."), _pyramid(backbone)]
    if hasattr(backbone, "return_layers"):
        return _chain(backbone, "model.backbone.")
    return _single_shot(backbone)


def _chain(body: Any, prefix: str) -> list[Step]:
    """Of an ``IntermediateLayerGetter``: x goes through all children, and what some give is read later."""
    steps: list[Step] = []
    returned = {str(child): str(name) for child, name in body.return_layers.items()}
    kept: list[str] = []
    children = list(body.items())
    for number, (child, module) in enumerate(children):
        source = kept[-1] if kept and returned.get(children[number - 1][0]) == kept[-1] else MAPS

        def run(maps: Maps, module: nn.Module = module, source: str = source, child: str = child) -> Maps:
            x = module(maps[source])
            held = {name: maps[name] for name in returned.values() if name in maps}
            return {**held, returned.get(child, MAPS): x}

        if child in returned:
            kept.append(returned[child])
        plain = isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.ReLU) or type(module).__name__.endswith(
            "BatchNorm2d"
        )
        steps.append(Step("" if plain else child, (f"{prefix}{child}.",), run))
    return steps


def _pyramid(backbone: Any) -> Step:
    def run(maps: Maps) -> Maps:
        return dict(backbone.fpn(OrderedDict(maps)))

    return Step("fpn", ("model.backbone.fpn.",), run)


def _single_shot(backbone: Any) -> list[Step]:
    """Of SSD's extractors: behind each pooling of VGG, or each block of a MobileNet, up to the first map that is read;

    then all maps.
    """
    vgg = hasattr(backbone, "scale_weight")
    chain, prefix = (backbone.features, "features.") if vgg else (backbone.features[0], "features.0.")
    cuts = [number for number, module in enumerate(chain) if isinstance(module, nn.MaxPool2d) or not vgg]
    steps, start = [], 0
    for cut in cuts:
        part = chain[start : cut + 1]
        state = tuple(f"model.backbone.{prefix}{number}." for number in range(start, cut + 1))
        steps.append(Step(f"features{cut}", state, _through(part)))
        start = cut + 1
    if not vgg:  # the last block gives a map that is read: the next step needs it as the extractor's own
        steps.pop()
        start = cuts[-1]

    def rest(maps: Maps) -> Maps:
        later = chain[start:]
        whole = later if vgg else nn.Sequential(later, backbone.features[1])
        return dict(with_modules(backbone, features=whole)(maps[MAPS]))

    used = {name for step in steps for name in step.state}
    own = [f"model.backbone.{name}" for name in backbone.state_dict()]
    return [*steps, Step("maps", tuple(name for name in own if not name.startswith(tuple(used))), rest)]


def _through(part: nn.Module) -> Callable[[Maps], Maps]:
    return lambda maps: {MAPS: part(maps[MAPS])}


def carried(steps: Sequence[Step], maps: Maps, start: int, stop: int) -> Maps:
    """Maps in front of step ``start`` to those in front of step ``stop``."""
    for step in steps[start:stop]:
        maps = step.run(maps)
    return maps
