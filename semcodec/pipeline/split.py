"""Weights in two files: what the device uses, and what the server uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from semcodec._json import to_json
from semcodec._version import __version__
from semcodec.composition.resolution import INPUT
from semcodec.pipeline import weights
from semcodec.pipeline.halves import part
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.tensor_files import write_tensors

Parts = Mapping[str, Sequence[str] | None]
"""By slot, beginnings of the names of the state entries that an end uses; None where that is all of them."""


def parts_of(pipeline: Pipeline) -> dict[str, Parts]:
    """By end, "device" or "server", what it uses of the slots that have weights."""
    c, stages = pipeline.composition, pipeline.stages
    asked = len(stages.models) < len(c.models)  # the Encoder asks the very Backbone, on the device
    head = None if asked else () if c.cut == INPUT else stages.backbone.head_state(c.cut)
    device: Parts = {"encoder": stages.encoder.device_state(), **dict.fromkeys(stages.models), c.head_slot: head}
    tails = {slot: tail.tail_state(c.cut) for slot, tail in zip(c.slots, stages.tails.values(), strict=True)}
    server: Parts = {"encoder": stages.encoder.server_state(), "recoverer": None, **tails}
    there = stages.modules()
    ends = {"device": device, "server": server}
    return {end: {slot: names for slot, names in of.items() if slot in there} for end, of in ends.items()}


def halves_in(folder: Path) -> dict[str, Path]:
    """By end, the file that ``write_halves`` writes."""
    return {end: folder / f"{end}.safetensors" for end in ("device", "server")}


def write_halves(pipeline: Pipeline, folder: Path) -> dict[str, Path]:
    """``device.safetensors`` and ``server.safetensors``, each with the whole card; by end, the file. Raises OSError."""
    c, modules = pipeline.composition, pipeline.stages.modules()
    known = [list(tail.classes) for tail in pipeline.stages.tails.values()]
    card = {
        "spec": c.spec,
        "keys": {slot: c.weights_key(slot) for slot in modules},
        "classes": list(pipeline.classes),
        **({"named": dict(zip(c.slots, known, strict=True))} if len(c.slots) > 1 else {}),
        **weights.name_weights(modules),
        "sources": {slot: source.origin for slot, source in pipeline.sources.items() if source},
        "license": " AND ".join(sorted({bound.component.license for bound in c.bounds})),
        "versions": {"semcodec": __version__},
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for end, parts in parts_of(pipeline).items():
        tensors: dict[str, Tensor] = {}
        for slot, names in parts.items():
            state = modules[slot].state_dict()
            tensors |= {f"{slot}.{name}": _shortest(state[name]) for name in part(list(state), names)}
        written[end] = halves_in(folder)[end]
        write_tensors(written[end], tensors, {weights.METADATA: to_json({**card, "end": end})})
    return written


def _shortest(tensor: Tensor) -> Tensor:
    """At half precision where that is exact."""
    half = tensor.half() if tensor.is_floating_point() else tensor
    return half if half.to(tensor.dtype).equal(tensor) else tensor
