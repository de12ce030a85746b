"""Small operations on batches of named tensors. torch is imported when one of them runs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from semcodec.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


class Valued:
    """Dataclasses that are equal where all that they hold is, arrays and tensors too; these count for no hash."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))  # type: ignore[arg-type]

    def __hash__(self) -> int:
        held = (getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]
        return hash((type(self), *(value for value in held if isinstance(value, str | int | float | bytes))))


def _equal(a: Any, b: Any) -> bool:
    if hasattr(a, "__array__") and hasattr(b, "__array__"):
        a, b = as_array(a), as_array(b)
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return bool(a == b)


class _Single:
    """Calls that are within ``single_precision``, and the default dtype that the last of them gives back."""

    lock = threading.Lock()
    inside = 0
    before: Any = None


@contextmanager
def single_precision() -> Iterator[None]:
    """Make tensors and modules in float32, whatever the user's ``torch.set_default_dtype``; also a decorator.

    torch has one default for all threads: it is given back when the last of several threads leaves. Where nothing has
    imported torch, nobody has set its default.
    """
    if "torch" not in sys.modules:
        yield
        return
    import torch

    with _Single.lock:
        if not _Single.inside:
            _Single.before = torch.get_default_dtype()
            if _Single.before != torch.float32:
                torch.set_default_dtype(torch.float32)
        _Single.inside += 1
    try:
        yield
    finally:
        with _Single.lock:
            _Single.inside -= 1
            if not _Single.inside and _Single.before != torch.float32:
                torch.set_default_dtype(_Single.before)


def inference(function: Callable[P, T]) -> Callable[P, T]:
    """The function in single precision, without gradients: ``torch.inference_mode``, imported when it is called."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        import torch

        with torch.inference_mode(), single_precision():
            return function(*args, **kwargs)

    return run


def as_array(tensor: Tensor | None) -> Any:
    """A tensor's values in numpy, on the CPU, bfloat16 as float32; None and arrays stay what they are."""
    if tensor is None or isinstance(tensor, np.ndarray):
        return tensor
    import torch

    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def beside(array: npt.NDArray[Any], tensor: Tensor) -> Tensor:
    """An array as a tensor of its own dtype on the device that ``tensor`` is on; on the CPU its memory is shared.

    Beside an array it stays one.
    """
    if isinstance(tensor, np.ndarray):
        return array
    import torch

    return torch.from_numpy(array).to(tensor.device)


def place_all(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Tensors by name, on a device; those that are there already as they are."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def alike(samples: Sequence[Mapping[str, Tensor]]) -> list[list[int]]:
    """Rows of samples that have the same tensors of the same shapes, groups in the order they first appear."""
    groups: dict[Any, list[int]] = {}
    for i, sample in enumerate(samples):
        groups.setdefault(tuple((name, tuple(t.shape)) for name, t in sample.items()), []).append(i)
    return list(groups.values())


def stack(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Samples that are alike, each with a batch axis of one, as one batch."""
    import torch

    return {name: torch.cat([sample[name] for sample in samples]) for name in samples[0]}


def likeliest(logits: Tensor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Of logits (B, classes), a tensor or an array, the most probable class and its probability, (B,) each."""
    if isinstance(logits, np.ndarray):
        scaled = np.exp(logits - logits.max(1, keepdims=True))
        return logits.argmax(1), scaled.max(1) / scaled.sum(1)
    probability, index = logits.softmax(1).max(1)
    return as_array(index), as_array(probability)


def rows_of(features: Mapping[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    """Some samples of a batch."""
    return {name: t[list(rows)] for name, t in features.items()}


def eight_bits(pixels: Tensor) -> npt.NDArray[np.uint8]:
    """float in [0, 1] (..., 3, H, W) to uint8 (..., H, W, 3), rounded. Raises UsageError for NaN and infinity.

    pixels: a tensor, or an array of numpy.
    """
    if isinstance(pixels, np.ndarray):
        if not np.isfinite(pixels).all():
            raise UsageError("the pixels hold NaN or infinity")
        return np.moveaxis(np.rint(np.clip(pixels, 0, 1) * np.float32(255)).astype(np.uint8), -3, -1)
    if not pixels.isfinite().all():
        raise UsageError("the pixels hold NaN or infinity")
    out: npt.NDArray[np.uint8] = as_array((pixels.clamp(0, 1) * 255).round().byte().movedim(-3, -1))
    return out


def from_eight_bits(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 (..., H, W, 3) to float32 in [0, 1] (..., 3, H, W), as features at the cut "input" are."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3))).float() / 255


def floats_of(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """``from_eight_bits`` in numpy, for devices without torch."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, -3)).astype(np.float32) / np.float32(255)
