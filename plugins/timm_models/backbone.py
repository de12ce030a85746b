"""timm's image classifiers as Backbones: pixels in [0, 1] to logits, whole or on some of their patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config
from torch import Tensor, nn

from semcodec.errors import SemcodecError, UsageError
from semcodec.interfaces import Backbone, Features
from semcodec.pipeline import channel_pruning, sequential_graph
from semcodec.pipeline.sequential_graph import INPUT
from semcodec.specs import MAPS, classifier_spec
from semcodec_plugins.timm_models import tokens


class ImageClassifier(nn.Module, Backbone):
    """A model of timm's, with what its config says of pixels.

    classes: names of the classes. model: maps normalised images to logits. config: timm's data config.

    A convolutional network has cuts after its stem, each block and each stage, see ``chain``; features there are
    {"maps": (B, C, H, W)}. Other models have the cut "input" alone. There a ViT that embeds its patches one by one
    takes {"image"} or {"patches", "index"}; for the latter it computes those tokens alone. See ``tokens`` for what is
    relied on.
    """

    def __init__(self, classes: Sequence[str], model: nn.Module, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.classes = list(classes)
        self.model = model
        self.takes_patches = tokens.takes_patches(model)
        _, height, width = config["input_size"]
        patch = model.patch_embed.patch_size[0] if tokens.has_scores(model) else None
        self.chain = None if self.takes_patches else sequential_graph.find(model, config["input_size"])
        if self.chain:
            model.to(memory_format=torch.channels_last)
        maps = self.chain.shapes if self.chain else {}
        self.spec = classifier_spec(height, width, config["crop_pct"], config["interpolation"], patch, maps)
        self.register_buffer("mean", torch.tensor(config["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(3, 1, 1), persistent=False)

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

    def _place(self, cut: str) -> int:
        return 0 if cut == INPUT else self.chain.cuts[cut]

    def _run(self, x: Tensor, start: int, stop: int | None = None) -> Tensor:
        x = self._laid_out(x)
        for name in self.chain.links[start:stop]:
            x = self.model.get_submodule(name)(x)
        return x

    def narrowed(self, cut: str, channels: Mapping[str, Tensor]) -> Callable[[Features], Features]:
        """A head that computes only those channels in the last step before the cut, see ``narrow``.

        Networks whose last step it cannot narrow compute all of them.
        """
        step = self._last_step(cut)
        if step is None or MAPS not in channels:
            return super().narrowed(cut, channels)
        before = self._place(cut) - step.links
        _, height, width = self.spec.input["image"].shape
        image = None if before else channel_pruning.Image((height, width), self.mean, self.std)
        last = step.kept(channels[MAPS], image).eval()

        def head(x: Features) -> Features:
            return {MAPS: last(self._run(self.normalised(x["image"]), 0, before) if before else x["image"])}

        return head

    def narrowed_share(self, cut: str, channels: int) -> float:
        """Multiplications of the head at an inner cut that computes so many channels, over those of the whole head."""
        links = self.chain.links[: self._place(cut)]
        layers = channel_pruning.operations(self.model, links, self.spec.input["image"].shape)
        step, total = self._last_step(cut), sum(layers.values())
        last = sum(layers[conv] for conv in step.convs) if step else 0
        return 1 - last / total * (1 - channels / self.chain.shapes[cut][0])

    def _last_step(self, cut: str) -> channel_pruning.Step | None:
        if cut == INPUT:
            return None
        return channel_pruning.last_step(
            [self.model.get_submodule(name) for name in self.chain.links[: self._place(cut)]]
        )

    def tail(self, features: Features, cut: str) -> Tensor:
        """To logits (B, classes), from {"image": (B, 3, H, W)}, {"maps": (B, C, H, W)} or

        {"patches": (B, K, 3, p, p), "index": (B, K) int64}, all float32, pixels in [0, 1]; an index is the patch's
        place in raster order, or -1 for padding. Raises SemcodecError where the model takes no patches.
        """
        if cut != INPUT:
            return self.model.forward_head(self._run(features[MAPS], self._place(cut))).float()
        if "patches" not in features:
            return self.model(self.normalised(features["image"])).float()
        self._check(features["index"])
        x = tokens.embed(self.model, self.normalised(features["patches"]), features["index"])
        return tokens.classify(self.model, x, features["index"]).float()

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels (..., 3, H, W) in [0, 1] to what the model was trained on, laid out in memory as it likes it."""
        return self._laid_out((pixels - self.mean) / self.std)

    def _laid_out(self, maps: Tensor) -> Tensor:
        """Channels last: convolutions are faster so, and in one layout their sums are equal to the bit."""
        return maps.contiguous(memory_format=torch.channels_last) if self.chain else maps

    def _check(self, index: Tensor) -> None:
        if not self.takes_patches:
            raise SemcodecError(f"{self._name} takes whole images: it does not embed its patches one by one")
        if not tokens.pads(self.model) and bool((index == tokens.PADDING).any()):
            raise SemcodecError(f"{self._name} pools over all tokens, so samples padded with -1 cannot go together")

    @property
    def _name(self) -> str:
        return type(self.model).__name__

    def attend(self, features: Features, scores: str = "mean") -> tuple[Tensor, Tensor]:
        """Logits (B, classes), and (B, N) the class token's attention to each patch; its rows sum to 1.

        Attention stays fused: the class token's row alone is computed beside it, from the last block's queries and
        keys ("mean"), or from those of every block ("rollout"). Attention to prefix tokens is left out.
        """
        if self.spec.patch is None:
            raise SemcodecError(f"{self._name} has no class token whose attention to patches could be told")
        blocks = self.model.blocks if scores == "rollout" else self.model.blocks[-1:]
        with tokens.listening(blocks) as heard:
            logits = self.model(self.normalised(features["image"])).float()
        row = tokens.rollout_row(heard) if scores == "rollout" else tokens.mean_row(*heard[0])
        row = row[:, self.model.num_prefix_tokens :]
        return logits, row / row.sum(1, keepdim=True)

    def collate(self, samples: Sequence[Features]) -> list[tuple[list[int], Features]]:
        """Images of one shape together, patches in buckets of about as many, see ``tokens.bucket``."""
        parts = [i for i, sample in enumerate(samples) if "patches" in sample]
        whole = [i for i, sample in enumerate(samples) if "patches" not in sample]
        groups = [
            (parts, tokens.bucket([samples[i] for i in parts], self.takes_patches and tokens.pads(self.model))),
            (whole, super().collate([samples[i] for i in whole])),
        ]
        return [([members[i] for i in rows], batch) for members, batches in groups for rows, batch in batches]


class TimmBackbone(ImageClassifier):
    """``timm/<model>``: by its name in timm, with or without the tag of its weights (resnet50.a1_in1k).

    Raises UsageError for a name that timm has not, or whose model is no image classifier.
    """

    def __init__(self, classes: Sequence[str], *, model: str) -> None:
        _check_name(model)
        made = timm.create_model(model, pretrained=False, num_classes=len(classes))
        super().__init__(classes, made, resolve_model_data_config(made))
        self._model_name = model

    @property
    def _name(self) -> str:
        return self._model_name

    @classmethod
    def published_classes(cls, *, model: str, **params: Any) -> list[str] | None:
        """ImageNet's descriptions where timm's published weights have as many classes as one of its subsets."""
        _check_name(model)
        config = timm.get_pretrained_cfg(model)
        subset = infer_imagenet_subset(config.to_dict()) if config else None
        if subset is None:
            return None
        info = ImageNetInfo(subset)
        return [info.index_to_description(i) for i in range(info.num_classes())]


def repository(model: str) -> str | None:
    """Where on the hub the weights of a model are that timm itself would take."""
    _check_name(model)
    config = timm.get_pretrained_cfg(model)
    return config.hf_hub_id if config else None


def _check_name(model: str) -> None:
    name, _, tag = model.partition(".")
    if not timm.is_model(name):
        close = get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() has all"
        raise UsageError(f"timm has no model {name!r}: {hint}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{name}.*")]
    if tag and tag not in tags:
        raise UsageError(f"timm has no weights {tag!r} of {name}; it has {', '.join(tags) or 'none'}")


class Published(TimmBackbone):
    """One model of timm's under a name of its own; ``published``: its name there, with the tag of its weights."""

    published: str

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes, model=self.published)

    @classmethod
    def published_classes(cls, **params: Any) -> list[str] | None:
        return super().published_classes(model=cls.published)


class DeiTTiny(Published):
    published = "deit_tiny_patch16_224.fb_in1k"


class DeiTSmall(Published):
    published = "deit_small_patch16_224.fb_in1k"


class DeiTBase(Published):
    published = "deit_base_patch16_224.fb_in1k"
