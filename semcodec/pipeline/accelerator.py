"""Where an end's networks run: the CPU or an accelerator, in torch's own words, and at which precision.

Networks alone run there. What is coded, integers and bytes, is computed on the CPU, so that a packet of one device
decodes on any other; ``semcodec.tensors.as_array`` is how values leave an accelerator.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from semcodec.errors import UsageError, first_line
from semcodec.tensors import from_eight_bits, place_all, single_precision

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from semcodec.types import Features

WORDS = ("cpu", "cuda", "mps")
"""Kinds of devices that may be named; torch knows more of them, which nobody has tried."""
FLOAT32, BFLOAT16 = "float32", "bfloat16"


@dataclass(frozen=True)
class Accelerator:
    """name: torch's word for the device, with its number where it is no CPU. half: whether networks compute in bfloat16
    where torch's autocast allows it; weights, and what is coded, stay float32. Made by ``find``."""

    name: str = "cpu"
    half: bool = False

    @classmethod
    def find(cls, device: Where = "cpu", half: bool = False) -> Accelerator:
        """The device of a name ("cpu", "cuda", "cuda:1", "mps") or of torch's; one that was found stays as it is.

        Imports no torch for the CPU. Raises UsageError for an unknown word, and for a device that is not there.
        """
        if isinstance(device, Accelerator):
            return device
        if isinstance(device, str) and kind_of(device) == "cpu":
            return cls("cpu", half)
        import torch

        wanted = torch.device(device)
        if wanted.type == "cpu":
            return cls("cpu", half)
        _refuse_absent(wanted)
        if half and wanted.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise UsageError(f"the device {wanted} has no bfloat16: leave out --half")
        try:
            return cls(str(torch.empty(0, device=wanted).device), half)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise UsageError(f"the device {wanted} cannot be used: {first_line(error)}") from error

    @property
    def device(self) -> torch.device:
        """As torch knows it."""
        import torch

        return torch.device(self.name)

    @property
    def precision(self) -> str:
        """Of the networks, as records name it."""
        return BFLOAT16 if self.half else FLOAT32

    def place(self, *modules: Any) -> None:
        """Move networks there from the CPU, for good; what is no module, or has shapes alone, stays as it is."""
        if self.name == "cpu":
            return
        from torch import nn

        for module in modules:
            if isinstance(module, nn.Module):
                module._apply(lambda t: t if t.is_meta else t.to(self.device))  # type: ignore[no-untyped-call]

    def inputs(self, name: str, pixels: npt.NDArray[np.uint8]) -> Features:
        """The model's input of that name, there: uint8 (..., H, W, 3) as float32 in [0, 1] (..., 3, H, W)."""
        return self.put({name: from_eight_bits(pixels)})

    @contextmanager
    def inference(self) -> Iterator[None]:
        """What is computed inside has no gradients, and what is made is in single precision."""
        import torch

        with torch.inference_mode(), single_precision():
            yield

    def put(self, tensors: Features) -> Features:
        """Tensors by name, there."""
        return tensors if self.name == "cpu" else place_all(tensors, self.device)

    def put_labels(self, labels: Any) -> Any:
        """A batch's labels, there: a tensor, or each sample's boxes; masks stay arrays, which losses take."""
        if not isinstance(labels, list):
            return labels.to(self.device)
        return [one.to(self.device) if hasattr(one, "to") else one for one in labels]

    def autocast(self) -> AbstractContextManager[Any]:
        """What networks compute inside is at this precision."""
        if not self.half:
            return nullcontext()
        import torch

        return torch.autocast(self.device.type, torch.bfloat16)

    def full(self, tensors: Features) -> Features:
        """Tensors by name in float32 where they are bfloat16: what leaves a network."""
        if not self.half:
            return tensors
        import torch

        return {name: t.float() if t.dtype == torch.bfloat16 else t for name, t in tensors.items()}

    def synchronise(self) -> None:
        """Wait until everything that was asked of the device is done."""
        if self.name != "cpu" and (wait := self._backend("synchronize")):
            wait(*(() if self.device.type == "mps" else (self.device,)))  # of mps there is one, and it has no name

    def forget_peak(self) -> None:
        """Begin to count ``peak_bytes`` anew."""
        if self.name != "cpu" and (reset := self._backend("reset_peak_memory_stats")):
            reset(self.device)

    def peak_bytes(self) -> int | None:
        """The most memory that tensors held on it since ``forget_peak``; None where the device does not tell."""
        peak = self._backend("max_memory_allocated") if self.name != "cpu" else None
        return int(peak(self.device)) if peak else None

    def describe(self) -> dict[str, Any]:
        """What records say of it: nothing of the CPU at float32."""
        if self.name == "cpu":
            return {"precision": self.precision} if self.half else {}
        name = self._backend("get_device_name")
        return {
            "accelerator": self.name,
            "accelerator_name": name(self.device) if name else self.device.type,
            "precision": self.precision,
            "accelerator_peak_bytes": self.peak_bytes(),
        }

    def signature(self) -> list[str]:
        """What the name of a record has of it: nothing of the CPU at float32."""
        return [*([] if self.name == "cpu" else [self.name]), *([self.precision] if self.half else [])]

    def _backend(self, function: str) -> Any:
        """A function of torch's module for this kind of device, ``torch.cuda`` say; None where it has none."""
        import torch

        return getattr(getattr(torch, self.device.type, None), function, None)


Where: TypeAlias = "str | torch.device | Accelerator"
"""What ``Accelerator.find`` takes."""
CPU = Accelerator()


def kind_of(name: str) -> str:
    """The kind of device that a name is of. Raises UsageError for a word that is none; imports no torch."""
    found = re.fullmatch(r"([a-z]+)(:\d+)?", name)
    if found is None or found[1] not in WORDS:
        raise UsageError(f"there is no device {name!r}: expects {', '.join(WORDS)}, or one of several as in cuda:1")
    return found[1]


def _refuse_absent(device: torch.device) -> None:
    """Raise UsageError, before anything is asked of a driver, for a device of which there are not so many."""
    import torch

    counts = {
        "cuda": lambda: torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": lambda: int(torch.backends.mps.is_available()),
    }
    if device.type not in counts:
        return
    count = counts[device.type]()
    if (device.index or 0) >= count:
        built = "" if count or device.type != "cuda" or torch.version.cuda else ", which is built without CUDA"
        there = f"{count} of its kind" if count else "none of its kind"
        raise UsageError(
            f"the device {device} is not here: torch {torch.__version__}{built}, finds {there}; name another, or none "
            "for the CPU"
        )
