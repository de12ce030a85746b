"""The state dict of a module, for a ``Coding`` that must follow what is loaded or learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor, nn


class ModuleState(Mapping[str, "npt.NDArray[Any]"]):
    """Numpy arrays by the names of ``module.state_dict()``, each as it is when it is looked up.

    No tensor is kept and nothing copied of what is in the CPU's memory, so an Encoder makes one ``Coding`` for good.
    The submodule that has a tensor is looked for once.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._owners: dict[str, tuple[nn.Module, str]] = {}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        try:
            if name not in self._owners:
                path, _, last = name.rpartition(".")
                self._owners[name] = self._module.get_submodule(path), last
            owner, last = self._owners[name]
            tensor: Tensor = getattr(owner, last)
        except AttributeError:
            raise KeyError(name) from None
        array: npt.NDArray[Any] = tensor.detach().cpu().numpy()
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._module.state_dict())

    def __len__(self) -> int:
        return len(self._module.state_dict())
