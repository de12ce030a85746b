"""The five interfaces that every method implements, and what passes between them.

Features are ``dict[str, Tensor]``, batch first. At the cut ``input`` pixels are float32 in [0, 1], made from
8-bit values as ``v / 255``. One sample makes one ``Latent``, one ``Latent`` one packet.

Constructors, called by the pipeline with the spec's build parameters as keywords:

    Backbone(classes, **params)        Encoder(features, **params)      Recoverer(features, **params)
    EntropyStage(**params)             Selector(**params)

where ``features`` is the ``FeatureSpec`` the stage is given and ``classes`` the class names.
Encoders, Recoverers and Backbones with weights are also ``torch.nn.Module``.

Spec functions (torch-free, named by ``Component.spec``; raise ``SpecMismatch(reason)`` to refuse):

    backbone(params) -> BackboneSpec          encoder(features, params) -> EncoderSpec
    recoverer(features, params) -> FeatureSpec

Traits, declared in ``Component.traits``, are those of ``semcodec.component.TRAITS``, which docs/plugins.md explains.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from semcodec.tensors import as_array, beside
from semcodec.types import (
    Analysis,
    Features,
    Int32,
    Labels,
    Latent,
    Partial,
    Sink,
    Source,
    TrainableParts,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Floats = npt.NDArray[np.floating[Any]]
    Bool = npt.NDArray[np.bool_]

    from semcodec.device_half import Exported
    from semcodec.panels import Panel
    from semcodec.priors import Prior
    from semcodec.specs import BackboneSpec

__all__ = [
    "Analysis",
    "Backbone",
    "Coding",
    "Encoder",
    "EntropyStage",
    "Features",
    "Int32",
    "Labels",
    "Latent",
    "Partial",
    "Recoverer",
    "Selector",
    "Sink",
    "Source",
    "TrainableParts",
]


class Named(Protocol):
    """Something with a name."""

    @property
    def name(self) -> str:
        """As specs write it."""


class Composed(Protocol):
    """What a Selector that sets call parameters may ask of the composition it is part of."""

    @property
    def spec(self) -> str:
        """The canonical spec string."""

    @property
    def call(self) -> Mapping[str, Any]:
        """The Encoder's call parameters by name."""

    @property
    def given(self) -> frozenset[str]:
        """The Encoder's parameters that the spec itself sets."""

    @property
    def encoder(self) -> Named:
        """The Encoder, by name."""

    @property
    def registry(self) -> Any:
        """Where other specs are looked up."""

    def decoding_signature(self) -> str:
        """What two compositions have in common whose streams one server decodes."""

    def weights_signature(self) -> str:
        """What two compositions have in common that differ in call parameters of the Encoder alone; no spec."""


class Backbone(ABC):
    """The server's model, cut in two.

    classes: names. spec: set by the constructor where the component has no spec function.
    """

    classes: Sequence[str]
    spec: BackboneSpec | None = None

    @abstractmethod
    def head(self, x: Features, cut: str) -> Features:
        """The device's part: model input to features at ``cut`` (the input itself at "input")."""

    @abstractmethod
    def tail(self, features: Features, cut: str) -> Tensor:
        """The server's part: features at ``cut`` to logits, (B, classes) float32."""

    def attend(self, features: Features, scores: str = "mean") -> tuple[Tensor, Tensor]:
        """The whole model's logits (B, classes), and its class token's attention to each patch, (B, N) float32.

        features: the model's input. Patches are in raster order. scores: "mean" is the last block's attention, its
        heads averaged; "rollout" multiplies that of all blocks (Abnar and Zuidema, 2020). Models with a class token
        say so by ``BackboneSpec.patch``.
        """
        raise NotImplementedError

    def advance(self, features: Features, cut: str, to: str) -> Features:
        """From the features at ``cut`` to those at a later one: ``head(x, cut)`` is ``advance(x, "input", cut)``."""
        raise NotImplementedError

    def narrowed(self, cut: str, channels: Mapping[str, Tensor]) -> Callable[[Features], Features]:
        """A head that gives of each feature named in ``channels`` (int64, ascending) only those channels.

        With the weights as they are now. Here it computes all of them and picks; a Backbone that can computes no more
        than it is asked for, in which case values may differ from ``head`` in their last bits.
        """

        def head(x: Features) -> Features:
            return {n: t[:, channels[n]] if n in channels else t for n, t in self.head(x, cut).items()}

        return head

    def head_state(self, cut: str) -> Sequence[str] | None:
        """Of the state dict, beginnings of the names of what ``head`` uses at a cut; None where that is all of it.

        A device loads no other weights. At "input" nothing is used.
        """
        return None

    def tail_state(self, cut: str) -> Sequence[str] | None:
        """The same for ``tail``: a server loads no other weights."""
        return None

    def task_loss(self, features: Features, cut: str, labels: Labels) -> tuple[Tensor, dict[str, float]]:
        """The loss that the model is trained by, and figures to show, from the features at a cut.

        labels: int64 (B,), for which this is the cross-entropy; a detector is given one ``Boxes`` for each sample.
        """
        from torch.nn.functional import cross_entropy

        logits = self.tail(features, cut)
        return cross_entropy(logits, labels), {"top1": (logits.argmax(1) == labels).float().mean().item()}

    @classmethod
    def published_classes(cls, **params: Any) -> list[str] | None:
        """Class names of the weights that are published for it; None where none are."""
        return None

    def collate(self, samples: Sequence[Features]) -> list[tuple[list[int], Features]]:
        """Group single samples (batch axis of one) into batches that ``tail`` takes: by equal shapes."""
        from semcodec.tensors import alike, stack

        return [(rows, stack([samples[i] for i in rows])) for rows in alike(samples)]


class Coding(ABC):
    """An Encoder's integers to chunks and back: numpy alone, so that it runs where there is no torch.

    Constructor: ``Coding(features, state, **params)``, with the ``FeatureSpec`` at the cut, the arrays that it needs of
    the Encoder's state dict by name (those whose names begin with one of ``state_names``: integer tables, say), and the
    spec's build parameters as keywords.
    """

    state_names: tuple[str, ...] = ()

    @abstractmethod
    def write(self, latent: Latent, sink: Sink) -> None:
        """Write one sample's symbols and blobs, in the order ``read`` expects them."""

    @abstractmethod
    def read(self, source: Source) -> Latent:
        """The inverse of ``write``; every count is bounded before memory is taken. Raises CorruptStream."""


class Encoder(ABC):
    """Features to integers to bytes, and back. Both ends of quantisation are here.

    coding: what ``write`` and ``read`` pass to, of an Encoder whose component names its ``Coding``; others write and
    read themselves.

    units: by target, how many units there are to choose among; set by the constructor.
    channels: by feature, the channels (int64, ascending) that ``analyse`` and ``encode`` are given, where these are
    not all: the device computes no others.
    """

    coding: Coding
    units: Mapping[str, int] = MappingProxyType({})
    channels: Mapping[str, Tensor] = MappingProxyType({})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for old, new in (("code", "forward_train"), ("learning", "trainable_parts")):
            if old in vars(cls) and new not in vars(cls):
                warnings.warn(f"{cls.__qualname__}.{old} is now named {new}", DeprecationWarning, stacklevel=2)
                setattr(cls, new, vars(cls)[old])
        if "restore" in vars(cls) and "restore_batch" not in vars(cls):
            cls.restore_batch = Encoder.restore_batch  # type: ignore[method-assign]  # a base's passes the new one by

    def analyse(self, features: Features) -> Analysis:
        """Scores and, where the device can answer itself, its prediction."""
        return Analysis(features)

    def scores(self, analysis: Analysis, target: str, masks: Mapping[str, Tensor]) -> Tensor:
        """Importance (B, ..., N) for ``target``, given the masks already chosen for earlier targets."""
        return analysis.scores[target]

    @abstractmethod
    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        """One Latent a sample. ``params``: call parameters.

        masks: by target, bool, shaped as its scores; a target of which everything is kept has none.
        """

    def forward_train(self, features: Features, rng: np.random.Generator) -> list[tuple[Partial, Tensor | None]]:
        """The differentiable view, for training: what ``restore`` would give of a batch, and the bits it would cost.

        features: all channels. One entry for each operating point that is trained at once, say each number of layers;
        bits are estimates, (B,), or None where the rate is none of the encoder's choice. rng: draws for this batch.
        """
        raise NotImplementedError

    def forward_train_at(
        self, features: Features, rng: np.random.Generator, points: Sequence[int]
    ) -> list[tuple[Partial, Tensor | None]]:
        """``forward_train`` at some of its operating points alone, by their places among its entries.

        Here all are computed. Where rates differ, entries go from the fewest bits to the most.
        """
        found = self.forward_train(features, rng)
        return [found[point] for point in points]

    def layers_at(self, point: int) -> int:
        """How many layers an entry of ``forward_train`` has, by its place; here one more than the one before."""
        return point + 1

    def trainable_parts(self) -> TrainableParts:
        """Begins training through ``forward_train``: ``semcodec train --objective task``, and recipes that want it."""
        raise NotImplementedError

    def figures(self, features: Features) -> Mapping[str, Sequence[float]]:
        """Papers' own figures of what is sent, by name, one for each sample; not part of any time or size."""
        return {}

    def write(self, latent: Latent, sink: Sink) -> None:
        """Write one sample's symbols and blobs, in the order ``read`` expects them."""
        self.coding.write(latent, sink)

    def read(self, source: Source) -> Latent:
        """The inverse of ``write``; every count is bounded before memory is taken. Raises CorruptStream."""
        return self.coding.read(source)

    def device_state(self) -> Sequence[str] | None:
        """Of the state dict, beginnings of the names of what the device uses; None where that is all of it."""
        return None

    def server_state(self) -> Sequence[str] | None:
        """The same for what ``read`` and ``restore`` use."""
        return None

    def export(self) -> Exported:
        """What a device without torch is given of this Encoder: see ``semcodec.device_half``.

        Here the arrays of ``device_state`` and no network. Asked only of an Encoder with the trait ``device``.
        """
        from semcodec.device_half import Exported

        names: Sequence[str] | None = self.device_state()
        state: Mapping[str, Tensor] = getattr(self, "state_dict", dict)()
        chosen = [name for name in state if names is None or name.startswith(tuple(names))]
        return Exported({name: as_array(state[name]) for name in chosen})

    def decoder_state(self) -> Mapping[str, Tensor]:
        """The weights that ``read`` and ``restore`` use; a stream is tied to them. Usually all there are."""
        state: Mapping[str, Tensor] = getattr(self, "state_dict", dict)()
        return state

    @abstractmethod
    def restore(self, latent: Latent) -> Partial:
        """Dequantise and scatter: features of one sample with a batch axis of one."""

    def restore_batch(self, latents: Sequence[Latent]) -> list[Partial]:
        """What ``restore`` gives of each; here one by one.

        An Encoder whose ``restore`` is a network runs it once for samples that are alike, grouped by
        ``semcodec.types.restore_alike``. A class with a ``restore`` of its own and no ``restore_batch`` has this one.
        """
        return [self.restore(latent) for latent in latents]

    def panels(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], partial: Partial
    ) -> list[Panel]:
        """What ``--save-plot`` draws of one sample: its source, what was chosen and by what, what was received."""
        from semcodec.panels import usual

        return usual(features, partial)


class EntropyStage(ABC):
    """Integers to bytes, lossless, always. Stateless."""

    @abstractmethod
    def encode(self, symbols: Int32, prior: Prior) -> bytes:
        """Code a 1-D int32 array."""

    @abstractmethod
    def decode(self, data: bytes, prior: Prior, count: int) -> Int32:
        """The ``count`` symbols of ``encode``. Raises CorruptStream on bytes it cannot have written."""

    def side_bytes(self, data: bytes, prior: Prior) -> int:
        """How many of ``data``'s bytes are tables rather than payload."""
        return 0


class Recoverer(ABC):
    """Fills what is not present. Knows no Encoder."""

    @abstractmethod
    def recover(self, partial: Partial) -> Features:
        """Complete features, batch first."""


class Selector(ABC):  # noqa: B024
    """Chooses what is sent. Implements what its ``abilities`` name.

    uses_scores: False where ``keep`` looks at the scores' shape alone, so that training need not learn them.
    """

    uses_scores = True

    def keep(self, scores: Tensor, budget: float | int | None, sequence: Sequence[int]) -> Tensor:
        """Bool mask shaped as ``scores`` (B, ..., N), chosen along the last axis.

        ``budget``: an int counts units, a float is a fraction of N, None leaves it to the Selector's own
        arguments. ``sequence``: the samples' numbers in the stream, for Selectors that draw at random.
        Here by ``keep_array``.
        """
        return beside(self.keep_array(as_array(scores), budget, sequence), scores)

    def keep_array(self, scores: Floats, budget: float | int | None, sequence: Sequence[int]) -> Bool:
        """``keep`` in numpy, for devices without torch."""
        raise NotImplementedError

    def gate(self, prediction: Tensor) -> Tensor:
        """(B, classes) logits of the device to (B,) bool: send this sample? Here by ``gate_array``."""
        return beside(self.gate_array(as_array(prediction)), prediction)

    def gate_array(self, prediction: Floats) -> Bool:
        """``gate`` in numpy, for devices without torch."""
        raise NotImplementedError

    def point(self, composition: Composed, sequence: Sequence[int]) -> list[Mapping[str, Any]]:
        """For each sample, by its number in the stream, call parameters of the Encoder: those it sets.

        What the spec itself sets, ``composition.given``, stays as it is. Asked before anything is computed.
        """
        raise NotImplementedError


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from semcodec._moved import moved_name

        return moved_name(__name__, name)
