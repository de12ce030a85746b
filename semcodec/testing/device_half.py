"""The check of what runs on a device without torch: the class of an Encoder's trait ``device``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from semcodec.container.sinks import PacketSink
from semcodec.device_half import DeviceParts, Exported, Graph, Network
from semcodec.pipeline.exported import build_encoder
from semcodec.tensors import as_array
from semcodec.testing.cases import Case, cases
from semcodec.testing.subject import SAMPLES, Subject, require
from semcodec.types import Latent

NEAR = 1e-3
"""By how much scores may differ, over the greatest of them."""
ROUNDING = 0.01
"""Share of integers that may differ by one."""


def check_device_half(subject: Subject) -> None:
    """In numpy, what the trait ``device`` names scores and encodes as the Encoder does: the same integers, but for
    rounding. Its networks are computed by torch here; ``semcodec export`` compares them as graphs.
    """
    for case in cases(subject):
        with case.name_failures():
            _check(case)


def _check(case: Case) -> None:
    prepared = case.prepare(SAMPLES)
    arrays: Any = {name: as_array(tensor) for name, tensor in prepared.features.items()}
    built: Any = build_encoder(case.composition, _parts(case.encoder.export()))
    masks: dict[str, Any] = {name: as_array(mask) for name, mask in prepared.masks.items()}
    analysis = built.analyse(arrays)
    for target, due in prepared.scores.items():
        before = {name: masks[name] for name in list(masks)[: list(prepared.scores).index(target)]}
        found = built.scores(analysis, target, before)
        apart = np.abs(found - as_array(due)).max(initial=0)
        near = found.shape == tuple(due.shape) and apart <= NEAR * max(1.0, float(due.abs().max()))
        require(near, f"in numpy it scores {target} otherwise, by {apart:.3g}")
    call = dict(case.composition.call)
    for here, there in zip(built.encode(arrays, analysis, masks, call), prepared.latents, strict=True):
        _compare(here, there)
        built.write(here, PacketSink(case.pipeline.device.entropy))


def _parts(exported: Exported) -> DeviceParts:
    return DeviceParts(exported.arrays, {name: _in_torch(network) for name, network in exported.networks.items()})


def _in_torch(network: Network) -> Graph:
    """A network as a device calls it."""

    def run(*given: Any) -> tuple[Any, ...]:
        with torch.inference_mode():
            found = network.function(*(torch.from_numpy(np.ascontiguousarray(array)) for array in given))
        return tuple(as_array(t) for t in (found if isinstance(found, tuple) else (found,)))

    return run


def _compare(here: Latent, there: Latent) -> None:
    require(here.symbols.keys() == there.symbols.keys(), f"in numpy it sends {list(here.symbols)}")
    require(here.side.keys() == there.side.keys(), f"in numpy it sends beside {list(here.side)}")
    require(here.kept == there.kept, f"in numpy it keeps {here.kept}")
    for name, array in there.symbols.items():
        found = here.symbols[name]
        require(found.shape == array.shape and found.dtype == array.dtype, f"{name!r} is of another form in numpy")
        apart = np.abs(found.astype(np.int64) - array.astype(np.int64))
        few = apart.max(initial=0) <= 1 and np.count_nonzero(apart) <= ROUNDING * apart.size
        require(few, f"{name!r} holds other integers in numpy")
