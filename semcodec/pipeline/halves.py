"""Models of which one end uses a part: built without memory for the rest, filled from files, and written to them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

_TURN = threading.RLock()


@contextmanager
def without_memory() -> Iterator[None]:
    """Parameters of the modules that this thread makes inside have shapes and no memory; buffers are as ever.

    They are moved to torch's device "meta" one by one as they are made, so that a constructor may compute as it likes.
    """
    here = threading.get_ident()

    def register_shape(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and threading.get_ident() == here:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    with _TURN:
        register = nn.Module.register_parameter
        setattr(nn.Module, "register_parameter", register_shape)  # noqa: B010 - a method is put in the place of one
        try:
            yield
        finally:
            setattr(nn.Module, "register_parameter", register)  # noqa: B010


def part(names: Sequence[str], beginnings: Sequence[str] | None) -> list[str]:
    """Those names of state entries that begin with one of ``beginnings``; all where that is None."""
    return list(names) if beginnings is None else [name for name in names if name.startswith(tuple(beginnings))]


def union(*beginnings: Sequence[str] | None) -> Sequence[str] | None:
    """What is named by any of several; None, which is all, where one is."""
    found: list[str] = []
    for one in beginnings:
        if one is None:
            return None
        found += one
    return found


def fill_part(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module that was made ``without_memory`` these entries of its state; the others stay as they are."""
    own = module.state_dict()  # files hold integers as short as they fit
    module.load_state_dict({n: t.to(own[n].dtype) for n, t in tensors.items()}, strict=False, assign=True)
    module.requires_grad_(False).eval()


def held(module: nn.Module) -> dict[str, Tensor]:
    """The entries of a module's state that have memory."""
    return {name: tensor for name, tensor in module.state_dict().items() if not tensor.is_meta}
