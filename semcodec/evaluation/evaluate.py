"""Accuracy, real bytes and times of a pipeline over a data set, one record per operating point.

A record is a plain dict that goes into JSON Lines; ``docs/measuring.md`` says what each key means.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from semcodec._version import __version__
from semcodec.composition.composition import Composition
from semcodec.composition.grammar import Value
from semcodec.container.packets import write_header
from semcodec.data.base import Dataset, Digest
from semcodec.data.datasets import open_dataset
from semcodec.errors import DataError
from semcodec.evaluation.cost import Costs
from semcodec.evaluation.keys import CONTAINER, Identity, Known
from semcodec.evaluation.notebook import Record
from semcodec.evaluation.records import RECORD
from semcodec.pipeline import weights
from semcodec.pipeline.accelerator import Accelerator, Where
from semcodec.pipeline.pipeline import Pipeline
from semcodec.specs import InputRequest
from semcodec.tasks.table import get_task

Progress = Callable[[str, int, int], None]
"""Called with what is evaluated, samples done and samples in all."""

SIZES = ("bytes_total", "bytes_payload", "bytes_side", "bytes_header", "bytes_local")


def evaluate(
    pipeline: Pipeline,
    dataset: Dataset,
    *,
    limit: int | None = None,
    batch: int = 32,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Encode every sample to bytes, read those bytes, decode and recognise.

    limit: the first so many samples; batch: how many run together. Sizes and times are means per sample,
    accuracies are fractions. Raises DataError where labels do not fit the model's classes.
    """
    task = get_task(pipeline.composition.task)
    score = task.score(dataset, pipeline.classes, pipeline.request, pipeline.raw_uint8_bytes)
    total = len(dataset) if limit is None else min(limit, len(dataset))
    if not total:
        raise DataError(f"{dataset.name} has no samples to evaluate")
    this = identity(pipeline, dataset, total)
    clock, digest, costs = pipeline.clock(), Digest(), Costs(pipeline)
    pipeline.accelerator.forget_peak()
    sizes = dict.fromkeys(SIZES, 0)
    sent = 0
    kept = dict.fromkeys(pipeline.composition.keep, 0)
    figures: dict[str, float] = {}
    for start in range(0, total, batch):
        rows = range(start, min(start + batch, total))
        pixels, labels = dataset.batch(rows)
        digest.update(pixels, labels)
        sources = dataset.sizes(rows) if pipeline.request.placed else None
        encoded = pipeline.encode_batch(pixels, rows, clock, sources)
        records = pipeline.records(encoded)
        score.add(pipeline.decode_batch(records, clock), labels, sources)
        costs.add(pixels, rows, encoded, records, sources)
        for name, values in pipeline.device.figures(pixels).items():
            figures[name] = figures.get(name, 0.0) + sum(values) / total
        for record in encoded:
            for name in SIZES:
                sizes[name] += getattr(record, name)
            sent += record.bytes_local == 0
            for target, units in record.kept.items():
                kept[target] += units
        if progress:
            progress(pipeline.spec, rows.stop, total)
    mean = {name: size / total for name, size in sizes.items()}
    composition = pipeline.composition
    found: dict[str, Any] = {
        "record": RECORD,
        "key": this.key,
        "spec": pipeline.spec,
        "task": composition.task,
        "knobs": this.knobs,
        "data": dataset.name,
        "split": dataset.split,
        "samples": total,
        "content": this.content,
        "data_digest": digest.hexdigest(),
        **score.accuracy(),
        **mean,
        **score.rate(mean["bytes_total"]),
        "bytes_stream_header": len(write_header(pipeline.header)),
        "raw_float32_bytes": pipeline.raw_float32_bytes,
        "raw_uint8_bytes": score.source_bytes,
        "ratio_float32": pipeline.raw_float32_bytes / mean["bytes_total"] if mean["bytes_total"] else None,
        "ratio_uint8": score.source_bytes / mean["bytes_total"] if mean["bytes_total"] else None,
        "sent_ratio": sent / total,
        **_counted(pipeline, kept, sent, total),
        "paper": {**composition.stages.figures, **figures},
        "stages_ms": {stage: 1000 * seconds / total for stage, seconds in clock.seconds.items()},
        **costs.figures(),
        "weights": pipeline.describe_weights(),
        "formats": dict(this.formats),
        "batch": batch,
        "versions": {"semcodec": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "machine": {"platform": platform.platform(), "threads": torch.get_num_threads()},
        **pipeline.accelerator.describe(),
        **score.by_sample(),
    }
    return Record(found)


def _counted(pipeline: Pipeline, kept: Mapping[str, int], sent: int, total: int) -> dict[str, float | None]:
    """Mean units over the samples that were sent and over all, and the share of all units that this is."""
    found: dict[str, float | None] = {}
    for target, (one, several) in pipeline.composition.encoder.component.traits.get("units", {}).items():
        found[f"{several}_mean"] = kept[target] / sent if sent else None
        found[f"{several}_mean_all"] = kept[target] / total
        found[f"{one}_cost"] = kept[target] / total / pipeline.stages.encoder.units[target]
    return found


def identity(pipeline: Pipeline, dataset: Dataset, total: int) -> Identity:
    """What a record of the first ``total`` samples is of. Raises DataError where they cannot be read."""
    composition, header = pipeline.composition, pipeline.header
    sources = pipeline.describe_weights()
    return Identity(
        spec=pipeline.spec,
        knobs={} if composition.point else dict(composition.call),
        data=dataset.name,
        split=dataset.split,
        samples=total,
        content=dataset.content(total),
        classes=None if dataset.counted is None else [dataset.classes[index] for index in dataset.counted],
        weights={**sources, **{slot: {**sources.get(slot, {}), "digest": d} for slot, d in pipeline.digests.items()}},
        formats={CONTAINER: header.format, **header.components, **_computed(pipeline)},
        pixels=partial(_digest_pixels, dataset, total, pipeline.request),
        task=composition.task if len(composition.tails) > 1 else None,
    )


def _computed(pipeline: Pipeline) -> dict[str, int | str]:
    """Where networks run and how precisely, where that is not the CPU at float32."""
    where = pipeline.accelerator.signature()
    return {"accelerator": " ".join(where)} if where else {}


_PIXELS: dict[Any, str] = {}


def _digest_pixels(dataset: Dataset, total: int, request: InputRequest) -> str:
    """The ``data_digest`` of a record, without running anything; read once in a process."""
    named = dataset.content(total), total, request, tuple(dataset.counted or ())
    if named not in _PIXELS:
        _PIXELS[named] = dataset.digest(total)
    return _PIXELS[named]


def run_sweep(
    composition: Composition,
    grid: Mapping[str, Sequence[Value]],
    request: weights.WeightsRequest,
    data: str,
    *,
    split: str = "test",
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    batch: int = 32,
    done: Container[str] = (),
    known: Known | None = None,
    device: Where = "cpu",
    half: bool = False,
    progress: Progress | None = None,
    tasks: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """One record for each point of ``grid`` (by "item.parameter", the values), as it is finished.

    Of a stream for several tasks one record for each of ``tasks``, or of all where none is named, at the same packets.

    All points are composed before the first is run, so a wrong value costs nothing. Models are built once for
    points that differ in call parameters, Selectors or entropy stages alone. ``done``: keys to leave out. ``known``:
    records to leave out, earlier ones too; raises UsageError for a point of it that has changed since.
    ``classes``: those whose boxes or masks count, where these are not all. device, half: where networks run and whether
    in bfloat16; then each point is evaluated in float32 too, and the record has what that makes of accuracy.
    """
    accelerator = Accelerator.find(device, half)
    views = [composition.alone(task).backbone.name for task in tasks] or list(composition.tails)
    points = []
    for values in itertools.product(*grid.values()):
        point = composition
        for name, value in zip(grid, values, strict=True):
            item, _, parameter = name.rpartition(".")
            point = point.with_args(item, **{parameter: value})
        points.append(point)
    pipeline: Pipeline | None = None
    datasets: dict[str, Dataset] = {}
    for point in points:
        if pipeline is not None and pipeline.shares_models(point):
            pipeline = pipeline.replace(composition=point)
        else:
            names = open_dataset(data, split, classes=classes, task=point.task).classes
            pipeline = Pipeline.load(point, request, classes=names, device=accelerator)
            datasets.clear()
        for name in views:
            view = pipeline.alone(name)
            if name not in datasets:
                datasets[name] = open_dataset(data, split, view.request, classes)
            dataset = datasets[name]
            total = len(dataset) if limit is None else min(limit, len(dataset))
            this = identity(view, dataset, total)
            if this.key not in done and not (known is not None and known.has(this)):
                options: dict[str, Any] = {"limit": limit, "batch": batch, "progress": progress}
                record = evaluate(view, dataset, **options)
                if accelerator.half:
                    record |= cost_of_half(record, evaluate(view.replace(half=False), dataset, **options))
                if known is not None:
                    known.add(record)
                yield record


def cost_of_half(half: Mapping[str, Any], full: Mapping[str, Any]) -> dict[str, Any]:
    """What a record of bfloat16 has of one of float32 over the same samples: that one's accuracy and bytes, and the
    paired difference of accuracies, float32 less bfloat16."""
    task = get_task(half["task"])
    at_float32 = {name: full[name] for name in (task.metric.key, "bytes_total")}
    return {"half_cost": {**at_float32, **task.compare(full, half)}}
