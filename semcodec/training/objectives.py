"""Objectives that any method can be trained by beside its own recipe; none of them knows a method.

``task``: encoder, recoverer and backbone together on L = task loss + lambda * rate, the rate in bits a pixel of the
input as ``Encoder.forward_train`` estimates it (Y. Wang, Learnt Compression for Visual Analytics on the Edge, CfM at
ICME 2023).
``refine``: the backbone alone, on what a codec really decodes, which stays as it is: all that can be done for a codec
that does not learn (ibid.).
``distil``: encoder and recoverer, without labels, on the uncompressed model's own answers, see ``distillation``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semcodec.composition.composition import Composition
from semcodec.composition.registry import import_target
from semcodec.composition.resolution import INPUT
from semcodec.errors import UsageError
from semcodec.interfaces import Encoder
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.stages import Stages
from semcodec.tensors import eight_bits, from_eight_bits
from semcodec.training import distillation
from semcodec.training.feature_steps import end_to_end, layers, model_input, observe, passes, rate_alone
from semcodec.training.loop import Batch, Job, Step

RECIPE, TASK, REFINE, DISTIL = OBJECTIVES = ("recipe", "task", "refine", "distil")
RATE_WEIGHT = 1.0
"""lambda where none is named."""
KILOBYTE = 1.0
"""The same of distillation, which is the weight of a kilobyte at the coarsest operating point."""
PASSES = 4
"""Over the data, of either objective."""
DENSITIES = 2
"""Of densities alone: at the end, and first where the weights to start from have tables in their place."""
BATCH = 8
RateWeight = float | Sequence[float]
TOGETHER, ALONE = 2e-4, 5e-4
"""Learning rates of all and of the backbone alone: a trained codec loses more than it gains at higher ones."""


def task(job: Job, stages: Stages, rate_weight: RateWeight | None) -> tuple[list[Step], float | None]:
    """The steps, and lambda, which is None where training does not set the rate.

    Raises UsageError for an Encoder that does not learn this way, a weight of a rate that nothing tells, or several.
    """
    name = stages.composition.encoder.name
    if not isinstance(rate_weight, int | float | None):
        raise UsageError("--objective task has one lambda: give --rate-weight one number")
    if type(stages.encoder).trainable_parts is Encoder.trainable_parts:
        raise UsageError(
            f"{name} cannot learn for a task together with the backbone; "
            "to train the backbone on what it decodes: --objective refine"
        )
    learning = job.trainable_parts
    told = _tells_its_rate(job)
    if rate_weight is not None and not told:
        raise UsageError(f"{name} has a rate that its parameters set, not training: leave out --rate-weight")
    weight = None if not told else RATE_WEIGHT if rate_weight is None else rate_weight
    densities = learning.densities if told else {}
    begun = [density for name, density in densities.items() if name in job.auxiliary]
    steps = [_fitted(job, begun, "densities")] if begun and "encoder" in job.ready else []
    others = [module for slot, module in job.modules.items() if slot in ("recoverer", "backbone")]
    learn = [*learning.modules, *densities.values(), *others]
    steps.append(end_to_end(
        job, learn, passes(job, PASSES), distil=0.0, rate=weight or 0.0, name="task-aware", lr=TOGETHER, batch=BATCH,
        weight_decay=0.0, statistics=False,
    ))  # fmt: skip
    return _settled(job, steps, list(densities.values())), weight


def distil(
    job: Job, stages: Stages, rate_weight: RateWeight | None, settings: distillation.Settings = distillation.USUAL
) -> tuple[list[Step], RateWeight | None]:
    """The steps, and the weight of a kilobyte at the coarsest operating point, or at each, None where training sets no
    rate.

    A codec without weights first begins as its recipe does, by what learns nothing there, and matches features; what
    the recipe has beside the codec, a picture of what was received, learns last. Raises UsageError for an Encoder that
    does not learn this way, or a weight of a rate that nothing tells.
    """
    name, component = stages.composition.encoder.name, stages.composition.encoder.component
    if type(stages.encoder).trainable_parts is Encoder.trainable_parts:
        raise UsageError(f"{name} does not learn by distillation: --objective refine trains the backbone instead")
    new, learning = "encoder" not in job.ready, job.trainable_parts
    told = _tells_its_rate(job)
    if rate_weight is not None and not told:
        raise UsageError(f"{name} has a rate that its parameters set, not training: leave out --rate-weight")
    recipe = import_target(component.recipe, name)(job) if new and component.recipe is not None else []
    begun = [*takewhile(lambda step: not step.learn, recipe)]
    densities = list(learning.densities.values()) if told else []
    seen = distillation.crops(job, settings)
    if not new and densities:
        begun = [_fitted(job, densities, "densities", **seen)]
    names = (distillation.MATCH, distillation.DISTIL) if new else (distillation.DISTIL,)
    weight: RateWeight = KILOBYTE if rate_weight is None else rate_weight
    steps = _settled(job, [*begun, *distillation.steps(job, weight, names, settings)], densities, **seen)
    return [*steps, *_beside(job, recipe)], weight if told else None


def _beside(job: Job, recipe: Sequence[Step]) -> list[Step]:
    """Of a recipe, the steps in which what learns of the Encoder neither sends nor answers: a picture."""
    encoder, learning = job.modules["encoder"], job.trainable_parts
    travels = {id(p) for module in (*learning.modules, *learning.densities.values()) for p in module.parameters()}
    own = {id(p) for p in encoder.parameters()} - travels
    learned = [(step, {id(p) for module in step.learn for p in module.parameters()}) for step in recipe]
    return [step for step, parameters in learned if parameters and parameters <= own]


def _settled(job: Job, steps: list[Step], densities: Sequence[nn.Module], **seen: Any) -> list[Step]:
    """The same steps with what has to be made of what they learned, densities first fitted to what is sent.

    seen: how much of a sample this fit looks at.
    """
    learning = job.trainable_parts
    if densities:
        steps = [*steps, _fitted(job, densities, "tables", **seen)]
    if learning.see is not None:
        return [*steps, observe(job, learning.see, learning.settle, name="settle")]
    return [replace(step, finish=_after(step.finish, learning.settle)) if step.learn else step for step in steps]


def _after(first: Callable[[], None] | None, then: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        if first is not None:
            first()
        then()

    return both


def _fitted(job: Job, densities: Sequence[nn.Module], name: str, **seen: Any) -> Step:
    """Densities learn fast what the transforms as they are send, which a joint training lets them follow slowly."""
    samples = passes(job, DENSITIES)
    return rate_alone(job, densities, samples, name=name, lr=1e-2, batch=BATCH, weight_decay=0.0, **seen)


def _tells_its_rate(job: Job) -> bool:
    encoder: Any = job.modules["encoder"]
    backbone: Any = job.modules["backbone"]
    with torch.no_grad():
        features = backbone.head(model_input(_one(job)), job.cut)
        return any(bits is not None for _, bits in encoder.forward_train(features, np.random.default_rng(0)))


def _one(job: Job) -> Batch:
    return Batch(from_eight_bits(job.dataset.batch([0])[0]), [], np.random.default_rng(0), [0]).to(job.accelerator)


def refine(job: Job, stages: Stages) -> list[Step]:
    """What of the backbone follows the cut learns from what is restored and recovered of real packets' contents.

    Call parameters that the spec leaves open are drawn for every batch. All samples are sent, whatever a gate says.
    """
    pipeline, backbone = Pipeline.of(stages, accelerator=job.accelerator), stages.backbone
    settings = open_settings(stages.composition)

    def loss(b: Batch) -> tuple[Tensor, dict[str, float]]:
        composition = draw(stages.composition, settings, b.rng)
        selectors = replace(stages.selectors, gate=None)
        there = pipeline.replace(composition=composition, selectors=selectors)
        with torch.no_grad(), torch.autocast(b.pixels.device.type, enabled=False):  # as in use: in float32
            prepared, _, _ = there.device.prepare(eight_bits(b.pixels), b.sequence)
            decoded = there.server.recover(stages.encoder.restore_batch(prepared.latents))
        losses, figures = [], dict[str, float]()
        for rows, features in backbone.collate(decoded):
            labels = b.labels[rows] if torch.is_tensor(b.labels) else [b.labels[row] for row in rows]
            part, found = backbone.task_loss(features, job.cut, labels)
            share = len(rows) / len(decoded)
            losses.append(share * part)
            figures = {name: figures.get(name, 0.0) + share * value for name, value in found.items()}
        return torch.stack(losses).sum(), figures

    assert isinstance(backbone, nn.Module)
    learn = [backbone] if job.cut == INPUT else layers(job, job.cut)
    samples = passes(job, PASSES)
    return [Step(REFINE, learn, loss, samples, ALONE, BATCH, weight_decay=0.0, statistics=False)]


def open_settings(composition: Composition) -> dict[str, list[Any]]:
    """By call parameter that the spec leaves open, the values to draw from: default and usual sweep, where they fit."""
    found = {}
    for param in composition.encoder.component.params:
        if param.name in composition.call and param.name not in composition.given:
            others = [v for v in param.values if v != param.default and _fits(composition, param.name, v)]
            found[param.name] = [param.default, *others]
    return {name: values for name, values in found.items() if len(values) > 1}


def _fits(composition: Composition, name: str, value: Any) -> bool:
    try:
        composition.with_call(**{name: value})
    except UsageError:
        return False
    return True


def draw(composition: Composition, settings: dict[str, list[Any]], rng: np.random.Generator) -> Composition:
    """The composition at one value of each of the settings, drawn alike."""
    chosen = {name: values[rng.integers(len(values))] for name, values in settings.items()}
    named = {name: value for name, value in chosen.items() if value != settings[name][0]}
    return composition.with_call(**named) if named else composition
