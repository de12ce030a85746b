"""The models of a composition, built but untrained."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from semcodec.composition.binding import Bound
from semcodec.composition.composition import Composition
from semcodec.errors import UsageError
from semcodec.interfaces import Backbone, Encoder, EntropyStage, Recoverer
from semcodec.pipeline.light_stages import build_entropy, build_selectors
from semcodec.pipeline.selection import Keep, Selectors
from semcodec.tensors import single_precision


@dataclass(frozen=True)
class Stages:
    """The built stages of a composition, of both ends.

    composition: what they are of, with the shapes that only built Backbones tell.
    backbone: the one whose head runs and, alone, whose tail answers. tails: by name, all that answer, and this.
    models: the Backbones of the Encoder by the parameter that names them, less those that are the ``backbone`` itself.
    """

    composition: Composition
    backbone: Backbone
    encoder: Encoder
    recoverer: Recoverer
    entropy: EntropyStage | None
    selectors: Selectors
    models: Mapping[str, Backbone]
    tails: Mapping[str, Backbone]

    def modules(self) -> dict[str, nn.Module]:
        """By slot, the models that have weights. An Encoder's are those of the Backbones it is given.

        What an Encoder's recipe leaves may be buffers alone: the ranges of a quantiser, a basis.
        """
        encoder = {} if self.composition.models else {"encoder": self.encoder}
        tails = dict(zip(self.composition.slots, self.tails.values(), strict=True))
        slots = {**encoder, **self.models, "recoverer": self.recoverer, **tails}
        return {
            slot: module
            for slot, module in slots.items()
            if isinstance(module, nn.Module) and has_weights(self.composition, slot, module)
        }

    def budgeted(self, composition: Composition) -> Keep:
        """The Selectors that keep units, with the budgets that ``composition`` gives them."""
        return self.selectors.budgeted(composition)


def has_weights(composition: Composition, slot: str, module: nn.Module) -> bool:
    """Whether a slot has weights that are found, loaded and named."""
    fitted = "encoder" if composition.encoder.component.recipe else None
    return bool(module.state_dict() if slot == fitted else list(module.parameters()))


@dataclass(frozen=True)
class Builder:
    """Makes stages one by one, untrained. Initial weights are the same in every process.

    apart: models of the Encoder that are not the Backbone itself, though of the same item: they have other weights.
    named: by slot, the classes of those of several Backbones that know others than ``classes``.
    """

    composition: Composition
    classes: Sequence[str]
    apart: Collection[str] = ()
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def make(self, bound: Bound, *arguments: Any, **others: Any) -> Any:
        """One component, with its build parameters."""
        with torch.random.fork_rng(devices=[]), single_precision():
            torch.manual_seed(0)  # for each anew: what one draws shall not change what another begins with
            made = self.composition.registry.load(bound.component)(*arguments, **{**bound.build, **others})
        if isinstance(made, nn.Module):
            made.requires_grad_(False).eval()
        return made

    def backbone(self, slot: str | None = None) -> Backbone:
        """The Backbone of a slot: left out, the one whose head runs."""
        slot = slot or self.composition.head_slot
        classes = self.named.get(slot, self.classes)
        backbone: Backbone = self.make(self.composition.slots[slot], list(classes))
        return backbone

    def own_models(self) -> list[str]:
        """The Encoder's models, by parameter, that are not the Backbone itself."""
        item = self.composition.weights_key(self.composition.head_slot)
        return [n for n, b in self.composition.models.items() if n in self.apart or b.weights_item != item]

    def model(self, name: str) -> Backbone:
        """One of ``own_models``."""
        backbone: Backbone = self.make(self.composition.models[name], list(self.classes))
        return backbone

    def informed(self, backbones: Mapping[str, Backbone]) -> Builder:
        """The same with the specs that only built Backbones, by slot, tell. Raises UsageError where one tells none."""
        specs = {self.composition.weights_key(slot): model.spec for slot, model in backbones.items() if model.spec}
        composition = self.composition.with_built_specs(specs) if specs else self.composition
        if composition.stages.features is None or composition.stages.restored is None:
            raise UsageError(f"{composition.spec}: a stage does not declare what it takes and gives")
        return replace(self, composition=composition)

    def encoder(self, backbones: Mapping[str, Backbone]) -> Encoder:
        """backbones: by slot, those that were built."""
        first = self.composition.head_slot
        given = {name: backbones.get(name, backbones.get(first)) for name in self.composition.models}
        encoder: Encoder = self.make(self.composition.encoder, self.composition.stages.features, **given)
        return encoder

    def recoverer(self) -> Recoverer:
        """The Recoverer."""
        recoverer: Recoverer = self.make(self.composition.recoverer, self.composition.stages.restored)
        return recoverer

    def build(self) -> Stages:
        """Every stage."""
        slots = {slot: self.backbone(slot) for slot in self.composition.slots}
        models = {name: self.model(name) for name in self.own_models()}
        both = {**slots, **models}
        builder = self.informed(both)
        c, encoder, recoverer = builder.composition, builder.encoder(both), builder.recoverer()
        tails = dict(zip(c.tails, slots.values(), strict=True))
        backbone = next(iter(tails.values()))
        return Stages(c, backbone, encoder, recoverer, build_entropy(c), build_selectors(c), models, tails)


def build(
    composition: Composition,
    classes: Sequence[str],
    apart: Collection[str] = (),
    named: Mapping[str, Sequence[str]] | None = None,
) -> Stages:
    """Make every stage, untrained: see ``Builder``."""
    return Builder(composition, classes, apart, named or {}).build()
