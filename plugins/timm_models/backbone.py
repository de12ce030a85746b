"""timm's image models as Backbones: pixels in [0, 1] to logits or embeddings, whole or on some of their patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import timm
from timm.data import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from semcodec.errors import SemcodecError, UsageError, did_you_mean, first_line
from semcodec.interfaces import Backbone, Features, Labels
from semcodec.pipeline import sequential_graph
from semcodec.pipeline.image_classifier import SequentialClassifier, imagenet_classes
from semcodec.tasks.retrieval import pair_loss
from semcodec_plugins.timm_models import tokens


class ImageClassifier(SequentialClassifier):
    """A model of timm's, with what its config says of pixels.

    classes: names of the classes. model: maps normalised images to logits. config: timm's data config.

    A convolutional network has cuts after its stem, each block and each stage, see ``sequential_graph``; features there
    are {"maps": (B, C, H, W)}. A vision transformer has the cuts "embed", "block1", ...; features there are
    {"tokens": (B, N, D), "prefix": (B, P, D)}, the latter where it has tokens without a place, such as the class token.
    Other models have the cut "input" alone. There a ViT that embeds its patches one by one takes {"image"} or
    {"patches", "index"}; for the latter it computes those tokens alone, and says at inner cuts which: {"tokens",
    "prefix", "index"}. See ``tokens`` for what is relied on.
    """

    def __init__(self, classes: Sequence[str], model: nn.Module, config: Mapping[str, Any]) -> None:
        takes_patches = tokens.takes_patches(model)
        chain = None if takes_patches else sequential_graph.find(model, config["input_size"])
        patch = tokens.patch_side(model) if tokens.has_scores(model) else None
        cuts = tokens.inner_cuts(model)
        super().__init__(classes, model, config, chain, patch, cuts)
        self.takes_patches, self.inner = takes_patches, frozenset(cuts)

    @property
    def vit(self) -> VisionTransformer:
        """Of a model that takes patches or tokens."""
        assert isinstance(self.model, VisionTransformer)
        return self.model

    def advance(self, features: Features, cut: str, to: str) -> Features:
        """From the features at ``cut`` to those at ``to``, which is no earlier. Of patches, to their tokens alone."""
        if cut == to or to not in self.inner:
            return super().advance(features, cut, to)
        x, index = self._tokens(features, cut), features.get("index")
        return tokens.part(self.vit, tokens.run(self.vit, x, self._blocks(cut), self._blocks(to), index), index)

    def tail(self, features: Features, cut: str) -> Tensor:
        """To logits (B, classes), from {"image": (B, 3, H, W)}, {"maps": (B, C, H, W)},

        {"patches": (B, K, 3, p, p), "index": (B, K) int64} or {"tokens": (B, K, D), "prefix": (B, P, D)}, also with an
        index, all float32, pixels in [0, 1]; an index is the patch's place in raster order, or -1 for padding. Raises
        SemcodecError where the model takes no patches.
        """
        if "patches" not in features and cut not in self.inner:
            return super().tail(features, cut)
        index = features.get("index")
        x = self._tokens(features, cut)
        x = tokens.run(self.vit, x, self._blocks(cut), None, index)
        logits: Tensor = self.vit.forward_head(self.vit.norm(x))
        return logits.float()

    def head_state(self, cut: str) -> Sequence[str]:
        """Of the state dict, beginnings of the names of what ``head`` uses at a cut: nothing at "input"."""
        if cut not in self.inner:
            return super().head_state(cut)
        blocks = [f"model.blocks.{i}." for i in range(self._blocks(cut))]
        return [*(f"model.{name}" for name in tokens.EMBEDDING), *blocks]

    def narrowed(self, cut: str, channels: Mapping[str, Tensor]) -> Callable[[Features], Features]:
        """Of tokens all are computed and channels picked, as of any Backbone."""
        return Backbone.narrowed(self, cut, channels) if cut in self.inner else super().narrowed(cut, channels)

    def _blocks(self, cut: str) -> int:
        return tokens.place(cut) if cut in self.inner else 0

    def _tokens(self, features: Features, cut: str) -> Tensor:
        """What the first block behind a cut takes: (B, prefix + K, D)."""
        if cut in self.inner:
            if "index" in features:
                self._check_padding(features["index"])
            return tokens.join(features)
        if "patches" not in features:
            return tokens.enter(self.vit, tokens.embed_whole(self.vit, self.normalised(features["image"])))
        self._check(features["index"])
        return tokens.enter(self.vit, tokens.embed(self.vit, self.normalised(features["patches"]), features["index"]))

    def _check(self, index: Tensor) -> None:
        if not self.takes_patches:
            raise SemcodecError(f"{self.model_name} takes whole images: it does not embed its patches one by one")
        self._check_padding(index)

    def _check_padding(self, index: Tensor) -> None:
        if not tokens.pads(self.vit) and bool((index == tokens.PADDING).any()):
            raise SemcodecError(
                f"{self.model_name} pools over all tokens, so samples padded with -1 cannot go together"
            )

    def attend(self, features: Features, scores: str = "mean") -> tuple[Tensor, Tensor]:
        """Logits (B, classes), and (B, N) the class token's attention to each patch; its rows sum to 1.

        Attention stays fused: the class token's row alone is computed beside it, from the last block's queries and
        keys ("mean"), or from those of every block ("rollout"). Attention to prefix tokens is left out.
        """
        if self.spec.patch is None:
            raise SemcodecError(f"{self.model_name} has no class token whose attention to patches could be told")
        model, heard = tokens.listening(self.vit, len(self.vit.blocks) if scores == "rollout" else 1)
        logits: Tensor = model(self.normalised(features["image"])).float()
        row = tokens.rollout_row(heard) if scores == "rollout" else tokens.mean_row(*heard[0])
        row = row[:, self.vit.num_prefix_tokens :]
        return logits, row / row.sum(1, keepdim=True)

    def collate(self, samples: Sequence[Features]) -> list[tuple[list[int], Features]]:
        """Images of one shape together, what has an index in buckets of about as many, see ``tokens.bucket``."""
        parts = [i for i, sample in enumerate(samples) if "index" in sample]
        whole = [i for i, sample in enumerate(samples) if "index" not in sample]
        pads = bool(self.takes_patches or self.inner) and tokens.pads(self.vit)
        groups = [
            (parts, tokens.bucket([samples[i] for i in parts], pads)),
            (whole, super().collate([samples[i] for i in whole])),
        ]
        return [([members[i] for i in rows], batch) for members, batches in groups for rows, batch in batches]


class _Named(ImageClassifier):
    """A model by its name in timm, with or without the tag of its weights (resnet50.a1_in1k).

    outputs: of its classifier; 0: it has none. purpose: what it cannot be, where it cannot be made. Raises UsageError
    for a name that timm has not, and for a model that cannot be made.
    """

    def __init__(self, classes: Sequence[str], model: str, outputs: int, purpose: str) -> None:
        _check_name(model)
        try:
            made = timm.create_model(model, pretrained=False, num_classes=outputs)
            super().__init__(classes, made, resolve_model_data_config(made))
        except SemcodecError:
            raise
        except Exception as error:  # each of its thousand models has its own; a missing package, say
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UsageError(f"timm's {model} cannot be used {purpose} here ({reason})") from error
        self._model_name = model

    @property
    def model_name(self) -> str:
        return self._model_name


class TimmBackbone(_Named):
    """``timm/<model>``, which classifies. Raises UsageError for a model that is no image classifier."""

    def __init__(self, classes: Sequence[str], *, model: str) -> None:
        super().__init__(classes, model, len(classes), "as an image classifier")

    def tail(self, features: Features, cut: str) -> Tensor:
        """As that of ``ImageClassifier``. Raises UsageError for a model that gives no logits."""
        logits = super().tail(features, cut)
        if logits.shape[1:] != (len(self.classes),):
            shape = tuple(logits.shape)
            raise UsageError(f"timm's {self.model_name} is no image classifier: it gives {shape}, not a number a class")
        return logits

    @classmethod
    def published_classes(cls, **params: Any) -> list[str] | None:
        """ImageNet's descriptions where timm's published weights have as many classes as one of its subsets."""
        _check_name(params["model"])
        return imagenet_classes(params["model"])


class TimmEmbedding(_Named):
    """``timm-embed/<model>``: the same model without its classifier (timm's ``num_classes=0``), for retrieval.

    The tail gives what the classifier would read, (B, D).
    """

    def __init__(self, classes: Sequence[str], *, model: str) -> None:
        super().__init__(classes, model, 0, "for embeddings")
        self.spec = replace(self.spec, task="retrieval")

    def tail(self, features: Features, cut: str) -> Tensor:
        """To embeddings (B, D) float32. Raises UsageError for a model that gives no vector."""
        embedding = super().tail(features, cut)
        if embedding.dim() != 2:
            raise UsageError(
                f"timm's {self.model_name} embeds no image: it gives {tuple(embedding.shape)}, not a vector"
            )
        return embedding

    def adapt(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of timm's, with or without the classifier."""
        names = self.model.pretrained_cfg.get("classifier") or ()
        dropped = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
        kept = {name: tensor for name, tensor in tensors.items() if not dropped or not name.startswith(dropped)}
        return super().adapt(kept)

    def task_loss(self, features: Features, cut: str, labels: Labels) -> tuple[Tensor, dict[str, float]]:
        """Of pairs of the batch: ``semcodec.tasks.retrieval.pair_loss``."""
        return pair_loss(self.tail(features, cut), labels)


def repository(model: str) -> str | None:
    """Where on the hub the weights of a model are that timm itself would take."""
    _check_name(model)
    config = timm.get_pretrained_cfg(model)
    return config.hf_hub_id if config else None


def _check_name(model: str) -> None:
    name, _, tag = model.partition(".")
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models(), "timm.list_models() has all", most=3)
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
    """DeiT-Tiny at 224x224 pixels."""

    published = "deit_tiny_patch16_224.fb_in1k"


class DeiTSmall(Published):
    """DeiT-Small at 224x224 pixels."""

    published = "deit_small_patch16_224.fb_in1k"


class DeiTBase(Published):
    """DeiT-Base at 224x224 pixels."""

    published = "deit_base_patch16_224.fb_in1k"
