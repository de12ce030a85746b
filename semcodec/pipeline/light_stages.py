"""The stages of a composition that have no network, built: the entropy stage and the Selectors. No torch."""

from __future__ import annotations

from typing import Any

from semcodec.composition.binding import Bound
from semcodec.composition.composition import Composition
from semcodec.interfaces import EntropyStage
from semcodec.pipeline.selection import Selectors
from semcodec.tensors import single_precision


@single_precision()
def build_entropy(composition: Composition) -> EntropyStage | None:
    """The entropy stage; None where the Encoder codes its bytes itself."""
    bound = composition.entropy
    return composition.registry.load(bound.component)(**bound.build) if bound else None


@single_precision()
def build_selectors(composition: Composition) -> Selectors:
    """The Selectors, which cost nothing to make."""

    def made(bound: Bound | None) -> Any:
        return composition.registry.load(bound.component)(**bound.build) if bound else None

    keep = {target: made(bound) for target, (bound, _) in composition.keep.items()}
    return Selectors(keep, made(composition.gate), made(composition.point))
