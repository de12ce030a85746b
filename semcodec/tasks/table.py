"""Which tasks there are, by name; a task's module is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from semcodec.errors import UsageError
from semcodec.tasks.base import Metric, Record, Task

if TYPE_CHECKING:
    from semcodec.specs import InputRequest
    from semcodec.tasks.base import Floats
    from semcodec.tasks.prediction import Size
    from semcodec.types import Sink, Source

TASKS = {
    "classification": "semcodec.tasks.classification:Classification",
    "video": "semcodec.tasks.classification:Classification",
    "detection": "semcodec.tasks.detection:Detection",
    "segmentation": "semcodec.tasks.segmentation:Segmentation",
    "retrieval": "semcodec.tasks.retrieval:Retrieval",
    "reconstruction": "semcodec.tasks.reconstruction:Reconstruction",
}
"""By name, as ``BackboneSpec.task`` has it, "module:Class"."""
MEAN = Metric("weighted_mean", "weighted mean of the tasks' scores", "weighted mean %")
"""What a record of ``semcodec.tasks.weighted`` has in the place of one task's score."""
WEIGHTS, PARTS = "task_weights", "parts"
"""What it has beside: by task its weight, and its record."""


def get_task(name: str | None) -> Task:
    """The task of that name; None, of a model that says it when it is built, is classification. Raises UsageError."""
    name = name or "classification"
    if name not in TASKS:
        raise UsageError(f"there is no task {name!r}; tasks are {', '.join(TASKS)}")
    return _load(name, TASKS[name])


@cache
def _load(name: str, target: str) -> Task:
    module, _, kind = target.partition(":")
    task: Task = getattr(import_module(module), kind)(name)
    return task


def write_side(names: Iterable[str | None], sink: Sink, size: Size | None, request: InputRequest) -> None:
    """The side information of packets that are for all of these tasks; see ``Task.write_side``."""
    for task in _beside(names):
        task.write_side(sink, size, request)


def read_side(names: Iterable[str | None], source: Source) -> None:
    """Read what ``write_side`` writes. Raises CorruptStream."""
    for task in _beside(names):
        task.read_side(source)


def _beside(names: Iterable[str | None]) -> list[Task]:
    found: dict[str, Task] = {}
    for task in map(get_task, names):
        found.setdefault(task.side or task.name, task)
    return list(found.values())


def metrics() -> dict[str, Metric]:
    """The accuracies that a record may have, by key."""
    found = (get_task(name).metric for name in TASKS)
    return {metric.key: metric for metric in (*found, MEAN)}


def metric_of(record: Record) -> str | None:
    """The key of a record's accuracy; its 95 % interval is under that with ``_interval``. None where it has none."""
    return next((key for key in metrics() if record.get(key) is not None), None)


def task_of(record: Record) -> Task:
    """The task whose accuracy a record has; of several the one that it names. Classification where it has none."""
    key = metric_of(record)
    having = [name for name in TASKS if get_task(name).metric.key == key]
    named: Any = record.get("task")
    return get_task(named if named in having else next(iter(having), None))


def scores_of(record: Record, weights: Floats) -> Floats | None:
    """A record's score of samples that are counted ``weights`` (B, samples) times, (B,), also of a weighted mean.

    None where it does not say how each sample fared. Raises DataError for what cannot be read.
    """
    if metric_of(record) != MEAN.key:
        return task_of(record).scores(record, weights)
    shares: Mapping[str, float] = record.get(WEIGHTS, {})
    found: Floats | None = None
    for task, part in record.get(PARTS, {}).items():
        scores = scores_of(part, weights)
        if scores is None:
            return None
        share = shares[task] / sum(shares.values()) * scores
        found = share if found is None else found + share
    return found


def compare(first: Record, second: Record) -> dict[str, float]:
    """Two records of ``eval`` over the same samples, compared paired as their task does it.

    Returns ``difference`` (of accuracies, first minus second), its 95 % interval ``low``, ``high``, and the two-sided
    ``p`` of no difference. Raises ValueError for records of other data, or of another metric.
    """
    if first.get("data_digest") != second.get("data_digest") or metric_of(first) != metric_of(second):
        raise ValueError("paired results need records of the same samples, measured alike")
    return task_of(first).compare(first, second)
