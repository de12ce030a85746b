"""What passes between the five interfaces: features, latents, analyses, and the two ends of a packet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from semcodec.tensors import rows_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    from semcodec.priors import Prior

    Int32 = npt.NDArray[np.int32]
    Features = dict[str, Tensor]
    Labels = Any  # int64 (B,), or a list of Boxes
else:
    Features = dict  # so that plugins can import the name while listing stays free of torch
    Int32 = Labels = Any


@dataclass
class Latent:
    """What one sample sends: integer arrays by name (numpy, any integer dtype) and plain side information.

    kept: by target, how many units are really sent, where ``encode`` may send fewer than its mask.
    """

    symbols: dict[str, Any]
    side: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)


@dataclass
class Analysis:
    """What the device knows before it selects.

    scores: by target, (B, ...) float importance of each unit; higher is more important.
    prediction: (B, classes) logits of the device's own answer, or None.
    """

    features: Features
    scores: dict[str, Tensor] = field(default_factory=dict)
    prediction: Tensor | None = None


@dataclass
class Partial:
    """Restored features with what is missing marked: ``present[name]`` is 1 where a value was received.

    Of the dtype of the features, and of their shape or 1 along any axis. A name absent from ``present`` is complete.
    Batch first, as all features.
    """

    features: Features
    present: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class TrainableParts:
    """What learns of an Encoder through its ``forward_train``, and what has to be made of it then.

    modules: parts of it. settle: makes what codes, integer tables say, of what was learned; called when learning ends.
    see: is shown features at the cut before ``settle`` is called, where that needs any.
    densities: by name, what estimates the bits, part of the weights or not. They learn along, and then alone, so that
    the tables made of them fit what is sent.
    """

    modules: Sequence[nn.Module]
    settle: Callable[[], None]
    see: Callable[[Features], None] | None = None
    densities: Mapping[str, nn.Module] = field(default_factory=dict)


class Sink(Protocol):
    """Where an Encoder writes one packet."""

    def symbols(self, name: str, values: Int32, prior: Prior, *, side: bool = False) -> None:
        """Send integers through the entropy stage. side: they count as side information."""

    def blob(self, name: str, data: bytes, *, side: bool = False) -> None:
        """Send bytes as they are."""

    def layer(self) -> None:
        """End a layer: a stream cut here still decodes."""


class Source(Protocol):
    """Where an Encoder reads one packet, in the order it was written.

    Raises CorruptStream when what is read is not what was written.
    """

    params: Mapping[str, Any]

    def symbols(self, name: str, count: int, prior: Prior) -> Int32:
        """``count`` integers, int32 (count,), under the prior that they were written with."""

    def blob(self, name: str, max_bytes: int) -> bytes:
        """Bytes, of which at most ``max_bytes`` are possible."""

    def layer(self) -> bool:
        """End a layer; False where the stream was cut here and nothing follows."""


def restore_alike(latents: Sequence[Latent], restore: Callable[[Sequence[Latent]], Partial]) -> list[Partial]:
    """What ``restore`` makes of Latents in batches, taken apart again: a Partial with a batch axis of one for each.

    Given to ``restore`` together are those with the same names and shapes of symbols and the same words and numbers on
    the side.
    """
    groups: dict[Any, list[int]] = {}
    for i, latent in enumerate(latents):
        symbols = tuple((name, array.shape) for name, array in latent.symbols.items())
        side = tuple(
            (name, value) for name, value in latent.side.items() if isinstance(value, bool | int | float | str)
        )
        groups.setdefault((symbols, side), []).append(i)
    out: dict[int, Partial] = {}
    for members in groups.values():
        batch = restore([latents[i] for i in members])
        for row, i in enumerate(members):
            features, present = (
                {name: t[row : row + 1] for name, t in of.items()} for of in (batch.features, batch.present)
            )
            out[i] = Partial(features, present)
    return [out[i] for i in range(len(latents))]


def analysis_rows(analysis: Analysis, rows: Sequence[int]) -> Analysis:
    """Some samples of an analysis of a batch."""
    prediction = None if analysis.prediction is None else analysis.prediction[list(rows)]
    return Analysis(rows_of(analysis.features, rows), rows_of(analysis.scores, rows), prediction)
