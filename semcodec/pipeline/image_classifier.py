"""Image classifiers of timm's form as Backbones, cut between any two modules that follow one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn

from semcodec.errors import SemcodecError
from semcodec.interfaces import Backbone, Features
from semcodec.pipeline import channel_pruning
from semcodec.pipeline.sequential_graph import INPUT, Chain
from semcodec.specs import MAPS, BackboneSpec, FeatureSpec, classifier_spec


class SequentialClassifier(nn.Module, Backbone):
    """A model of timm's, with what its config says of pixels.

    classes: names of the classes. model: maps normalised images to logits. config: timm's data config. chain: how it is
    cut, see ``sequential_graph.find``; None where it is not. patch: side of the patches whose attention it tells.
    tokens: of a transformer, its inner cuts.

    Features at inner cuts are {"maps": (B, C, H, W)}; at "input" {"image": (B, 3, H, W)}, float32 in [0, 1].
    """

    model: Any  # a Module with the methods of timm's, which torch does not declare
    spec: BackboneSpec
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        model: nn.Module,
        config: Mapping[str, Any],
        chain: Chain | None,
        patch: int | None = None,
        tokens: Mapping[str, FeatureSpec] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.classes = list(classes)
        self.model, self.chain = model, chain
        if chain:
            model.to(memory_format=torch.channels_last)
        _, height, width = config["input_size"]
        maps = chain.shapes if chain else {}
        self.spec = classifier_spec(height, width, config["crop_pct"], config["interpolation"], patch, maps, tokens)
        self.register_buffer("mean", torch.tensor(config["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(3, 1, 1), persistent=False)

    @property
    def model_name(self) -> str:
        """As messages call it."""
        return type(self.model).__name__

    def adapt(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of timm's in this module's form."""
        return {f"model.{name}": tensor for name, tensor in tensors.items()}

    def head(self, x: Features, cut: str) -> Features:
        """{"image": (B, 3, H, W)} float32 in [0, 1] to {"maps": (B, C, H, W)}; at "input" as it is."""
        return self.advance(x, INPUT, cut)

    def advance(self, features: Features, cut: str, to: str) -> Features:
        """From the features at ``cut`` to those at ``to``, which is no earlier."""
        if cut == to:
            return features
        x = self.normalised(features["image"]) if cut == INPUT else features[MAPS]
        return {MAPS: self._run(x, self._place(cut), self._place(to))}

    def tail(self, features: Features, cut: str) -> Tensor:
        """To logits (B, classes) float32. Raises SemcodecError for patches."""
        if cut != INPUT:
            maps = self._run(features[MAPS], self._place(cut))
            logits: Tensor = self.model.forward_head(maps)
        elif "image" in features:
            logits = self.model(self.normalised(features["image"]))
        else:
            raise SemcodecError(f"{self.model_name} takes whole images: it does not embed its patches one by one")
        return logits.float()

    def attend(self, features: Features, scores: str = "mean") -> tuple[Tensor, Tensor]:
        """Raises SemcodecError: what it computes has no class token."""
        raise SemcodecError(f"{self.model_name} has no class token whose attention to patches could be told")

    def head_state(self, cut: str) -> Sequence[str]:
        """Of the state dict, beginnings of the names of what ``head`` uses at a cut: nothing at "input"."""
        return [f"model.{name}." for name in self._links[: self._place(cut)]]

    def tail_state(self, cut: str) -> Sequence[str]:
        """The same for ``tail``: all that ``head`` does not use."""
        unused = tuple(self.head_state(cut))
        return [name for name in self.state_dict() if not name.startswith(unused)] if unused else ["model."]

    def narrowed(self, cut: str, channels: Mapping[str, Tensor]) -> Callable[[Features], Features]:
        """A head that computes only those channels in the last step before the cut, see ``channel_pruning``.

        Uses a snapshot of the current weights. Networks whose last step cannot be narrowed compute all channels.
        """
        step = self._last_step(cut)
        if step is None or MAPS not in channels:
            return super().narrowed(cut, channels)
        before = self._place(cut) - step.links
        image = None if before else channel_pruning.Image(self._size, self.mean, self.std)
        last = step.kept(channels[MAPS], image).eval()

        def head(x: Features) -> Features:
            return {MAPS: last(self._run(self.normalised(x["image"]), 0, before) if before else x["image"])}

        return head

    def narrowed_share(self, cut: str, channels: int) -> float:
        """Multiplications of the head at an inner cut that computes so many channels, over those of the whole head."""
        layers = channel_pruning.operations(self.model, self._links[: self._place(cut)], (3, *self._size))
        step, total = self._last_step(cut), sum(layers.values())
        last = sum(layers[conv] for conv in step.convs) if step else 0
        assert self.chain is not None
        return 1 - last / total * (1 - channels / self.chain.shapes[cut][0])

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels (..., 3, H, W) in [0, 1] to what the model was trained on, laid out in memory as it likes it."""
        return self._laid_out((pixels - self.mean) / self.std)

    @property
    def _links(self) -> tuple[str, ...]:
        return self.chain.links if self.chain else ()

    @property
    def _size(self) -> tuple[int, int]:
        _, height, width = self.spec.input["image"].shape
        assert height is not None and width is not None
        return height, width

    def _place(self, cut: str) -> int:
        return self.chain.cuts[cut] if cut != INPUT and self.chain else 0

    def _run(self, x: Tensor, start: int, stop: int | None = None) -> Tensor:
        x = self._laid_out(x)
        for name in self._links[start:stop]:
            x = self.model.get_submodule(name)(x)
        return x

    def _last_step(self, cut: str) -> channel_pruning.Step | None:
        if cut == INPUT:
            return None
        return channel_pruning.last_step([self.model.get_submodule(name) for name in self._links[: self._place(cut)]])

    def _laid_out(self, maps: Tensor) -> Tensor:
        """Channels last: convolutions are faster so, and in one layout their sums are equal to the bit."""
        return maps.contiguous(memory_format=torch.channels_last) if self.chain else maps


def imagenet_classes(model: str) -> list[str] | None:
    """ImageNet's descriptions where timm's published weights of a model have as many classes as one of its subsets."""
    config = timm.get_pretrained_cfg(model)
    subset = infer_imagenet_subset(config.to_dict()) if config else None
    if subset is None:
        return None
    info = ImageNetInfo(subset)
    return [info.index_to_description(i) for i in range(info.num_classes())]
