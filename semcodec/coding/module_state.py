"""The state dict of a module, for a ``Coding`` that must follow what is loaded or learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor, nn


class ModuleState(Mapping[str, "npt.NDArray[Any]"]):
    """Numpy arrays by the names of ``module.state_dict()``, each as it is when it is looked up.

    Nothing is kept and nothing copied of what is in the CPU's memory, so an Encoder makes one ``Coding`` for good.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        try:
            tensor: Tensor = attrgetter(name)(self._module)
        except AttributeError:
            raise KeyError(name) from None
        array: npt.NDArray[Any] = tensor.detach().cpu().numpy()
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._module.state_dict())

    def __len__(self) -> int:
        return len(self._module.state_dict())
