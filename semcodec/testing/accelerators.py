"""The check that a component runs on an accelerator as it does on the CPU, of every kind that computes with tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from semcodec.errors import SemcodecError, UsageError
from semcodec.interfaces import Encoder
from semcodec.pipeline.accelerator import WORDS, Accelerator
from semcodec.tasks.table import get_task
from semcodec.testing import backbones, recoverers, selectors
from semcodec.testing.cases import Case, cases
from semcodec.testing.subject import Subject, require, skip_unless
from semcodec.testing.tensors import copied, has_parameters, weighed
from semcodec.types import Partial

TOLERANCE = 1e-2
"""Relative and absolute, between devices, which compute with other kernels and maybe fewer bits."""

T = TypeVar("T")


def accelerator_here() -> Accelerator | None:
    """The first accelerator that torch finds on this machine."""
    for word in WORDS:
        with suppress(UsageError):
            found = Accelerator.find(word)
            if found.name != "cpu":
                return found
    return None


def check_accelerator(subject: Subject) -> None:
    """On an accelerator, where one is here, it computes what it does on the CPU; a packet of one decodes on the other.

    What learns through ``forward_train`` or ``task_loss`` has a gradient there.
    """
    there = accelerator_here()
    skip_unless(there is not None, "torch finds no accelerator here")
    assert there is not None
    CHECKS[subject.component.kind](subject, there)


def check_encoder(subject: Subject, there: Accelerator) -> None:
    """At the defaults, around every backbone that takes it: packets both ways, and one step of training."""
    for case in cases(subject):
        if case.setting:
            continue
        with case.name_failures():
            moved = case.on(there)
            for at in (case, moved):
                [latent] = at.prepare(1).latents
                data = at.pack(latent).data
                [(_, wanted)], [(_, found)] = case.receive(data), moved.receive(data)
                what = f"what is restored on {there.name}"
                _require_close(found.features, wanted.features, what)
                _require_close(found.present, wanted.present, what)
            pixels = case.pixels(2)
            moved.pipeline.decode_batch(moved.pipeline.records(moved.pipeline.encode_batch(pixels, [0, 1])))
            moved.pipeline.device.figures(pixels)
            _train_encoder(moved, there)


def _train_encoder(case: Case, there: Accelerator) -> None:
    """One step, where the Encoder can be trained so without its recipe."""
    own = type(case.encoder).forward_train is not Encoder.forward_train
    if not (own and has_parameters(case.encoder)) or case.composition.models:
        return
    learner = _moved(case.encoder, there)
    assert isinstance(learner, nn.Module)
    features = case.features(2, whole=True)
    learner.requires_grad_(True).train()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        try:
            if type(learner).trainable_parts is not Encoder.trainable_parts:
                parts = learner.trainable_parts()
                there.place(*parts.modules, *parts.densities.values())
            coded = learner.forward_train(features, np.random.default_rng(0))
        except SemcodecError:  # it waits for its recipe
            return
        losses = [weighed(partial.features) for partial, _ in coded]
        losses += [bits.sum() for _, bits in coded if bits is not None]
        _descend(learner, torch.stack(losses).sum())


def check_backbone(subject: Subject, there: Accelerator) -> None:
    """Head, tail and, where it has parameters, the gradient of its loss."""
    backbone, spec = backbones.built(subject)
    moved = _moved(backbone, there)
    given = there.put(backbones.pixels_for(spec, backbones.EACH))
    for cut in backbones.some(spec):
        features, answer = backbones.through(subject)[cut]
        with torch.inference_mode():
            found = moved.head(copied(given), cut)
            _require_close(found, features, f"the head's output at {cut} on {there.name}")
            told = moved.tail(found, cut)
        _require_close({"answer": told}, {"answer": answer}, f"the tail at {cut} on {there.name}")
    if has_parameters(moved):
        assert isinstance(moved, nn.Module)
        labels = there.put_labels(get_task(spec.task).example_labels(backbones.EACH))
        moved.requires_grad_(True).train()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            _descend(moved, moved.task_loss(moved.head(copied(given), "input"), "input", labels)[0])


def check_recoverer(subject: Subject, there: Accelerator) -> None:
    """Features with gaps, of every stand-in that it takes."""
    for recoverer, taken, _ in recoverers.cases(subject):
        moved = _moved(recoverer, there)
        for given in recoverers.partials(taken, 2):
            with torch.inference_mode():
                wanted = recoverer.recover(Partial(copied(given.features), copied(given.present)))
                found = moved.recover(Partial(there.put(given.features), there.put(given.present)))
            _require_close(found, wanted, f"what is recovered on {there.name}")


def check_selector(subject: Subject, there: Accelerator) -> None:
    """The same choices, given back where the scores or predictions are."""
    abilities = subject.component.traits.get("abilities", ())
    skip_unless("point" not in abilities, "computes with no tensors")
    for selector, budget in selectors.each(subject):
        if "keep" in abilities:
            for what, scores in selectors.score_tables().items():
                mask = selector.keep(there.put({"scores": scores})["scores"], budget, selectors.NUMBERS)
                _require_choice(mask, selector.keep(scores, budget, selectors.NUMBERS), there, what)
        else:
            for what, logits in selectors.logit_tables().items():
                found = selector.gate(there.put({"logits": logits})["logits"])
                _require_choice(found, selector.gate(logits), there, what)


CHECKS: Mapping[str, Callable[[Subject, Accelerator], None]] = {
    "backbone": check_backbone,
    "encoder": check_encoder,
    "recoverer": check_recoverer,
    "selector": check_selector,
}
"""By kind; an entropy stage has to do with integers of the CPU alone."""


def _moved(instance: T, there: Accelerator) -> T:
    """A copy on the accelerator, whose weights are the same."""
    copy = deepcopy(instance)
    there.place(copy)
    return copy


def _descend(learner: nn.Module, loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
    grads = [p.grad for p in learner.parameters() if p.grad is not None]
    require(grads and all(bool(torch.isfinite(grad).all()) for grad in grads), "a gradient is missing or not finite")


def _require_close(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    require(found.keys() == wanted.keys(), f"{what} has other names than on the CPU")
    for name, tensor in wanted.items():
        a, b = found[name].detach().cpu().double(), tensor.detach().cpu().double()
        equal = a.shape == b.shape and torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)
        require(equal, f"{what}: {name} is not what the CPU makes of it")


def _require_choice(found: Tensor, wanted: Tensor, there: Accelerator, what: str) -> None:
    require(found.device == there.device, f"{what}: given back on {found.device}, not where it was asked")
    require(torch.equal(found.cpu(), wanted), f"{what}: chooses otherwise than on the CPU")
