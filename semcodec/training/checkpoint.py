"""What a stopped training run needs to go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from semcodec._json import to_json
from semcodec._typed import convert, read_json
from semcodec.errors import UsageError, WeightsError, first_line
from semcodec.pipeline.tensor_files import write_tensors
from semcodec.pipeline.weights import fill

CHECKPOINT = "checkpoint.safetensors"
Count = Annotated[int, msgspec.Meta(ge=0)]


class Metadata(msgspec.Struct):
    """A checkpoint's metadata. state: ``State`` in JSON."""

    fingerprint: str
    state: str


class State(msgspec.Struct):
    """Where the loop is: in which step, after how many of its iterations, and the last line of each step before."""

    step: Count = 0
    iteration: Count = 0
    summary: list[dict[str, str | int | float | None]] = []


Slots = dict[int, dict[str, Tensor]]
"""What an optimiser knows of each parameter, by its place."""


class Checkpoint:
    """Everything a stopped run needs, as safetensors and JSON; written under a temporary name, then renamed."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = folder / CHECKPOINT, fingerprint

    def save(self, modules: Mapping[str, nn.Module], optimiser: Optimizer | None, state: State) -> None:
        tensors = {f"model.{k}": v for k, v in state_dict(modules).items()}
        for i, slots in optimiser.state_dict()["state"].items() if optimiser else ():
            tensors |= {f"optimiser.{i}.{name}": value for name, value in slots.items()}
        metadata = {"state": to_json(msgspec.to_builtins(state)), "fingerprint": self.fingerprint}
        write_tensors(self.path, tensors, metadata)

    def load(self, steps: Sequence[int]) -> tuple[dict[str, Tensor], Slots, State] | None:
        """Model tensors, optimiser slots by parameter and the loop's state, or None where there is none.

        steps: the iterations of each. Raises WeightsError for a file that is damaged, UsageError for another run's.
        """
        if not self.path.exists():
            return None
        try:
            return self._read(steps)
        except (SafetensorError, OSError, ValueError) as error:
            raise self._damaged(first_line(error)) from error

    def _read(self, steps: Sequence[int]) -> tuple[dict[str, Tensor], Slots, State]:
        if not self.path.is_file():
            raise ValueError("it is no file")
        with safe_open(self.path, "pt") as file:
            metadata = convert(file.metadata() or {}, Metadata)
            if metadata.fingerprint != self.fingerprint:
                raise UsageError(
                    f"{self.path.parent} holds a checkpoint of another run; give another -o or remove {self.path.name}"
                )
            state = read_json(metadata.state, State)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if state.step > len(steps) or state.iteration > (*steps, 0)[state.step] or len(state.summary) != state.step:
            raise ValueError(f"it is at iteration {state.iteration} of step {state.step + 1}")
        slots: Slots = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                i, _, name = key.removeprefix("optimiser.").partition(".")
                slots.setdefault(int(i), {})[name] = value
        return {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}, slots, state

    def resume(self, optimiser: Optimizer, slots: Slots) -> None:
        """Give an optimiser what it knew when it was stopped. Raises WeightsError where that is of other parameters."""
        groups = optimiser.state_dict()["param_groups"]
        sizes = dict(zip(groups[0]["params"], optimiser.param_groups[0]["params"], strict=True))
        for i, known in slots.items():
            shapes = (
                {"step": torch.Size(), "exp_avg": sizes[i].shape, "exp_avg_sq": sizes[i].shape} if i in sizes else {}
            )
            if {name: value.shape for name, value in known.items()} != shapes:
                raise self._damaged(f"what its optimiser knows does not fit parameter {i}")
            steps, squares = float(known["step"]), known["exp_avg_sq"]
            finite = all(bool(torch.isfinite(value).all()) for value in known.values())
            if not (finite and steps >= 1 and bool((squares >= 0).all())):
                raise self._damaged(f"what its optimiser knows of parameter {i} cannot be")
        optimiser.load_state_dict({"state": slots, "param_groups": groups})

    def _damaged(self, why: str) -> WeightsError:
        return WeightsError(f"{self.path} is no readable checkpoint ({why}); remove it to begin the run anew")


def state_dict(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All tensors of several modules, each under its slot's name."""
    return {f"{slot}.{k}": v for slot, m in modules.items() for k, v in m.state_dict().items()}


def load_state(modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Fill modules with what ``state_dict`` gave. Raises WeightsError where it is of other modules."""
    for slot, module in modules.items():
        own = {k.removeprefix(f"{slot}."): v for k, v in tensors.items() if k.startswith(f"{slot}.")}
        fill(module, own, f"the checkpoint's {slot}")
