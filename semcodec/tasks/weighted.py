"""Which tasks of records are asked for, and the weighted mean of their scores where one stream serves several.

Records are of the same packets where spec, knobs, data, samples and bytes are the same. Their weighted mean is a record
of its own, with the key ``MEAN``; every resample of its interval draws the same samples for all tasks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semcodec._json import to_json
from semcodec.errors import UsageError
from semcodec.tasks.base import Record
from semcodec.tasks.statistics import Bootstrap, resampled
from semcodec.tasks.table import MEAN, PARTS, WEIGHTS, metric_of, metrics, scores_of, task_of

SHARED = ("record", "spec", "name", "knobs", "data", "split", "samples", "seed", "bytes_total", "bytes_payload",
          "bytes_side", "bytes_header", "bytes_local", "bytes_stream_header", "raw_float32_bytes", "raw_uint8_bytes",
          "ratio_float32", "ratio_uint8", "sent_ratio", "macs_device", "memory_device", "formats", "batch", "versions",
          "machine")  # fmt: skip
"""Keys of a record that are the same for every task of a stream."""
OWN = "tail"
"""The first stage that each task has of its own."""


@dataclass(frozen=True)
class Asked:
    """tasks: by name, in order. weights: of each, as they were given; empty where no mean is asked for.

    option: what messages say that it is asked by, before its value.
    """

    tasks: tuple[str, ...] = ()
    weights: Mapping[str, float] | None = None
    option: str = "--task "

    @classmethod
    def parse(cls, texts: Iterable[str], option: str = "--task ") -> Asked:
        """Of ``NAME``s, or ``NAME=WEIGHT,NAME=WEIGHT``. Raises UsageError."""
        found: dict[str, float | None] = {}
        for text in (part.strip() for given in texts for part in given.split(",")):
            name, equals, value = text.partition("=")
            if not name:
                raise UsageError(f"{option}{text}: expects NAME, or weights as in classification=1,detection=2")
            if name in found:
                raise UsageError(f"{option}{text} names {name} twice")
            found[name] = _weight(f"{option}{text}", value) if equals else None
        weighed = {name: weight for name, weight in found.items() if weight is not None}
        if weighed and len(weighed) < len(found):
            bare = next(name for name, weight in found.items() if weight is None)
            raise UsageError(f"{option}{bare} has no weight beside others that have one: weigh all or none")
        return cls(tuple(found), weighed or None, option)


def _weight(text: str, value: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"{text}: a weight is a number above 0, as in classification=1,detection=2")
    return weight


def chosen(
    records: Sequence[Record], asked: Asked, where: object, notes: list[str] | None = None
) -> list[Mapping[str, Any]]:
    """The records of the tasks that are asked for, before them those of their weighted mean; all where none is named.

    where: what messages call the place that they are in. notes: takes what is left out of the mean. Raises UsageError
    for a task that no record has, or where no point has all tasks of a mean.
    """
    there = list(dict.fromkeys(name_of(record) for record in records))
    for task in asked.tasks:
        if records and task not in there:
            raise UsageError(f"{where} has no task {task!r}; it has {', '.join(there)}")
    kept = [record for record in records if not asked.tasks or name_of(record) in asked.tasks]
    return [*(means_of(kept, asked, where, notes) if kept else []), *kept]


def name_of(record: Record) -> str:
    """The task of a record, also of one that does not name it."""
    return task_of(record).name


def means_of(
    records: Sequence[Record], asked: Asked, where: object, notes: list[str] | None = None
) -> list[dict[str, Any]]:
    """The weighted mean of each point that has all tasks; none where no weights are given. Raises UsageError."""
    weights = asked.weights
    if weights is None:
        return []
    for record in records:
        refuse_other_units(record)
    points: dict[str, dict[str, Record]] = {}
    for record in (one for one in records if name_of(one) in weights):
        named = [record.get(key) for key in ("name", "spec", "knobs", "data", "split", "samples", "bytes_total")]
        points.setdefault(to_json(named, sort_keys=True), {})[name_of(record)] = record
    whole = [parts for parts in points.values() if len(parts) == len(weights)]
    if not whole:
        raise UsageError(f"{where}: no point was measured for {' and '.join(weights)} on the same samples and bytes")
    if len(whole) < len(points) and notes is not None:
        lost = len(points) - len(whole)
        notes.append(f"points left out of the weighted mean: {lost} that were not measured for all tasks")
    return [mean_of({task: parts[task] for task in weights}, weights) for parts in whole]


def refuse_other_units(record: Record) -> None:
    """Raise UsageError for a score that is no fraction, which is neither weighed with others nor planned for."""
    metric = metrics()[metric_of(record) or MEAN.key]
    if metric.unit != MEAN.unit:
        raise UsageError(
            f"{name_of(record)} is measured by {metric.label} in {metric.unit}: it has no weight beside scores in "
            f"{MEAN.unit}, and nothing is planned for it; name other tasks"
        )


def mean_of(parts: Mapping[str, Record], weights: Mapping[str, float]) -> dict[str, Any]:
    """The record of the weighted mean of one point's scores. parts: by task, its record.

    Times, multiply-accumulates and memory of the server are those of all tails after one restoring: what they share is
    the mean of what was measured, what is their own the sum.
    """
    first, total = next(iter(parts.values())), sum(weights.values())
    found: dict[str, Any] = {key: first[key] for key in SHARED if key in first}
    named = [[part.get("key"), part.get("data_digest")] for part in parts.values()]
    found |= {
        "key": _digest([*named, dict(weights)]),
        "task": None,
        "data_digest": _digest([part.get("data_digest") for part in parts.values()]),
        WEIGHTS: dict(weights),
        PARTS: dict(parts),
        MEAN.key: sum(weights[task] * part[metric_of(part) or ""] for task, part in parts.items()) / total,
        "stages_ms": _stages([part["stages_ms"] for part in parts.values()]),
        "weights": {slot: source for part in parts.values() for slot, source in part.get("weights", {}).items()},
        **_computed(list(parts.values())),
    }
    drawn = scores_of(found, resampled(int(first["samples"])))
    if drawn is not None:
        found[f"{MEAN.key}_interval"] = list(Bootstrap(found[MEAN.key], drawn).interval())
    return found


def tells(record: Record) -> bool:
    """Whether curves of such records are compared by resamples: it says which samples were right, or is a mean."""
    return bool(record.get("correct")) or PARTS in record


def _stages(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    shared: dict[str, list[float]] = {}
    own: dict[str, float] = {}
    for stages in measured:
        names = list(stages)
        last = names.index(OWN) if OWN in names else len(names)
        for name in names[:last]:
            shared.setdefault(name, []).append(stages[name])
        for name in names[last:]:
            own[name] = own.get(name, 0.0) + stages[name]
    return {name: sum(times) / len(times) for name, times in shared.items()} | own


def _computed(parts: Sequence[Record]) -> dict[str, Any]:
    """What the server computes for all tasks, and the device's part of both; nothing where a record does not tell."""

    def each(key: str) -> list[float] | None:
        values: list[Any] = [part.get(key) for part in parts]
        return None if None in values else values

    memory, device, whole, shared = map(each, ("memory_server", "macs_device", "macs_server", "macs_shared"))
    found: dict[str, Any] = {} if memory is None else {"memory_server": max(memory)}
    if device is None or whole is None or shared is None:
        return found
    server = shared[0] + sum(whole) - sum(shared)
    share = device[0] / (device[0] + server) if device[0] + server else None
    return found | {"macs_server": server, "device_share": share}


def _digest(named: Any) -> str:
    return hashlib.sha256(to_json(named, sort_keys=True).encode()).hexdigest()[:16]
