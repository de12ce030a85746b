"""Whether the records of a results folder are still of what would be measured now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from semcodec.bench.cells import Cell
from semcodec.bench.worker import Settings
from semcodec.errors import SemcodecError


def content(settings: Settings) -> str:
    """What the samples of a run hold, as ``Dataset.content`` names it."""
    from semcodec.data.datasets import open_dataset

    dataset = open_dataset(settings.data, settings.split, classes=settings.classes)
    return dataset.content(len(dataset) if settings.limit is None else min(settings.limit, len(dataset)))


def changed(
    cells: Sequence[Cell],
    known: Mapping[str, Mapping[str, Any]],
    settings: Settings,
    where: Path,
    *,
    remeasure: bool,
    tell: Callable[[str], None],
) -> set[str]:
    """Digests of those cells whose records are of other samples, weights or formats than are here now.

    Models are built to name their weights, once for all cells of a family. A record whose models cannot be built any
    more stands: nothing could be measured in its place. Raises UsageError without ``remeasure``, naming what changed.
    """
    from semcodec.composition.composition import compose_spec
    from semcodec.data.datasets import open_dataset
    from semcodec.evaluation.evaluate import identity
    from semcodec.evaluation.keys import Known
    from semcodec.pipeline.pipeline import Pipeline
    from semcodec.pipeline.weights import WeightsRequest

    request = WeightsRequest.parse(settings.weights, settings.offline)
    data, split, classes = settings.data, settings.split, settings.classes
    pipeline: Any = None
    datasets: dict[Any, Any] = {}
    found = set()
    for cell in cells:
        record = known.get(cell.digest)
        if record is None or "failed" in record:
            continue
        composition = compose_spec(cell.spec)
        try:
            if pipeline is not None and pipeline.shares_models(composition):
                pipeline = pipeline.replace(composition=composition)
            else:
                names = open_dataset(data, split, classes=classes, task=composition.task).classes
                pipeline = Pipeline.load(composition, request, classes=names)
        except SemcodecError:
            pipeline = None
            continue
        view = pipeline if cell.task is None else pipeline.alone(cell.task)
        if view.request not in datasets:
            datasets[view.request] = open_dataset(data, split, view.request, classes)
        dataset = datasets[view.request]
        total = len(dataset) if settings.limit is None else min(settings.limit, len(dataset))
        this = identity(view, dataset, total)
        # The folder is of one data set and one choice of weights, whatever these were called and how many there were.
        sources = {slot: dict(source) for slot, source in this.weights.items()}
        named = {**record, "data": this.data, "samples": total, "weights": {
            slot: {**sources.get(slot, {}), "digest": source.get("digest")}
            for slot, source in record.get("weights", {}).items()
        }}  # fmt: skip
        if not Known([named], where, remeasure=remeasure, tell=tell).has(this):
            found.add(cell.digest)
    return found
