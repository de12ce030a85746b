"""The models of a composition, built but untrained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from semcodec.composition import Composition
from semcodec.errors import UsageError
from semcodec.interfaces import Backbone, Encoder, EntropyStage, Recoverer, Selector
from semcodec.selection import Keep


@dataclass(frozen=True)
class Stages:
    """The built models of a composition; ``keep`` and ``gate`` are the Selectors."""

    backbone: Backbone
    encoder: Encoder
    recoverer: Recoverer
    entropy: EntropyStage | None
    keep: Mapping[str, Selector]
    gate: Selector | None

    def modules(self) -> dict[str, nn.Module]:
        """By slot, the models that have weights."""
        slots = {"encoder": self.encoder, "recoverer": self.recoverer, "backbone": self.backbone}
        return {slot: m for slot, m in slots.items() if isinstance(m, nn.Module) and any(True for _ in m.parameters())}

    def budgeted(self, composition: Composition) -> Keep:
        """The Selectors with the budgets that ``composition`` gives them."""
        return {target: (self.keep[target], budget) for target, (_, budget) in composition.keep.items()}


def build(composition: Composition, classes: Sequence[str]) -> Stages:
    """Make every stage, untrained. Initial weights are the same in every process."""
    load = composition.registry.load
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = composition.stages.features
        restored = composition.stages.restored
        if features is None or restored is None:
            raise UsageError(f"{composition.spec}: a stage does not declare what it takes and gives")
        # The backbone last: its number of classes shall not change what the others begin with.
        stages = Stages(
            encoder=load(composition.encoder.component)(features, **composition.encoder.build),
            recoverer=load(composition.recoverer.component)(restored, **composition.recoverer.build),
            backbone=load(composition.backbone.component)(list(classes), **composition.backbone.build),
            **weightless(composition),
        )
    for module in stages.modules().values():
        module.requires_grad_(False).eval()
    return stages


def weightless(composition: Composition) -> dict[str, Any]:
    """The stages that cost nothing to make."""
    load = composition.registry.load
    entropy, gate = composition.entropy, composition.gate
    return {
        "entropy": load(entropy.component)(**entropy.build) if entropy else None,
        "keep": {target: load(b.component)(**b.build) for target, (b, _) in composition.keep.items()},
        "gate": load(gate.component)(**gate.build) if gate else None,
    }
