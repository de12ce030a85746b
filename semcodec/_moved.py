"""Old public paths, which work for one more release: what is imported by one is what the new one has, with a warning.

``MODULES`` is by old dotted name. ``NAMES`` is by old module and name, for modules that stayed where they were.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

MODULES = {
    "semcodec.detection": "semcodec.boxes",
    "semcodec.feature_training": "semcodec.training.feature_steps",
    "semcodec.gaussian": "semcodec.coding.gaussian_tables",
    "semcodec.integer_net": "semcodec.coding.integer_conv",
    "semcodec.masks": "semcodec.coding.masks",
    "semcodec.patch_coding": "semcodec.coding.patch_coding",
    "semcodec.patch_encoder": "semcodec.coding.patch_encoder",
    "semcodec.patch_params": "semcodec.coding.patch_params",
    "semcodec.patches": "semcodec.coding.patches",
    "semcodec.pictures": "semcodec.coding.pictures",
    "semcodec.pixels": "semcodec.coding.pixels",
    "semcodec.quantiser": "semcodec.coding.quantiser",
    "semcodec.rounds": "semcodec.coding.rounds",
    "semcodec.tables": "semcodec.coding.tables",
    "semcodec.task_training": "semcodec.training.objectives",
}

NAMES = {
    ("semcodec.coding.integer_conv", "IntegerConv"): "semcodec.training.integer_layers:IntegerConv",
    ("semcodec.coding.integer_conv", "IntegerNet"): "semcodec.training.integer_layers:IntegerNet",
    ("semcodec.coding.integer_conv", "integer_net"): "semcodec.training.integer_layers:integer_net",
    ("semcodec.coding.pixels", "eight_bits"): "semcodec.tensors:eight_bits",
    ("semcodec.coding.pixels", "from_eight_bits"): "semcodec.tensors:from_eight_bits",
    ("semcodec.coding.integer_conv", "to_fixed"): "semcodec.training.integer_layers:to_fixed",
    ("semcodec.coding.quantiser", "ChannelQuantiser"): "semcodec.training.channel_quantiser:ChannelQuantiser",
    ("semcodec.coding.quantiser", "finite"): "semcodec.training.channel_quantiser:finite",
    ("semcodec.data", "Request"): "semcodec.specs:InputRequest",
    **{
        ("semcodec.data.video", name): f"semcodec.coding.videos:{name}"
        for name in ("decode_frames", "decode_h264", "encode_frames", "encode_h264", "planar")
    },
    ("semcodec.interfaces", "Learning"): "semcodec.types:TrainableParts",
    ("semcodec.pipeline", "Pipeline"): "semcodec.pipeline.pipeline:Pipeline",
    ("semcodec.training", "Job"): "semcodec.training.loop:Job",
    ("semcodec.training", "Step"): "semcodec.training.loop:Step",
    ("semcodec.training", "Batch"): "semcodec.training.loop:Batch",
}


class OldPaths(MetaPathFinder, Loader):
    """Finds the modules of ``MODULES`` where nothing else did. The module that an old path gives is the new one."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MODULES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        _warn(spec.name, MODULES[spec.name])
        module = import_module(MODULES[spec.name])
        spec.loader_state = module.__spec__  # which the import system is about to overwrite
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The module has run already."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def moved_name(module: str, name: str) -> Any:
    """For a module's ``__getattr__``: what now bears another name, or is elsewhere. Raises AttributeError."""
    where = NAMES.get((module, name))
    if where is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    home, _, new = where.partition(":")
    _warn(f"{module}.{name}", f"{home}.{new}")
    return getattr(import_module(home), new)


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is now {new}; the old path goes with the next release", DeprecationWarning, stacklevel=3)
