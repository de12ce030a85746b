"""A device's file in 8 bits: calibrated on a training split, and what it costs measured on the test split."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from semcodec.artifact.manifest import Manifest
from semcodec.composition.composition import Composition
from semcodec.data.datasets import open_dataset
from semcodec.errors import UsageError
from semcodec.evaluation.evaluate import evaluate
from semcodec.pipeline.device import Device
from semcodec.pipeline.eight_bits import FLOATS, quantised
from semcodec.pipeline.export import export_parts
from semcodec.pipeline.exported import load_exported
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.tasks.table import get_task

SAMPLES = 200
"""Of either split, where nothing else is asked for."""
KEPT = 64
"""Calls of a graph that are kept to calibrate it by."""


def export_eight_bits(
    composition: Composition, path: Path, request: WeightsRequest, data: str, samples: int = SAMPLES
) -> Manifest:
    """Write the device's half with its graphs in 8 bits. Its manifest says how, and the accuracy before and after.

    data: of a data set, the training split to calibrate on, the test split to measure on, so many samples of each.
    Raises as ``export_device``, UsageError where no graph can be quantised, DataError.
    """
    pipeline = Pipeline.load(composition, request)
    artifact = export_parts(composition, request)
    with tempfile.TemporaryDirectory() as folder:
        whole, small = Path(folder) / "whole.semdev", Path(folder) / "small.semdev"
        artifact.write(whole)
        seen = calibrate(whole, artifact.graphs, data, samples)
        graphs: dict[str, bytes] = {}
        ways: dict[str, str] = {}
        for name, graph in artifact.graphs.items():
            graphs[name], ways[name] = quantised(graph, artifact.manifest.graphs[name], seen[name], name)
        if set(ways.values()) <= {FLOATS}:
            raise UsageError(f"{composition.spec} has no network on the device that 8 bits would make smaller")
        made = replace(artifact, graphs=graphs)
        made.write(small)
        told = _measure(pipeline, {"float32": Device.load(whole), "int8": Device.load(small)}, data, samples)
    made = made.with_int8({"graphs": ways, "calibrated_on": data, "samples": samples, **told})
    made.write(path)
    return made.manifest


def calibrate(path: Path, graphs: Collection[str], data: str, samples: int) -> Mapping[str, Sequence[Sequence[Any]]]:
    """By graph of a file, arrays that it is given while the first samples of the training split are encoded."""
    seen: dict[str, list[Sequence[Any]]] = {name: [] for name in graphs}

    def listen(name: str, arrays: Sequence[Any]) -> None:
        if len(seen[name]) < KEPT:
            seen[name].append(arrays)

    device = Device.of_exported(load_exported(str(path), listen=listen))
    dataset = open_dataset(data, "train", device.request)
    for number in range(min(samples, len(dataset))):
        pixels, _ = dataset.batch([number])
        device.encode_batch(pixels, [number], sizes=dataset.sizes([number]) if device.request.placed else None)
    return seen


def _measure(pipeline: Pipeline, devices: Mapping[str, Device], data: str, samples: int) -> dict[str, Any]:
    dataset = open_dataset(data, "test", pipeline.request)
    metric = get_task(pipeline.composition.task).metric.key
    found: dict[str, Any] = {}
    for name, device in devices.items():
        record = evaluate(replace(pipeline, device=device), dataset, limit=samples)
        found[name] = {metric: record[metric], "bytes_total": record["bytes_total"]}
    return found
