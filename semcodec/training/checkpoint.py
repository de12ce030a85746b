"""What a stopped training run needs to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from semcodec._json import to_json
from semcodec.errors import UsageError, WeightsError, first_line
from semcodec.pipeline.tensor_files import write_tensors

CHECKPOINT = "checkpoint.safetensors"


class Checkpoint:
    """Everything a stopped run needs, as safetensors and JSON; written under a temporary name, then renamed."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = folder / CHECKPOINT, fingerprint

    def save(self, modules: Mapping[str, nn.Module], optimiser: Optimizer | None, state: dict[str, Any]) -> None:
        tensors = {f"model.{k}": v for k, v in state_dict(modules).items()}
        for i, slots in optimiser.state_dict()["state"].items() if optimiser else ():
            tensors |= {f"optimiser.{i}.{name}": value for name, value in slots.items()}
        metadata = {"state": to_json(state), "fingerprint": self.fingerprint}
        write_tensors(self.path, tensors, metadata)

    def load(self) -> tuple[dict[str, Tensor], dict[int, dict[str, Tensor]], dict[str, Any]] | None:
        """Model tensors, optimiser slots by parameter and the loop's state, or None where there is none."""
        if not self.path.exists():
            return None
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
    """Fill modules by slot from the tensors of ``state_dict``. Raises WeightsError where they do not fit."""
    for slot, module in modules.items():
        own = {k.removeprefix(f"{slot}."): v for k, v in tensors.items() if k.startswith(f"{slot}.")}
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            raise WeightsError(f"the checkpoint does not fit the {slot}: {first_line(error)}") from error
