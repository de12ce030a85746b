"""The state dict of a module, for a ``Coding`` that must follow what is loaded or learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from semcodec.tensors import as_array

if TYPE_CHECKING:
    from torch import Tensor, nn


class ModuleState(Mapping[str, "npt.NDArray[Any]"]):
    """Numpy arrays by the names of ``module.state_dict()``, each as it is when it is looked up.

    Nothing is kept and nothing copied of what is in the CPU's memory, so an Encoder makes one ``Coding`` for good. Of
    what an accelerator holds a copy is kept until the tensor is another or was written to. The submodule that has a
    tensor is looked for once.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._owners: dict[str, tuple[nn.Module, str]] = {}
        self._copies: dict[str, tuple[Tensor, int, npt.NDArray[Any]]] = {}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        try:
            if name not in self._owners:
                path, _, last = name.rpartition(".")
                self._owners[name] = self._module.get_submodule(path), last
            owner, last = self._owners[name]
            tensor: Tensor = getattr(owner, last)
        except AttributeError:
            raise KeyError(name) from None
        kept = self._copies.get(name)
        if kept is not None and kept[0] is tensor and kept[1] == tensor._version:
            return kept[2]
        array: npt.NDArray[Any] = as_array(tensor)
        if tensor.device.type != "cpu" and not tensor.is_inference():
            self._copies[name] = tensor, tensor._version, array
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._module.state_dict())

    def __len__(self) -> int:
        return len(self._module.state_dict())
