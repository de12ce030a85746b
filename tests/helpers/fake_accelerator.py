"""A make-believe accelerator "fakegpu" whose kernels run on the CPU: real numbers, and the errors of a real device.

Tensors on it are wrappers. What mixes them with tensors of the CPU is refused as CUDA refuses it, and so is ``numpy``
without ``cpu``. It rests on a private part of torch: ``FOUND`` says why where that is missing.

It is registered when this is imported, which is to be at the top of a module of tests: torch looks once, at the first
backward of a process, which devices there are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

NAME = "fakegpu"
ATEN = torch.ops.aten
MIX = (ATEN._to_copy.default, ATEN.copy_.default, ATEN.type_as.default)
"""Operations that may see tensors of two devices."""
INDEX = (ATEN.index.Tensor, ATEN.index_put_.default, ATEN.index_put.default)
"""These take indices of the CPU too, for a tensor of the accelerator."""
OTHERS = ("sparse", "quantized", "cudnn", "mkldnn", "nested", "from_file", "_make_dep_token")
"""In the names of operations that make tensors no model here asks for."""


class FakeTensor(torch.Tensor):
    """Wraps a tensor of the CPU, ``raw``, and says that it lies on the accelerator."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> FakeTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            layout=raw.layout,
            device=torch.device(f"{NAME}:0"),
            requires_grad=False,
        )
        made.raw = raw
        return made

    def __init__(self, raw: torch.Tensor) -> None:
        pass

    def __repr__(self, **_: Any) -> str:
        return f"FakeTensor({tuple(self.shape)})"

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.raw.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Counters:
    """What torch asks a device about, and what tests ask of this one. synchronised: how often it was waited for."""

    synchronised = 0

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def get_device_name(self, device: Any = None) -> str:
        return "Make-believe 1"

    def synchronize(self, device: Any = None) -> None:
        self.synchronised += 1

    def reset_peak_memory_stats(self, device: Any = None) -> None:
        pass

    def max_memory_allocated(self, device: Any = None) -> int:
        return 1 << 20

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        pass


COUNTERS = Counters()


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    with torch.inference_mode(False), torch.no_grad():
        leaves = [a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
        there = [a for a in leaves if isinstance(a, FakeTensor)]
        here = [a for a in leaves if not isinstance(a, FakeTensor)]
        indexes = func in INDEX and isinstance(args[0], FakeTensor)
        if there and func not in MIX and not indexes and any(a.dim() for a in here):
            raise RuntimeError(f"Expected all tensors to be on the same device, {NAME}:0 and cpu, in {func}")
        to = kwargs.get("device")
        stays = bool(there) if to is None else torch.device(to).type == NAME
        if func is ATEN.type_as.default:
            stays = isinstance(args[1], FakeTensor)
        raw_kwargs = {name: tree_map(_raw, value) for name, value in kwargs.items() if name != "pin_memory"}
        if to is not None and stays:
            raw_kwargs["device"] = torch.device("cpu")
        out = func(*tree_map(_raw, args), **raw_kwargs)
        if func is ATEN.copy_.default:
            return args[0]
        known = {id(a.raw): a for a in there}

        def wrap(value: Any) -> Any:
            if not isinstance(value, torch.Tensor) or not stays:
                return value
            return known[id(value)] if id(value) in known else FakeTensor(value)

        return tree_map(wrap, out)


def _raw(value: Any) -> Any:
    return value.raw if isinstance(value, FakeTensor) else value


def _factories() -> Iterator[tuple[str, Any]]:
    """Operations that make a tensor of no other."""
    for full in torch._C._dispatch_get_all_op_names():
        name, _, overload = full.removeprefix("aten::").partition(".")
        if not full.startswith("aten::") or any(word in full for word in OTHERS):
            continue
        try:
            op = getattr(getattr(ATEN, name), overload or "default")
        except (AttributeError, RuntimeError):
            continue
        arguments = op._schema.arguments
        tensors = any("Tensor" in str(argument.type) for argument in arguments)
        if any(a.name == "device" for a in arguments) and len(op._schema.returns) == 1 and not tensors:
            yield full.removeprefix("aten::"), op


def _factory(op: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: _run(op, args, kwargs)


_LIBRARIES: list[Any] = []  # what is registered is there as long as these are


def _register() -> torch.device | str:
    """The device; a reason where this torch cannot have it."""
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _setup_privateuseone_for_python_backend(NAME, COUNTERS)
            library = torch.library.Library("aten", "IMPL")
            library.impl("_copy_from", lambda src, dst, wait=False: _run(ATEN.copy_.default, (dst, src), {}),
                         "PrivateUse1")  # fmt: skip
            all_names = torch.library.Library("_", "IMPL")
            # Autocast is on and off as elsewhere, and changes no dtype.
            all_names.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
            for name, op in _factories():
                library.impl(name, _factory(op), "PrivateUse1")
    except (ImportError, AttributeError, RuntimeError) as error:
        return f"torch {torch.__version__} has no backend in Python to pretend with: {error}"
    _LIBRARIES.extend((library, all_names))
    return torch.device(f"{NAME}:0")


FOUND = _register()
"""The device, or the reason why there is none."""


@contextmanager
def parameters_replaced() -> Iterator[None]:
    """Moving a module puts other parameters in its place: a wrapper cannot take the place of a tensor's memory."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
