"""Which units of each target are kept: one loop for the pipeline and for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

from semcodec.interfaces import Selector
from semcodec.types import Analysis

if TYPE_CHECKING:
    from torch import Tensor

    from semcodec.pipeline.timing import Clock

Keep = Mapping[str, tuple[Selector, "float | int | None"]]
"""By target, in the Encoder's order: the Selector and its budget."""


class Scorer(Protocol):
    """What scores are asked of: an Encoder, or what remembers the answers of one."""

    @property
    def units(self) -> Mapping[str, int]: ...

    def scores(self, analysis: Analysis, target: str, masks: Mapping[str, Tensor]) -> Tensor: ...


def covers(budget: float | None, units: int) -> bool:
    """Whether a budget keeps everything, so that nothing need be scored."""
    return budget is not None and (budget >= units if isinstance(budget, int) else budget >= 1.0)


def select(
    encoder: Scorer, analysis: Analysis, keep: Keep, sequence: Sequence[int], clock: Clock | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Masks and the scores they were chosen by, by target; a target that keeps everything is absent.

    keep: by target, in the Encoder's order, ``(Selector, budget)``. Each target is scored after the earlier
    ones were chosen, so that scores need only be computed for what is still there.
    """
    masks: dict[str, Tensor] = {}
    scores: dict[str, Tensor] = {}
    for target, (selector, budget) in keep.items():
        if covers(budget, encoder.units[target]):
            continue
        with clock(f"select_{target}") if clock else nullcontext():
            scores[target] = encoder.scores(analysis, target, masks)
            masks[target] = selector.keep(scores[target].detach(), budget, sequence)
    return masks, scores
