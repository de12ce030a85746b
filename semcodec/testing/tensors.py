"""What checks of tensors share: agreement with a spec, and closeness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from semcodec.pipeline.halves import part
from semcodec.specs import FeatureSpec, TensorSpec, describe
from semcodec.testing.subject import require
from semcodec.types import Features, Partial

Module = TypeVar("Module")
NAMED = 4
"""Parameters that a message names."""
TOLERANCE = 1e-4
"""Relative and absolute: float32 sums in another order differ by less, other values by more."""


def spec_of(tensor: Tensor) -> TensorSpec:
    """Of one sample of a batch."""
    return TensorSpec(tuple(tensor.shape[1:]), str(tensor.dtype).removeprefix("torch."))


def require_features(features: Features, spec: FeatureSpec, what: str, batch: int = 1) -> None:
    """Names, shapes, dtypes and the batch axis are as declared, and every float is finite."""
    seen = {name: spec_of(tensor) for name, tensor in features.items()}
    right = seen.keys() == spec.keys() and all(spec[name].accepts(seen[name]) for name in seen)
    require(right, f"{what} is {describe(seen)}, declared is {describe(spec)}")
    for name, tensor in features.items():
        require(len(tensor) == batch, f"{what}: {name} has a batch axis of {len(tensor)}, not {batch}")
        require(bool(torch.isfinite(tensor).all()), f"{what}: {name} holds NaN or infinity")


def require_partial(partial: Partial, spec: FeatureSpec, what: str) -> None:
    """Features as declared, and masks of 0 and 1, of their dtype, that spread over the features they are about."""
    require_features(partial.features, spec, what)
    for name, mask in partial.present.items():
        require(name in partial.features, f"{what}: present has {name}, which is no feature")
        shape = partial.features[name].shape
        spreads = mask.dim() == len(shape) and all(m in (1, n) for m, n in zip(mask.shape, shape, strict=True))
        require(spreads, f"{what}: present[{name}] of {tuple(mask.shape)} does not spread over {tuple(shape)}")
        dtype = partial.features[name].dtype
        require(mask.dtype == dtype, f"{what}: present[{name}] is {mask.dtype}, its feature {dtype}")
        require(bool(((mask == 0) | (mask == 1)).all()), f"{what}: present[{name}] holds more than 0 and 1")


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have one shape and differ by no more than ``TOLERANCE``."""
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=TOLERANCE, atol=TOLERANCE)


def comparable(value: Any) -> Any:
    """Plain data in a form that ``==`` compares, arrays by what they hold."""
    if isinstance(value, Mapping):
        return {key: comparable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [comparable(inner) for inner in value]
    return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


def spoiled(module: Module, named: Sequence[str] | None) -> Module:
    """A copy in whose state every entry is another but those whose names begin with one of ``named``."""
    other = deepcopy(module)
    assert isinstance(other, nn.Module)
    state = other.state_dict()
    with torch.no_grad():
        for name in set(state) - set(part(list(state), named)):
            tensor = state[name]
            tensor.copy_(~tensor if tensor.dtype == torch.bool else tensor + 1)
    return other


def detached(features: Mapping[str, Tensor]) -> Features:
    """The features without their gradients."""
    return {name: tensor.detach() for name, tensor in features.items()}


def octets(*tensors: Mapping[str, Tensor]) -> bytes:
    """What tensors hold, to compare by."""
    return b"".join(t.detach().contiguous().numpy().tobytes() for named in tensors for _, t in sorted(named.items()))


def copied(features: Mapping[str, Tensor]) -> Features:
    """Copies that may be written over."""
    return {name: tensor.clone() for name, tensor in features.items()}


def pixels(spec: FeatureSpec, count: int) -> npt.NDArray[np.uint8]:
    """``count`` samples for a model that takes "frames" or "image", uint8, channels last, each different.

    Smooth shapes, under noise in one quarter: all noise or all smooth would leave parts of most methods unused, and
    coders of video at their greatest effort take twenty times as long for noise.
    """
    *frames, _, height, width = spec["frames" if "frames" in spec else "image"].shape
    assert height is not None and width is not None
    rng = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width] / 9.0
    phase = rng.uniform(0, 6, (count, *(n or 1 for n in frames), 3, 1, 1))
    smooth = 128 + 70 * np.sin(x + phase) * np.cos(y - phase)
    noisy = rng.normal(0, 12, smooth.shape)
    noisy[..., : height // 2, :] = noisy[..., : width // 2] = 0
    return np.moveaxis(np.clip(np.rint(smooth + noisy), 0, 255).astype(np.uint8), -3, -1)


def require_gradient(module: nn.Module, loss: Callable[[nn.Module], Tensor]) -> None:
    """The loss that a copy of the module gives while it trains has a finite gradient in every parameter."""
    learner = deepcopy(module).requires_grad_(True).train()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        value = loss(learner)
        require(value.requires_grad, "its result has no gradient at all")
        value.backward()  # type: ignore[no-untyped-call]
    grads = {name: p.grad for name, p in learner.named_parameters()}
    cold = [name for name, grad in grads.items() if grad is None]
    require(not cold, f"no gradient reaches {', '.join(cold[:NAMED])}{' and more' if len(cold) > NAMED else ''}")
    broken = [name for name, grad in grads.items() if grad is not None and not torch.isfinite(grad).all()]
    require(not broken, f"the gradient of {', '.join(broken[:NAMED])} is not finite")
    require(any(g is not None and g.any() for g in grads.values()), "the gradient is zero everywhere")


def weighed(features: Mapping[str, Tensor]) -> Tensor:
    """A loss that every float value counts in, also where it is zero, each with another weight."""
    floats = [t for t in features.values() if t.is_floating_point()]
    weights = [torch.cos(torch.arange(t.numel(), dtype=t.dtype, device=t.device)).view(t.shape) for t in floats]
    return sum(((t * w).sum() for t, w in zip(floats, weights, strict=True)), torch.zeros(()))


def has_parameters(instance: object) -> bool:
    """Whether anything of it learns."""
    return isinstance(instance, nn.Module) and any(True for _ in instance.parameters())
