"""Which units of each target are kept: one loop for the pipeline and for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from semcodec.composition.composition import Composition
from semcodec.interfaces import Selector
from semcodec.types import Analysis

if TYPE_CHECKING:
    from torch import Tensor

    from semcodec.pipeline.timing import Clock

Keep = Mapping[str, tuple[Selector, "float | int | None"]]
"""By target, in the Encoder's order: the Selector and its budget."""


@dataclass(frozen=True)
class Selectors:
    """The built Selectors of a composition: by target those that keep units, the gate, what sets call parameters."""

    keep: Mapping[str, Selector] = field(default_factory=dict)
    gate: Selector | None = None
    point: Selector | None = None

    def budgeted(self, composition: Composition) -> Keep:
        """Those that keep units, with the budgets that ``composition`` gives them."""
        return {target: (self.keep[target], budget) for target, (_, budget) in composition.keep.items()}


class Scorer(Protocol):
    """What scores are asked of: an Encoder, or what remembers the answers of one."""

    @property
    def units(self) -> Mapping[str, int]:
        """By target, how many units there are to choose among."""

    def scores(self, analysis: Analysis, target: str, masks: Mapping[str, Tensor]) -> Tensor:
        """As ``Encoder.scores``."""


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
            masks[target] = _kept(selector, scores[target], budget, sequence)
    return masks, scores


def _kept(selector: Selector, scores: Any, budget: float | int | None, sequence: Sequence[int]) -> Any:
    """The Selector's mask of scores, in numpy where these are, as on a device without torch."""
    if isinstance(scores, np.ndarray):
        return selector.keep_array(scores, budget, sequence)
    return selector.keep(scores.detach(), budget, sequence)
