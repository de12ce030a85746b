"""What ``semcodec train`` does: from a spec and data to a weights file and its card."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from semcodec._files import whole_file
from semcodec._json import to_json
from semcodec._version import __version__
from semcodec.component import Component
from semcodec.composition.binding import Bound
from semcodec.composition.composition import compose_spec, resolve_backbone
from semcodec.composition.grammar import parse
from semcodec.composition.registry import get_registry, import_target
from semcodec.data.base import Dataset, Digest
from semcodec.data.chosen import ChosenClasses
from semcodec.data.datasets import open_dataset, open_unlabelled
from semcodec.data.remembered import Remembered
from semcodec.errors import UsageError, WeightsError
from semcodec.pipeline import shared_heads, weights
from semcodec.pipeline.accelerator import Accelerator, Where
from semcodec.pipeline.loading import class_names
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.repositories import is_named
from semcodec.pipeline.stages import Stages, build
from semcodec.pipeline.tensor_files import write_tensors
from semcodec.specs import InputRequest
from semcodec.tasks.table import get_task
from semcodec.tensors import single_precision
from semcodec.training import objectives, processes
from semcodec.training.checkpoint import CHECKPOINT, load_state, state_dict
from semcodec.training.distillation import USUAL, Settings
from semcodec.training.feature_steps import backbone_first
from semcodec.training.loop import LOG, Job, OnStep, Step, fit
from semcodec.training.objectives import DISTIL, OBJECTIVES, RECIPE, REFINE, TASK, RateWeight

WEIGHTS, CARD = "weights.safetensors", "card.json"
WRITTEN = (WEIGHTS, CARD, CHECKPOINT, LOG)
"""All that is left in the folder of a run."""
LARGER = 1.25
"""Sides of pictures that crops are taken from, over those of the model's input, in distillation."""
DIGESTED = 64  # samples that name the training data, beside its size and classes


@single_precision()
def train(
    spec: str,
    data: str,
    out: str | Path,
    *,
    request: weights.WeightsRequest | None = None,
    classes: Sequence[str] | None = None,
    init: str | None = None,
    objective: str = RECIPE,
    rate_weight: RateWeight | None = None,
    until: str | None = None,
    scale: float = 1.0,
    samples: Mapping[str, int] | None = None,
    seed: int = 0,
    device: Where = "cpu",
    task_weights: Mapping[str, float] | None = None,
    distillation: Settings = USUAL,
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Train what ``spec`` names, a pipeline or a Backbone alone, by its recipe or another objective; returns the card.

    objective: "recipe", or one of ``semcodec.training.objectives`` for a pipeline. rate_weight: lambda of "task" and
    of "distil", of which it may be one for each operating point.
    classes: those whose boxes are learned, where these are not all. init: weights of another task that the Backbone
    starts from, or of "distil" the Encoder. until: the recipe's last step to run.
    task_weights: of a stream for several tasks, what each weighs beside the others, where that is not 1.
    scale: multiplies every step's samples. samples: of steps by name, in place of the recipe's, 0 to leave one out.
    distillation: settings of "distil". device: where networks learn, as of ``Device.load``. on_step: is told of
    every iteration, see ``Moment``; ``semcodec.training.watch`` has one for TensorBoard.
    Writes ``weights.safetensors`` (float16) and ``card.json`` into ``out``; a stopped run goes on where it was
    when called again with the same arguments, on any device and any number of processes that ``torchrun`` starts.
    Raises UsageError for a spec with nothing to train.
    """
    processes.begin()
    there = Accelerator.find(processes.own(device))
    out = Path(out)
    request = request or weights.WeightsRequest()
    alone = len(parse(spec).items) == 1 and _is_backbone(spec)
    _check(objective, rate_weight, spec if alone else None)
    if not 0 < scale < math.inf:
        raise UsageError(f"samples are multiplied by more than 0, not {scale}")
    if distillation != USUAL and objective != DISTIL:
        raise UsageError("settings of distillation are of --objective distil: leave them out")
    stages: Stages | None = None
    if alone:
        job, keys, component, canonical = _backbone_job(spec, data)
    else:
        job, keys, component, canonical, stages = _pipeline_job(spec, data, request, objective)
    if classes is not None:
        job = replace(job, dataset=ChosenClasses(job.dataset, classes))
    if init is not None and objective == DISTIL:
        encoder = job.modules.get("encoder")
        if encoder is None:
            raise UsageError(f"{spec}: its encoder has no weights to start from; leave out --init")
        tensors = weights.read_tensors(weights.named_file(init, request.offline), "encoder.")
        adapt = getattr(encoder, "adapt_init", dict)
        weights.fill(encoder, adapt(tensors), init)
        job = replace(job, ready=job.ready | {"encoder"})
    elif init is not None:
        backbone = job.modules["backbone"]
        adapt = getattr(backbone, "adapt_init", None)
        if adapt is None:
            raise UsageError(f"{spec}: its backbone starts from no other model's weights; leave out --init")
        weights.fill(backbone, adapt(weights.read_tensors(weights.named_file(init, request.offline))), init)
        job = replace(job, pretrained=True, ready=job.ready - {"backbone"})
    if task_weights:
        job = replace(job, task_weights=_task_weights(job, task_weights))
    there.place(*job.modules.values(), *job.tails.values())
    if stages is not None:
        there.place(stages.encoder, stages.recoverer)
    job = replace(job, accelerator=there)
    told: dict[str, Any] = {}
    if stages is not None and objective != RECIPE:
        steps, told = _objective(objective, job, stages, rate_weight, distillation)
    elif component.recipe is None:
        raise UsageError(f"{component.name} has nothing to train; to train a backbone, name it alone")
    else:
        steps = import_target(component.recipe, component.name)(job)
    if until is not None:
        steps = steps[: _place(steps, until) + 1]
    steps = _sized(steps, samples or {}, scale)
    learned = {id(parameter) for step in steps for module in step.learn for parameter in module.parameters()}
    # What an objective makes is one whole: its backbone is of use to this encoder alone.
    # Distillation leaves the backbone as it is, whose weights the card names.
    whole = weights.SLOTS if objective in (TASK, REFINE) else ()
    frozen = ("backbone",) if objective == DISTIL else ()
    written = {
        slot: module
        for slot, module in job.modules.items()
        if slot not in frozen
        and (slot not in job.shipped or slot in whole or any(id(p) in learned for p in module.parameters()))
    }
    card: dict[str, Any] = {
        "spec": canonical,
        "keys": {slot: key for slot, key in keys.items() if slot in written or slot in whole},
        **told,
        "classes": list(stages.backbone.classes if stages and frozen else job.dataset.classes),
        "data": _without_folders(data),
        **({} if classes is None else {"counted": list(classes)}),
        **_told_of_tasks(job),
        "data_digest": _digest(job.dataset),
        "seed": seed,
        "init": None if init is None else _without_folders(init),
        "recipe": [
            {"step": s.name, "samples": s.samples, "batch": s.batch, "lr": s.lr, "weight_decay": s.weight_decay}
            for s in steps
        ],
        "license": _license(component, stages) if objective != RECIPE else component.license,
        "versions": {"semcodec": __version__, "torch": torch.__version__},
    }
    start = weights.digest(state_dict(job.modules))
    fingerprint = hashlib.sha256(to_json([card, start], sort_keys=True).encode()).hexdigest()[:16]
    there.forget_peak()
    watched = None if on_step is None else _with_pipeline(on_step, stages, there)
    larger = None if job.larger is None else Remembered(job.larger)
    remembering = replace(job, dataset=Remembered(job.dataset), larger=larger)
    card["metrics"] = fit(steps, remembering, out, seed=seed, fingerprint=fingerprint, on_step=watched)
    card |= there.describe()
    if processes.is_first():
        save(written, card, out, _shared(component) if alone else None)
    processes.from_first(None)  # nobody goes on before the files are there
    return card


def _place(steps: Sequence[Step], name: str) -> int:
    """Where the step of this name is among a recipe's. Raises UsageError where there is none."""
    names = [step.name for step in steps]
    if name not in names:
        raise UsageError(f"this recipe has no step {name!r}; its steps are {', '.join(names)}")
    return names.index(name)


def _sized(steps: Sequence[Step], samples: Mapping[str, int], scale: float) -> list[Step]:
    """Steps with the samples that were asked for, at least a batch. Raises UsageError for those that there are not."""
    for name, count in samples.items():
        _place(steps, name)
        if count < 0:
            raise UsageError(f"{name}={count}: a step sees at least 0 samples, which leaves it out")
    kept = [step for step in steps if samples.get(step.name, 1)]
    if not kept:
        raise UsageError(f"nothing is left to train: give one of {', '.join(step.name for step in steps)} samples")
    for step in kept:
        step.samples = max(step.batch, round(scale * samples.get(step.name, step.samples)))
    return kept


def _without_folders(named: str) -> str:
    """How a card names data and weights, which others read: a path by its last part, a name as it is."""
    return named if is_named(named) else Path(named).name or named


def _with_pipeline(on_step: OnStep, stages: Stages | None, there: Accelerator) -> OnStep:
    """The hook, told also how to make a pipeline of the modules where a step is over: by then nothing learns."""
    if stages is None:
        return on_step

    def made() -> Pipeline:
        for module in stages.modules().values():
            module.requires_grad_(False).eval()
        return Pipeline.of(stages, accelerator=there)

    return lambda moment: on_step(replace(moment, pipeline=made) if moment.finished else moment)


def save(
    modules: dict[str, nn.Module] | Any,
    card: dict[str, Any],
    out: Path,
    shares: tuple[str, Sequence[str]] | None = None,
) -> None:
    """``weights.safetensors`` at half precision and ``card.json``, each complete or not there.

    shares: a Backbone, and the beginnings of what is left out where it is the same as what ships of that one.
    """
    tensors = {k: _narrowed(v) for k, v in state_dict(modules).items()}
    rounded = deepcopy(dict(modules))  # the card names what a reader of the file will have
    load_state(rounded, tensors)
    card |= weights.name_weights(rounded)
    owner, beginnings = shares or ("", ())
    others = weights.shared(owner, beginnings) if owner else {}
    if others and all(torch.equal(tensors[name].float(), tensor.float()) for name, tensor in others.items()):
        tensors = {name: tensor for name, tensor in tensors.items() if name not in others}
        card["shares"] = {owner: list(beginnings)}
    write_tensors(out / WEIGHTS, tensors, {weights.METADATA: to_json(card)})
    with whole_file(out / CARD) as file:
        file.write((to_json(card, indent=2) + "\n").encode())


def _shared(backbone: Component) -> tuple[str, list[str]] | None:
    """Another Backbone that ships weights which may be this one's too, and how these begin in files."""
    if "shares" not in backbone.traits:
        return None
    owner, beginnings = backbone.traits["shares"]
    return owner, [f"backbone.{beginning}" for beginning in beginnings]


def _narrowed(tensor: torch.Tensor) -> torch.Tensor:
    """Floats at half precision, unless too large for it, and integers of 32 bits in 16 where they fit."""
    if tensor.dtype == torch.int32:
        short = tensor.to(torch.int16)
        return short if torch.equal(short.to(torch.int32), tensor) else tensor
    half = tensor.half()
    return half if tensor.is_floating_point() and half.isfinite().all() else tensor


def _is_backbone(spec: str) -> bool:
    return "backbone" in get_registry().kinds(parse(spec).items[0].name)


def _backbone_job(spec: str, data: str) -> tuple[Job, dict[str, str], Any, str]:
    resolved = resolve_backbone(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classes = open_dataset(data, "train", task=resolved.task).classes
        module = get_registry().load(resolved.bound.component)(classes, **resolved.bound.build)
    source = resolved.spec or module.spec
    dataset = open_dataset(data, "train", InputRequest.of(source))
    job = Job({"backbone": module}, dataset)
    return job, {"backbone": resolved.bound.weights_item}, resolved.bound.component, str(resolved.bound.item)


def _pipeline_job(
    spec: str, data: str, request: weights.WeightsRequest, objective: str
) -> tuple[Job, dict[str, str], Any, str, Stages]:
    composition = compose_spec(spec)
    request.check(composition)
    name = composition.encoder.name
    if composition.encoder.component.recipe is None and objective == RECIPE:
        raise UsageError(
            f"{name} has nothing to train; for the backbone alone: semcodec train {composition.backbone.item}; "
            f"on what {name} decodes: --objective refine"
        )
    several = len(composition.tails) > 1
    if several and objective != DISTIL:
        raise UsageError(f"{composition.spec} is for several tasks, which are learned together by --objective distil")
    distils = objective == DISTIL
    named: dict[str, Sequence[str]] = {}
    if distils:  # the classes are those that the teacher knows, whatever those of the data are
        for slot in composition.slots:
            teacher = weights.find(composition, slot, request, alone=True)
            named[slot] = class_names(composition, teacher, None, slot)
        classes = named[composition.head_slot]
    else:
        classes = open_dataset(data, "train", task=composition.task).classes
    stages = build(composition, classes, request.given, named)
    composition, modules = stages.composition, stages.modules()
    tails = _fill_tails(stages, request) if several else {}
    assert composition.request is not None
    dataset = (open_unlabelled if distils else _open_labelled)(data, composition.request)
    ready, shipped = set(), set()
    if several:  # all backbones are ready, and the first of them is what recipes know
        modules = {slot: module for slot, module in modules.items() if slot not in composition.slots}
        ready, shipped = {"backbone"}, {"backbone"}
    for slot, module in modules.items():
        # A backbone that knows these classes is the start; a recipe's other slots start anew unless theirs are named.
        asked = slot == "backbone" or slot in request.given or objective != RECIPE
        alone = objective == RECIPE or (distils and slot == "backbone")
        found = weights.find(composition, slot, request, alone=alone) if asked else None
        if found and (slot != "backbone" or distils or found.classes == dataset.classes or slot in request.given):
            weights.load(module, found)
            ready.add(slot)
            shipped |= {slot} if found.shipped else set()
    if several:
        modules["backbone"] = next(iter(tails.values()))
    recipe = composition.backbone.component.recipe
    job = Job(
        modules=modules,
        task=get_task(composition.task).name,
        tails=tails,
        needs=composition.layered_tasks if several else {},
        dataset=dataset,
        larger=_larger(data, composition.request) if distils and dataset.varies else None,
        recover=stages.recoverer.recover,
        cut=composition.cut,
        cuts=composition.source.cuts if composition.source else {},
        call={name: value for name, value in composition.call.items() if name in composition.given},
        keep=stages.budgeted(composition),
        budgets={p.name: p.values for p in composition.encoder.component.params},
        free=frozenset(t for t, (b, _) in composition.keep.items() if _obeys(b) and t not in composition.given),
        ready=frozenset(ready),
        shipped=frozenset(shipped),
        backbone_recipe=import_target(recipe, composition.backbone.name) if recipe else None,
    )
    keys = {slot: composition.weights_key(slot) for slot in ("encoder", *modules) if not several or slot != "backbone"}
    return job, keys, composition.encoder.component, composition.spec, stages


def _fill_tails(stages: Stages, request: weights.WeightsRequest) -> dict[str, nn.Module]:
    """By task, the backbones of several with their weights, which share a head. Raises WeightsError."""
    c = stages.composition
    found: dict[str, nn.Module] = {}
    for slot, task, tail in zip(c.slots, c.tasks, stages.tails.values(), strict=True):
        assert isinstance(tail, nn.Module)
        source = weights.find(c, slot, request, alone=True)
        if source is None:
            raise WeightsError(
                f"no weights for {c.weights_key(slot)}, which teaches here: give --weights {slot}=PATH, or train them "
                "with semcodec train"
            )
        weights.load(tail, source)
        found[get_task(task).name] = tail
    shared_heads.compare(c, stages.tails)
    return found


def _task_weights(job: Job, given: Mapping[str, float]) -> dict[str, float]:
    if not job.tails:
        raise UsageError("weights of tasks are for a spec with several backbones: leave out --task-weight")
    for task, weight in given.items():
        if task not in job.tails:
            raise UsageError(f"--task-weight {task}={weight:g}: the spec has the tasks {', '.join(job.tails)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise UsageError(f"the weight of a task is a number of at least 0, not {weight}")
    found = {task: given.get(task, 1.0) for task in job.tails}
    if not any(found.values()):
        raise UsageError("all tasks weigh nothing: leave one of them its weight")
    return found


def _told_of_tasks(job: Job) -> dict[str, Any]:
    """What a card says of the tasks that were learned together: the teachers' digests, the weights and the layers."""
    if not job.tails:
        return {}
    return {
        "tasks": {
            task: {
                "teacher": weights.digest(tail.state_dict()),
                "weight": job.task_weights.get(task, 1.0),
                **({"layers": job.needs[task]} if task in job.needs else {}),
            }
            for task, tail in job.tails.items()
        }
    }


def _objective(
    objective: str, job: Job, stages: Stages, rate_weight: RateWeight | None, settings: Settings
) -> tuple[list[Step], dict[str, Any]]:
    """Steps of an objective, after those that make what has no weights to start from, and what a card says of it."""
    if not len(job.dataset):
        raise UsageError(f"{job.dataset.name} has no samples to train on: give a data set that has some")
    if objective == DISTIL:
        if "backbone" not in job.ready and "backbone" in job.modules:
            raise WeightsError(
                f"no weights for {stages.composition.weights_key('backbone')}, which teaches here: give --weights "
                "backbone=PATH, or train them with semcodec train"
            )
        steps, weight = objectives.distil(job, stages, rate_weight, settings)
        named = weights.digest(job.modules["backbone"].state_dict()) if "backbone" in job.modules else None
        if job.tails:
            named = None  # each by its task, in "tasks"
        head = shared_heads.name_head(stages.composition, stages.backbone)
        others = {"head": head, "rate_weight": weight, "distillation": settings.told() or None}
        known = {name: value for name, value in others.items() if value is not None}
        return steps, {"objective": objective, "teacher": named, **known}
    _, labels = job.dataset.batch(range(min(DIGESTED, len(job.dataset))))
    get_task(stages.composition.task).check_labels(job.dataset.name, labels)
    composition, component = stages.composition, stages.composition.encoder.component
    missing = [slot for slot in job.modules if slot != "backbone" and slot not in job.ready]
    told: dict[str, Any] = {"objective": objective}
    if objective == TASK:
        steps, weight = objectives.task(job, stages, rate_weight)
        told |= {} if weight is None else {"rate_weight": weight}
    elif missing:
        raise WeightsError(
            f"no weights for {composition.weights_key(missing[0])}, which refine leaves as it is: give --weights "
            f"{missing[0]}=PATH, or train them with semcodec train {composition.spec}"
        )
    else:
        steps = objectives.refine(job, stages)
    if missing and component.recipe is not None:
        return [*import_target(component.recipe, component.name)(job), *steps], told
    return [*backbone_first(job), *steps], told


def _larger(data: str, request: InputRequest) -> Dataset | None:
    """The pictures that crops are taken from; None where the whole input is wanted, and of clips."""
    if request.kind != "image" or request.fit != "crop":
        return None
    height, width = (round(LARGER * side) for side in (request.height, request.width))
    return open_unlabelled(data, replace(request, height=height, width=width, crop=1.0))


def _open_labelled(data: str, request: InputRequest) -> Dataset:
    return open_dataset(data, "train", request)


def _check(objective: str, rate_weight: RateWeight | None, backbone: str | None) -> None:
    if objective not in OBJECTIVES:
        raise UsageError(f"an objective is one of {', '.join(OBJECTIVES)}, not {objective!r}")
    if backbone is not None and objective != RECIPE:
        raise UsageError(
            f"--objective {objective} is for a codec and a backbone: name an encoder too, as in jpeg+{backbone}"
        )
    if rate_weight is not None and objective not in (TASK, DISTIL):
        raise UsageError("--rate-weight is lambda of --objective task or distil, and of nothing else: leave it out")
    for weight in [rate_weight] if isinstance(rate_weight, int | float) else rate_weight or ():
        if not (math.isfinite(weight) and weight >= 0):
            raise UsageError(f"the weight of the rate is a number of at least 0, not {weight}")


def _license(encoder: Component, stages: Stages | None) -> str:
    """Of all that the weights hold."""
    others = [stages.composition.backbone.component, stages.composition.recoverer.component] if stages else []
    return " AND ".join(sorted({component.license for component in (encoder, *others)}))


def _obeys(bound: Bound) -> bool:
    return bool(bound.component.traits.get("budget"))


def _digest(dataset: Dataset) -> str:
    digest = Digest()
    rows: Sequence[int] = range(min(DIGESTED, len(dataset)))
    digest.update(*dataset.batch(rows))
    text = f"{digest.hexdigest()} {len(dataset)} {' '.join(dataset.classes)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
