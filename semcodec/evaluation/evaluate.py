"""Accuracy, real bytes and times of a pipeline over a data set, one record per operating point.

A record is a plain dict that goes into JSON Lines; ``docs/measuring.md`` says what each key means.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from semcodec._version import __version__
from semcodec.composition.composition import Composition
from semcodec.composition.grammar import Value
from semcodec.container.packets import write_header
from semcodec.data.base import Dataset, Digest
from semcodec.data.datasets import open_dataset
from semcodec.data.notes import note
from semcodec.errors import DataError, UsageError
from semcodec.evaluation.cost import Costs
from semcodec.evaluation.keys import CONTAINER, Identity, Known
from semcodec.evaluation.notebook import Record
from semcodec.evaluation.records import RECORD
from semcodec.pipeline import weights
from semcodec.pipeline.accelerator import Accelerator, Where
from semcodec.pipeline.pipeline import Pipeline
from semcodec.specs import InputRequest
from semcodec.tasks.table import get_task

if TYPE_CHECKING:
    from semcodec.container.packets import LocalRecord, Packet
    from semcodec.data.base import Labels, UInt8
    from semcodec.pipeline.device import Encoded
    from semcodec.tasks.prediction import Prediction, Size

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
    accuracies are fractions. Raises DataError where labels do not fit the model's classes, UsageError for no sample.
    """
    [found] = evaluate_views([pipeline], [dataset], limit=limit, batch=batch, progress=progress)
    return found


def evaluate_views(
    views: Sequence[Pipeline],
    datasets: Sequence[Dataset],
    *,
    limit: int | None = None,
    batch: int = 32,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """``evaluate`` of one pipeline seen with several tails (``Pipeline.alone``), each on its own data set.

    Samples whose pixels are the same for several are encoded, restored and recovered once, and each tail answers. A
    record's times are those of all stages that its own answer needs.
    """
    measured = [_Measured(view, dataset, limit) for view, dataset in zip(views, datasets, strict=True)]
    most = max(one.total for one in measured)
    if most < 1 or batch < 1:
        raise UsageError(f"at least one sample is evaluated, at least one at once: not limit={limit}, batch={batch}")
    views[0].accelerator.forget_peak()
    for start in range(0, most, batch):
        for members in _alike([one.batch(start, batch) for one in measured if start < one.total]):
            _run(members)
        if progress:
            progress(views[0].spec, min(start + batch, most), most)
    return [one.record(batch) for one in measured]


@dataclass(frozen=True)
class _Batch:
    """Samples of one view. sources: sizes of the sources, where packets have them."""

    of: _Measured
    rows: range
    pixels: UInt8
    labels: Labels
    sources: Sequence[Size] | None

    def coded_as(self, other: _Batch) -> bool:
        """Whether the packets are the same."""
        same = (self.rows, self.sources) == (other.rows, other.sources)
        return same and np.array_equal(self.pixels, other.pixels)


def _alike(batches: Sequence[_Batch]) -> list[list[_Batch]]:
    groups: list[list[_Batch]] = []
    for one in batches:
        found = next((group for group in groups if group[0].coded_as(one)), None)
        if found is None:
            groups.append([one])
        else:
            found.append(one)
    return groups


def _run(members: Sequence[_Batch]) -> None:
    """Samples that are the same for several views: encoded once, answered by each."""
    first, view = members[0], members[0].of.view
    shared, own = view.clock(), [view.clock() for _ in members]
    encoded = view.encode_batch(first.pixels, first.rows, shared, first.sources)
    records = view.records(encoded)
    if len(members) == 1:
        answers = [view.decode_batch(records, shared)]
    else:
        answers = view.server.decode_views([one.of.view.server for one in members], records, shared, own)
    figures = {name: sum(values) for name, values in view.device.figures(first.pixels).items()}
    for one, predictions, clock in zip(members, answers, own, strict=True):
        one.of.add(one, encoded, records, predictions, figures)
        for stage, seconds in (*shared.seconds.items(), *clock.seconds.items()):
            one.of.clock.add(stage, seconds)


class _Measured:
    """What is summed over the samples of one view, until they make its record."""

    def __init__(self, view: Pipeline, dataset: Dataset, limit: int | None) -> None:
        task = get_task(view.composition.task)
        self.view, self.dataset = view, dataset
        self.score = task.score(dataset, view.classes, view.request, view.raw_uint8_bytes)
        self.total = len(dataset) if limit is None else min(limit, len(dataset))
        if not self.total:
            raise DataError(f"{dataset.name} has no samples to evaluate")
        self.identity = identity(view, dataset, self.total)
        self.clock, self.digest, self.costs = view.clock(), Digest(), Costs(view)
        self.sizes = dict.fromkeys(SIZES, 0)
        self.sent = 0
        self.kept = dict.fromkeys(view.composition.keep, 0)
        self.figures: dict[str, float] = {}

    def batch(self, start: int, count: int) -> _Batch:
        rows = range(start, min(start + count, self.total))
        pixels, labels = self.dataset.batch(rows)
        return _Batch(self, rows, pixels, labels, self.dataset.sizes(rows) if self.view.request.placed else None)

    def add(
        self,
        batch: _Batch,
        encoded: Sequence[Encoded],
        records: Sequence[Packet | LocalRecord],
        predictions: Sequence[Prediction],
        figures: Mapping[str, float],
    ) -> None:
        """What became of a batch. figures: sums over its samples."""
        self.digest.update(batch.pixels, batch.labels)
        self.score.add(predictions, batch.labels, batch.sources)
        self.costs.add(batch.pixels, batch.rows, encoded, records, batch.sources)
        for name, value in figures.items():
            self.figures[name] = self.figures.get(name, 0.0) + value / self.total
        for record in encoded:
            for name in SIZES:
                self.sizes[name] += getattr(record, name)
            self.sent += record.bytes_local == 0
            for target, units in record.kept.items():
                self.kept[target] += units

    def record(self, batch: int) -> Record:
        view, dataset, this, score, total = self.view, self.dataset, self.identity, self.score, self.total
        composition = view.composition
        mean = {name: size / total for name, size in self.sizes.items()}
        found: dict[str, Any] = {
            "record": RECORD,
            "key": this.key,
            "spec": view.spec,
            "task": composition.task,
            "knobs": this.knobs,
            "data": dataset.name,
            "split": dataset.split,
            "samples": total,
            "content": this.content,
            "data_digest": self.digest.hexdigest(),
            **score.accuracy(),
            **mean,
            **score.rate(mean["bytes_total"]),
            "bytes_stream_header": len(write_header(view.header)),
            "raw_float32_bytes": view.raw_float32_bytes,
            "raw_uint8_bytes": score.source_bytes,
            "ratio_float32": view.raw_float32_bytes / mean["bytes_total"] if mean["bytes_total"] else None,
            "ratio_uint8": score.source_bytes / mean["bytes_total"] if mean["bytes_total"] else None,
            "sent_ratio": self.sent / total,
            **_counted(view, self.kept, self.sent, total),
            "paper": {**composition.stages.figures, **self.figures},
            "stages_ms": {stage: 1000 * seconds / total for stage, seconds in self.clock.seconds.items()},
            **self.costs.figures(),
            "weights": view.describe_weights(),
            "formats": dict(this.formats),
            "batch": batch,
            "versions": {"semcodec": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "machine": {"platform": platform.platform(), "threads": torch.get_num_threads()},
            **view.accelerator.describe(),
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

    Of a stream for several tasks one record for each of ``tasks``, or of all where none is named, of the same packets.

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
        left, sets = [], []
        for name in views:
            view = pipeline.alone(name)
            if reason := view.composition.lacks_layers():
                note(f"{view.spec} is not measured for {view.composition.task}: {reason}")
                continue
            if name not in datasets:
                datasets[name] = open_dataset(data, split, view.request, classes)
            dataset = datasets[name]
            total = len(dataset) if limit is None else min(limit, len(dataset))
            this = identity(view, dataset, total)
            if this.key not in done and not (known is not None and known.has(this)):
                left.append(view)
                sets.append(dataset)
        if not left:
            continue
        options: dict[str, Any] = {"limit": limit, "batch": batch, "progress": progress}
        records = evaluate_views(left, sets, **options)
        if accelerator.half:
            exact = evaluate_views([view.replace(half=False) for view in left], sets, **options)
            for one, full in zip(records, exact, strict=True):
                one |= cost_of_half(one, full)
        for record in records:
            if known is not None:
                known.add(record)
            yield record


def cost_of_half(half: Mapping[str, Any], full: Mapping[str, Any]) -> dict[str, Any]:
    """What a record of bfloat16 has of one of float32 over the same samples: that one's accuracy and bytes, and the
    paired difference of accuracies, float32 less bfloat16."""
    task = get_task(half["task"])
    at_float32 = {name: full[name] for name in (task.metric.key, "bytes_total")}
    return {"half_cost": {**at_float32, **task.compare(full, half)}}
