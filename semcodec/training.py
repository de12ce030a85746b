"""One training loop for every method.

A recipe is a function ``recipe(job) -> list[Step]`` named by a component's record. A Step says which modules
learn, from which loss, on how many samples; the loop below runs the steps in order, shows progress, writes
checkpoints and resumes. Each step starts from what the one before it left.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from semcodec.data.base import Dataset
from semcodec.errors import SemcodecError, UsageError, WeightsError
from semcodec.selection import Keep

Loss = Callable[["Batch"], tuple[Tensor, dict[str, float]]]


@dataclass
class Batch:
    """One step's samples.

    pixels: float32 in [0, 1], (B, T, 3, H, W) or (B, 3, H, W). labels: int64 (B,).
    rng: draws that a resumed run repeats. sequence: a number for each sample, never used twice in a step.
    """

    pixels: Tensor
    labels: Tensor
    rng: np.random.Generator
    sequence: Sequence[int]


@dataclass
class Step:
    """One stage of a recipe: ``learn`` are the modules whose parameters the optimiser sees; all others are frozen."""

    name: str
    learn: Sequence[nn.Module]
    loss: Loss
    samples: int
    lr: float
    batch: int = 32
    weight_decay: float = 0.05


@dataclass
class Job:
    """What a recipe is given.

    modules: by slot ("encoder", "recoverer", "backbone"), those that have weights.
    dataset: what is trained on. cut: where the backbone is cut.
    keep: by target, the composition's Selector and budget; ``free``: targets whose budget the spec leaves open,
    so that one set of weights is trained for all of ``budgets[target]``.
    ready: slots whose weights were given and need no first training. pretrained: the backbone starts from
    weights of another task.
    """

    modules: Mapping[str, nn.Module]
    dataset: Dataset
    cut: str = "input"
    keep: Keep = field(default_factory=dict)
    budgets: Mapping[str, Sequence[float | int]] = field(default_factory=dict)
    free: frozenset[str] = frozenset()
    ready: frozenset[str] = frozenset()
    pretrained: bool = False
    backbone_recipe: Callable[[Job], list[Step]] | None = None

    def draw(self, rng: np.random.Generator) -> Keep:
        """``keep`` with a random budget for every free target."""
        return {
            target: (selector, rng.choice(self.budgets[target]).item() if target in self.free else budget)
            for target, (selector, budget) in self.keep.items()
        }


def batches(dataset: Dataset, step: Step, seed: int, number: int, start: int) -> Iterator[Batch]:
    """Batches ``start`` and on of step ``number``, prepared one ahead in a thread.

    Order and draws depend on (seed, step, position) alone, so a resumed run sees what an unbroken one would.
    """
    total = math.ceil(step.samples / step.batch)
    queue: Queue[Batch | BaseException | None] = Queue(maxsize=2)
    stop = threading.Event()

    def produce() -> None:
        try:
            per_epoch = max(1, len(dataset) // step.batch)
            for i in range(start, total):
                epoch, place = divmod(i, per_epoch)
                order = np.random.default_rng((seed, number, epoch)).permutation(len(dataset))
                rows = order[place * step.batch : (place + 1) * step.batch]
                rng = np.random.default_rng((seed, number, epoch, place))
                pixels, labels = dataset.batch(rows.tolist())
                if dataset.flips:
                    mirrored = rng.random(len(rows)) < 0.5
                    pixels[mirrored] = pixels[mirrored][..., ::-1, :]
                x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3))).float() / 255
                sequence = range(i * step.batch, i * step.batch + len(rows))
                queue.put(Batch(x, torch.from_numpy(labels), rng, sequence))
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


def rate(step: Step, i: int, total: int) -> float:
    """Learning rate of iteration ``i``: linear warm-up over a twentieth, then a cosine to zero."""
    warm = max(1, total // 20)
    return step.lr * min((i + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * max(0, i - warm) / max(1, total - warm)))


class Checkpoint:
    """Everything a stopped run needs, as safetensors and JSON; written under a temporary name, then renamed."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = folder / "checkpoint.safetensors", fingerprint

    def save(
        self, modules: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer | None, state: dict[str, Any]
    ) -> None:
        tensors = {f"model.{k}": v for k, v in state_dict(modules).items()}
        for i, slots in optimiser.state_dict()["state"].items() if optimiser else ():
            tensors |= {f"optimiser.{i}.{name}": value for name, value in slots.items()}
        metadata = {"state": json.dumps(state), "fingerprint": self.fingerprint}
        write_tensors(self.path, tensors, metadata)

    def load(self) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]], dict[str, Any]] | None:
        """Model tensors, optimiser slots by parameter and the loop's state, or None where there is none."""
        if not self.path.exists():
            return None
        from safetensors import safe_open

        with safe_open(self.path, "pt") as file:
            metadata = file.metadata()
        if metadata["fingerprint"] != self.fingerprint:
            raise UsageError(
                f"{self.path.parent} holds a checkpoint of another run; give another -o or remove {self.path.name}"
            )
        tensors = load_file(self.path)
        slots: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, i, name = key.split(".", 2)
                slots.setdefault(int(i), {})[name] = value
        model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        return model, slots, json.loads(metadata["state"])


def state_dict(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All tensors of several modules, each under its slot's name."""
    return {f"{slot}.{k}": v for slot, m in modules.items() for k, v in m.state_dict().items()}


def load_state(modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    for slot, module in modules.items():
        own = {k.removeprefix(f"{slot}."): v for k, v in tensors.items() if k.startswith(f"{slot}.")}
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            raise WeightsError(f"the checkpoint does not fit the {slot}: {error}") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, dict(metadata))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Progress:
    """One line on stderr, rewritten; nothing where stderr is no terminal."""

    def __init__(self) -> None:
        self.shown = sys.stderr.isatty()
        self.began = time.monotonic()

    def show(self, text: str, done: float) -> None:
        if self.shown:
            left = (time.monotonic() - self.began) * (1 / max(done, 1e-9) - 1)
            print(f"\r\033[K{text}  {100 * done:.0f} %, {left / 60:.1f} min left", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def fit(
    steps: Sequence[Step],
    job: Job,
    out: Path,
    *,
    seed: int = 0,
    fingerprint: str = "",
    every_s: float = 60,
    half: bool = True,
) -> list[dict[str, Any]]:
    """Run ``steps``, resuming from ``out/checkpoint.safetensors`` if a run with the same fingerprint was stopped.

    Appends one JSON line per hundred iterations to ``out/log.jsonl`` and returns the last line of each step.
    ``half`` computes in bfloat16 where autograd can; weights stay float32.
    """
    out.mkdir(parents=True, exist_ok=True)
    modules = job.modules
    checkpoint = Checkpoint(out, fingerprint)
    stopped = checkpoint.load()
    state: dict[str, Any] = {"step": 0, "iteration": 0, "summary": []}
    slots: dict[int, dict[str, Tensor]] = {}
    if stopped:
        tensors, slots, state = stopped
        load_state(modules, tensors)
    progress = Progress()
    device = next(iter(modules.values())).parameters().__next__().device.type
    for number in range(state["step"], len(steps)):
        step = steps[number]
        learn = nn.ModuleList(step.learn)
        for module in modules.values():
            module.requires_grad_(False).eval()
        learn.requires_grad_(True).train()
        parameters = [p for p in learn.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(parameters, lr=step.lr, weight_decay=step.weight_decay, betas=(0.9, 0.98))
        if slots:
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": slots, "param_groups": groups})
            slots = {}
        total = math.ceil(step.samples / step.batch)
        recent: dict[str, list[float]] = {}
        means: dict[str, float] = {}  # stays empty where the run was stopped after a step's last iteration
        saved = began = time.monotonic()
        for i, batch in enumerate(batches(job.dataset, step, seed, number, state["iteration"]), state["iteration"]):
            for group in optimiser.param_groups:
                group["lr"] = rate(step, i, total)
            with torch.autocast(device, torch.bfloat16, enabled=half):
                loss, metrics = step.loss(batch)
            if not torch.isfinite(loss):
                raise SemcodecError(f"step {step.name}: the loss is {loss.item()} at iteration {i}; try a lower learning rate")
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            for name, value in {"loss": loss.item(), **metrics}.items():
                recent.setdefault(name, []).append(value)
            state["iteration"] = i + 1
            means = {name: round(float(np.mean(values[-100:])), 4) for name, values in recent.items()}
            progress.show(f"{step.name} {number + 1}/{len(steps)}  {means}", (i + 1) / total)
            if (i + 1) % 100 == 0 or i + 1 == total:
                line = {"step": step.name, "iteration": i + 1, **means, "seconds": round(time.monotonic() - began, 1)}
                with (out / "log.jsonl").open("a") as log:
                    print(json.dumps(line), file=log)
            if time.monotonic() - saved > every_s:
                checkpoint.save(modules, optimiser, state)
                saved = time.monotonic()
        state["summary"].append({"step": step.name, "samples": step.samples, **means})
        state["step"], state["iteration"] = number + 1, 0
        checkpoint.save(modules, None, state)
    progress.close()
    for module in modules.values():
        module.requires_grad_(False).eval()
    return list(state["summary"])
