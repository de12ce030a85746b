"""The models of a composition, built but untrained."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from semcodec.composition.binding import Bound
from semcodec.composition.composition import Composition
from semcodec.errors import UsageError
from semcodec.interfaces import Backbone, Encoder, EntropyStage, Recoverer, Selector
from semcodec.pipeline.selection import Keep


@dataclass(frozen=True)
class Stages:
    """The built models of a composition; ``keep``, ``gate`` and ``point`` are the Selectors.

    composition: what they are of, with the shapes that only built Backbones tell.
    models: the Backbones of the Encoder by the parameter that names them, less those that are the ``backbone`` itself.
    """

    composition: Composition
    backbone: Backbone
    encoder: Encoder
    recoverer: Recoverer
    entropy: EntropyStage | None
    keep: Mapping[str, Selector]
    gate: Selector | None
    point: Selector | None
    models: Mapping[str, Backbone]

    def modules(self) -> dict[str, nn.Module]:
        """By slot, the models that have weights. An Encoder's are those of the Backbones it is given.

        What an Encoder's recipe leaves may be buffers alone: the ranges of a quantiser, a basis.
        """
        encoder = {} if self.composition.models else {"encoder": self.encoder}
        slots = {**encoder, **self.models, "recoverer": self.recoverer, "backbone": self.backbone}
        fitted = "encoder" if self.composition.encoder.component.recipe else None
        return {
            slot: module
            for slot, module in slots.items()
            if isinstance(module, nn.Module) and (module.state_dict() if slot == fitted else list(module.parameters()))
        }

    def budgeted(self, composition: Composition) -> Keep:
        """The Selectors with the budgets that ``composition`` gives them."""
        return {target: (self.keep[target], budget) for target, (_, budget) in composition.keep.items()}


def build(composition: Composition, classes: Sequence[str], apart: Collection[str] = ()) -> Stages:
    """Make every stage, untrained. Initial weights are the same in every process.

    apart: models of the Encoder that are not the Backbone itself, though of the same item: they have other weights.
    """

    def made(bound: Bound, *arguments: Any, **others: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for each anew: what one draws shall not change what another begins with
            return composition.registry.load(bound.component)(*arguments, **{**bound.build, **others})

    backbone = made(composition.backbone, list(classes))
    models = {
        name: made(bound, list(classes))
        for name, bound in composition.models.items()
        if name in apart or bound.weights_item != composition.backbone.weights_item
    }
    everything = {"backbone": backbone, **models}
    told = {composition.weights_key(slot): model.spec for slot, model in everything.items() if model.spec}
    if told:
        composition = composition.with_built_specs(told)
    features, restored = composition.stages.features, composition.stages.restored
    if features is None or restored is None:
        raise UsageError(f"{composition.spec}: a stage does not declare what it takes and gives")
    given = {name: everything.get(name, backbone) for name in composition.models}
    stages = Stages(
        composition=composition,
        encoder=made(composition.encoder, features, **given),
        recoverer=made(composition.recoverer, restored),
        backbone=backbone,
        models=models,
        **weightless(composition),
    )
    for module in stages.modules().values():
        module.requires_grad_(False).eval()
    return stages


def weightless(composition: Composition) -> dict[str, Any]:
    """The stages that cost nothing to make."""
    load = composition.registry.load
    entropy, gate, point = composition.entropy, composition.gate, composition.point
    return {
        "entropy": load(entropy.component)(**entropy.build) if entropy else None,
        "keep": {target: load(b.component)(**b.build) for target, (b, _) in composition.keep.items()},
        "gate": load(gate.component)(**gate.build) if gate else None,
        "point": load(point.component)(**point.build) if point else None,
    }
