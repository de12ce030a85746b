"""One training loop for every method.

A recipe is a function ``recipe(job) -> list[Step]`` named by a component's record. A Step says which modules
learn, from which loss, on how many samples; the loop below runs the steps in order, shows progress, writes
checkpoints and resumes. Each step starts from what the one before it left.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW

from semcodec._files import LineFile
from semcodec._json import to_json
from semcodec._progress import Interrupt, Progress
from semcodec.data.base import Dataset
from semcodec.errors import SemcodecError
from semcodec.pipeline.accelerator import CPU, Accelerator
from semcodec.pipeline.selection import Keep
from semcodec.specs import FeatureSpec
from semcodec.tensors import from_eight_bits
from semcodec.training import processes
from semcodec.training.checkpoint import Checkpoint, Slots, State, load_state, state_dict
from semcodec.types import Features, Partial, TrainableParts

LOG = "log.jsonl"
SMALLEST_CROP = 0.7
"""Of a side, in training."""
Loss = Callable[["Batch"], tuple[Tensor, dict[str, float]]]


@dataclass
class Batch:
    """One step's samples.

    pixels: float32 in [0, 1], (B, T, 3, H, W) or (B, 3, H, W). labels: int64 (B,), or for detectors
    one ``Boxes`` for each sample, in pixels of the input, or masks of the sources, uint8 arrays, in memory.
    rng: draws that a resumed run repeats. sequence: a number for each sample, never used twice in a step.
    share: of the samples of the whole batch, where several processes have one part each.
    """

    pixels: Tensor
    labels: Any
    rng: np.random.Generator
    sequence: Sequence[int]
    share: float = 1.0

    def to(self, there: Accelerator) -> Batch:
        """The same, where networks learn."""
        if there.name == "cpu":
            return self
        return replace(self, pixels=self.pixels.to(there.device), labels=there.put_labels(self.labels))


@dataclass
class Step:
    """One stage of a recipe: ``learn`` are the modules whose parameters the optimiser sees; all others are frozen.

    finish: called after the last sample. A step where nothing learns is there for its ``finish``: its ``loss`` looks
    at the samples, without gradient, and what it has seen is not kept: stopped, it begins anew.
    statistics: whether batch norms go on collecting theirs. Not where batches differ in kind, say in frames: the
    mean of several kinds fits none of them when the model is used.
    smallest_crop: of a side, of data sets that vary. size: height and width that their crops get, where these are not
    the input's.
    """

    name: str
    learn: Sequence[nn.Module]
    loss: Loss
    samples: int
    lr: float
    batch: int = 32
    weight_decay: float = 0.05
    statistics: bool = True
    smallest_crop: float = SMALLEST_CROP
    size: tuple[int, int] | None = None
    finish: Callable[[], None] | None = None

    @property
    def iterations(self) -> int:
        return math.ceil(self.samples / self.batch)


@dataclass(frozen=True)
class Moment:
    """Where a run is, told to ``on_step`` after every iteration, and once more when a step's ``finish`` is done.

    step: its name; number: which it is of all ``steps``, from 0. iteration: how many of ``iterations`` are done;
    before: of the steps before. means: of loss and metrics over the last hundred. rate: the learning rate; 0 where
    nothing learns. finished: whether the step is over, and its modules are as the next one finds them.
    pipeline: makes one of the modules as they are, where a pipeline is trained and the step is over.
    """

    step: str
    number: int
    steps: int
    iteration: int
    iterations: int
    before: int
    means: Mapping[str, float]
    rate: float
    finished: bool = False
    pipeline: Callable[[], Any] | None = None


OnStep = Callable[[Moment], None]


@dataclass
class Job:
    """What a recipe is given.

    modules: by slot ("encoder", "recoverer", "backbone"), those that have weights. task: the backbone's. tails: by
    task, the models that answer a stream for several, of which "backbone" is the first, whose head runs; none of a
    stream for one.
    task_weights: of these, what each answer weighs in training, where that is not 1. needs: by task, how many layers
    of a packet it is answered from, at least. recover: the composition's Recoverer, with weights or without.
    dataset: what is trained on. larger: the same pictures with more of their pixels, which crops are taken from, so
    that they are not blurred. cut: where the backbone is cut. cuts: all of its cuts in order, and the features there.
    call: call parameters of the Encoder that the spec itself sets.
    keep: by target, the composition's Selector and budget; ``free``: targets whose budget the spec leaves open,
    so that one set of weights is trained for all of ``budgets[target]``.
    auxiliary: modules that a recipe needs beside these, a teacher say; checkpointed, and no part of the weights.
    ready: slots whose weights were given and need no first training; ``shipped``: those of them that come with the
    package, so that they are written again only if a step learns them. pretrained: the backbone starts from
    weights of another task. accelerator: where networks are and learn.
    """

    modules: Mapping[str, nn.Module]
    dataset: Dataset
    cut: str = "input"
    cuts: Mapping[str, FeatureSpec] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    keep: Keep = field(default_factory=dict)
    budgets: Mapping[str, Sequence[float | int]] = field(default_factory=dict)
    free: frozenset[str] = frozenset()
    ready: frozenset[str] = frozenset()
    shipped: frozenset[str] = frozenset()
    pretrained: bool = False
    auxiliary: dict[str, nn.Module] = field(default_factory=dict)
    task: str = ""
    tails: Mapping[str, nn.Module] = field(default_factory=dict)
    task_weights: Mapping[str, float] = field(default_factory=dict)
    needs: Mapping[str, int] = field(default_factory=dict)
    recover: Callable[[Partial], Features] | None = None
    backbone_recipe: Callable[[Job], list[Step]] | None = None
    accelerator: Accelerator = CPU
    larger: Dataset | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the model's input; None where that is not known."""
        for shape in self.cuts.get("input", {}).values():
            height, width = shape.shape[-2:]
            if height is not None and width is not None:
                return height, width
        return None

    @cached_property
    def trainable_parts(self) -> TrainableParts:
        """What of the Encoder learns, begun once; densities that are not its own are among the auxiliary modules."""
        encoder: Any = self.modules["encoder"]
        found: TrainableParts = encoder.trainable_parts()
        own = set(encoder.modules())
        self.auxiliary.update({name: density for name, density in found.densities.items() if density not in own})
        self.accelerator.place(*found.densities.values())
        return found

    def draw(self, rng: np.random.Generator) -> Keep:
        """``keep`` with a random budget for every free target."""
        return {
            target: (selector, rng.choice(self.budgets[target]).item() if target in self.free else budget)
            for target, (selector, budget) in self.keep.items()
        }


def batches(
    dataset: Dataset, step: Step, seed: int, number: int, start: int, size: tuple[int, int] | None = None
) -> Generator[Batch, None, None]:
    """Batches ``start`` and on of step ``number``, prepared one ahead in a thread.

    size: height and width that crops get, where they are not those of the data set.
    Order and draws depend on (seed, step, position) alone, so a resumed run sees what an unbroken one would. Of several
    processes each has its part of every batch; where nothing learns, each has all of it.
    """
    queue: Queue[Batch | BaseException | None] = Queue(maxsize=2)
    stop = threading.Event()

    def produce() -> None:
        try:
            per_epoch = max(1, len(dataset) // step.batch)
            for i in range(start, step.iterations):
                epoch, place = divmod(i, per_epoch)
                order = np.random.default_rng((seed, number, epoch)).permutation(len(dataset))
                rows = order[place * step.batch : (place + 1) * step.batch]
                rng = np.random.default_rng((seed, number, epoch, place))
                part = processes.share_of(len(rows)) if step.learn else slice(None)
                pixels, labels = dataset.batch(rows[part].tolist())
                x = from_eight_bits(pixels)
                if dataset.varies:
                    x = varied(x, rng, step.smallest_crop, len(rows), part, size)
                sequence = range(i * step.batch, i * step.batch + len(rows))[part]
                targets = labels if isinstance(labels, list) else torch.from_numpy(labels)
                queue.put(Batch(x, targets, rng, sequence, len(x) / len(rows)))
                if stop.is_set():
                    return
            queue.put(None)
        except BaseException as error:
            queue.put(error)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        while not queue.empty():
            queue.get_nowait()
        thread.join()  # an interpreter that ends while a thread is within torch aborts


def varied(
    pixels: Tensor,
    rng: np.random.Generator,
    smallest: float = SMALLEST_CROP,
    batch: int | None = None,
    part: slice = slice(None),
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Samples (B, ..., 3, H, W) mirrored at random, and cropped at random and resized, each all frames alike.

    batch, part: of how many samples these are which, so that each is varied as in the whole batch. size: height and
    width of what is given; None: as they were.
    """
    count = len(pixels) if batch is None else batch
    scale = rng.uniform(smallest, 1, count)
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0] = scale * rng.choice((-1, 1), count)
    theta[:, 1, 1] = scale
    theta[:, :, 2] = rng.uniform(-1, 1, (count, 2)) * (1 - scale)[:, None]
    flat = pixels.reshape(len(pixels), -1, *pixels.shape[-2:])
    height, width = size or pixels.shape[-2:]
    grid = F.affine_grid(torch.from_numpy(theta[part]), [*flat.shape[:2], height, width], align_corners=False)
    seen = F.grid_sample(flat, grid, padding_mode="reflection", align_corners=False)
    return seen.view(*pixels.shape[:-2], height, width)


def top1(logits: Tensor, labels: Tensor) -> float:
    """Share of samples whose label, int64 (B,), has the largest of their logits (B, classes)."""
    return (logits.argmax(1) == labels).float().mean().item()


def rate(step: Step, i: int, total: int) -> float:
    """Learning rate of iteration ``i``: linear warm-up over a twentieth, then a cosine to zero."""
    warm = max(1, total // 20)
    return step.lr * min((i + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * max(0, i - warm) / max(1, total - warm)))


def fit(
    steps: Sequence[Step],
    job: Job,
    out: Path,
    *,
    seed: int = 0,
    fingerprint: str = "",
    every_s: float = 60,
    half: bool = True,
    on_step: OnStep | None = None,
) -> list[dict[str, Any]]:
    """Run ``steps``, resuming from ``out/checkpoint.safetensors`` if a run with the same fingerprint was stopped.

    Appends one JSON line per hundred iterations to ``out/log.jsonl`` and returns the last line of each step.
    ``half`` computes in bfloat16 where autograd can and the device gains by it; weights stay float32. Ctrl-C saves
    before it stops, as a command's SIGTERM does. Raises UsageError where another process trains into ``out``,
    OSError where the disk is full.
    Several processes (``semcodec.training.processes``) learn together; the first alone writes, shows progress and calls
    ``on_step``, which is told of every iteration and changes nothing; what it raises ends the run.
    """
    first = processes.is_first()
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(out, fingerprint)
    modules = {**job.modules, **job.auxiliary}
    job.accelerator.place(*modules.values(), *(module for step in steps for module in step.learn))
    stopped = processes.from_first(checkpoint.load([step.iterations for step in steps]) if first else None)
    state, slots = State(), Slots()
    if stopped:
        tensors, slots, state = stopped
        load_state(modules, tensors)
    _agree(modules)
    progress = Progress(first)
    with Interrupt() as interrupt, LineFile(out / LOG, out) if first else nullcontext() as log:
        for number in range(state.step, len(steps)):
            step = steps[number]
            optimiser = _optimiser(step, modules)
            if optimiser is None:
                state.iteration = 0
            elif slots:
                checkpoint.resume(optimiser, slots)
            slots = {}
            saved = time.monotonic()
            means: dict[str, float] = {}  # stays empty where the run was stopped after a step's last iteration
            with closing(_iterate(step, number, job, optimiser, seed, state.iteration, half)) as iterations:
                for done, means in iterations:
                    state.iteration = done
                    progress.share(f"{step.name} {number + 1}/{len(steps)}  {means}", done / step.iterations)
                    if log is not None and (done % 100 == 0 or done == step.iterations):
                        log.append(to_json({"step": step.name, "iteration": done, **means}))
                    if first and on_step is not None:
                        on_step(_moment(steps, number, done, means))
                    asked = processes.any_of(interrupt.asked)
                    if first and (asked or time.monotonic() - saved > every_s):
                        checkpoint.save(modules, optimiser, state)
                        saved = time.monotonic()
                    if asked:
                        progress.close()
                        raise interrupt.reason
            if step.finish:
                step.finish()
            if first and on_step is not None:
                on_step(_moment(steps, number, step.iterations, means, finished=True))
            state.summary.append({"step": step.name, "samples": step.samples, **means})
            state.step, state.iteration = number + 1, 0
            _agree(modules)
            if first:
                checkpoint.save(modules, None, state)
    progress.close()
    for module in modules.values():
        module.requires_grad_(False).eval()
    return list(state.summary)


def _moment(
    steps: Sequence[Step], number: int, done: int, means: Mapping[str, float], *, finished: bool = False
) -> Moment:
    step, before = steps[number], sum(one.iterations for one in steps[:number])
    learns = rate(step, max(0, done - 1), step.iterations) if step.learn else 0.0
    return Moment(step.name, number, len(steps), done, step.iterations, before, means, learns, finished)


def _agree(modules: Mapping[str, nn.Module]) -> None:
    """The first process's weights in all of them, to the bit."""
    if processes.count() > 1:
        known = processes.from_first({name: tensor.cpu() for name, tensor in state_dict(modules).items()})
        load_state(modules, known)


def _optimiser(step: Step, modules: Mapping[str, nn.Module]) -> AdamW | None:
    """Freeze all but what the step learns, and optimise that."""
    for module in modules.values():
        module.requires_grad_(False).eval()
    if not step.learn:
        return None
    learn = nn.ModuleList(step.learn)
    learn.requires_grad_(True).train()
    for module in learn.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(step.statistics)
    return AdamW(learn.parameters(), lr=step.lr, weight_decay=step.weight_decay, betas=(0.9, 0.98))


def _iterate(
    step: Step, number: int, job: Job, optimiser: AdamW | None, seed: int, start: int, half: bool
) -> Generator[tuple[int, dict[str, float]], None, None]:
    """Iterations done, and means of loss and metrics over the last hundred, after each."""
    recent: dict[str, deque[float]] = {}
    source = job.dataset if job.larger is None else job.larger
    with closing(batches(source, step, seed, number, start, step.size or job.size)) as ahead:
        for i, read in enumerate(ahead, start):
            batch = read.to(job.accelerator)
            if optimiser is None:
                with torch.no_grad():
                    loss, metrics = step.loss(batch)
            else:
                loss, metrics = _learn(step, batch, optimiser, i, half)
            found = {"loss": loss.item(), **metrics}
            for name, value in (processes.mean_of(found, batch.share) if step.learn else found).items():
                recent.setdefault(name, deque(maxlen=100)).append(value)
            yield i + 1, {name: round(sum(values) / len(values), 4) for name, values in recent.items()}


def _learn(step: Step, batch: Batch, optimiser: AdamW, i: int, half: bool) -> tuple[Tensor, dict[str, float]]:
    """One iteration. Raises SemcodecError for a loss that is not finite."""
    parameters = optimiser.param_groups[0]["params"]
    for group in optimiser.param_groups:
        group["lr"] = rate(step, i, step.iterations)
    there = parameters[0].device
    with torch.autocast(there.type, torch.bfloat16, enabled=half and gains_by_bfloat16(there)):
        loss, metrics = step.loss(batch)
    if not torch.isfinite(loss):
        raise SemcodecError(f"{step.name}: the loss is {loss.item()} at iteration {i}; lower the learning rate")
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    processes.join_gradients(parameters, batch.share)
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    processes.join_statistics(step.learn)
    return loss, metrics


def gains_by_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 by itself; others emulate it, which is slower than float32."""
    if device.type != "cpu":
        return True
    known = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    return any(told is not None and told() for told in known)
