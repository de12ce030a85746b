"""What records say together: curves, the Pareto front, time by stage and over a link. No torch here.

Rates are mean bytes a sample (``bytes_total``), accuracies fractions, times milliseconds a sample.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from semcodec.composition.grammar import parse
from semcodec.errors import DataError, SemcodecError, UsageError
from semcodec.evaluation import records
from semcodec.evaluation.record_form import check_record, check_version
from semcodec.planning.operating_points import MODEL, SERVER, backbone_of, pool_tails
from semcodec.planning.plan import check_share
from semcodec.tasks.base import Metric
from semcodec.tasks.table import MEAN, metric_of, metrics
from semcodec.tasks.weighted import Asked, chosen


@dataclass(frozen=True)
class MeasuredPoint:
    """One operating point. ``low``, ``high``: 95 % interval of the accuracy. ``front``: nothing measured beats it.
    ``share``: the device's part of what both ends compute; None where a record does not tell.
    """

    spec: str
    curve: str
    accuracy: float
    low: float
    high: float
    bytes: float
    device_ms: Mapping[str, float]
    server_ms: Mapping[str, float]
    record: Mapping[str, Any]
    front: bool = False
    share: float | None = None

    @property
    def shown(self) -> tuple[float, float, float]:
        """The accuracy, and its interval, in the unit of its metric."""
        measure = metrics()[_metric(self.record, self.spec)]
        return measure.shown(self.accuracy), measure.shown(self.low), measure.shown(self.high)

    def ms(self, mbps: float) -> float:
        """Completion time at a rate in Mbit/s: device, link and server (STAE eqs. 2 to 4)."""
        return sum(self.device_ms.values()) + self.link_ms(mbps) + sum(self.server_ms.values())

    def link_ms(self, mbps: float) -> float:
        """Of it, the link's part."""
        return self.bytes * 8e-3 / mbps


@dataclass(frozen=True)
class Baseline:
    """What is done without compressing: ``device_ms``, then ``bytes`` over the link, then ``server_ms``."""

    label: str
    bytes: float
    device_ms: float
    server_ms: float

    def ms(self, mbps: float) -> float:
        """Completion time at a rate in Mbit/s."""
        return self.device_ms + self.bytes * 8e-3 / mbps + self.server_ms


@dataclass(frozen=True)
class Group:
    """The points of one data set, which alone compare. ``points`` are in order of bytes."""

    data: str
    split: str | None
    samples: int
    digest: str
    metric: str
    points: tuple[MeasuredPoint, ...]
    baselines: tuple[Baseline, ...]

    @property
    def measure(self) -> Metric:
        """What its points' accuracy is."""
        return metrics()[self.metric]

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from the other groups."""
        return self.digest, self.data, self.metric

    @property
    def title(self) -> str:
        """The data set's name; of a folder its last part, since where it lies is nobody else's."""
        return re.split(r"[/\\]", self.data.rstrip("/\\"))[-1] or self.data

    @property
    def curves(self) -> dict[str, list[MeasuredPoint]]:
        """Points by curve, curves in order of their first record."""
        found: dict[str, list[MeasuredPoint]] = {}
        for point in self.points:
            found.setdefault(point.curve, []).append(point)
        return found


_ROOT = r"(?:~|[A-Za-z]:)?[/\\]"
FOLDERS = re.compile(
    rf"""(?<=['"]){_ROOT}[^'"]*[/\\](?=[^'"/\\])|(?<![^\s='"(:,]){_ROOT}(?:[^\s/\\'"]+[/\\])*(?=[^\s/\\'"])"""
)
"""What stands before the last part of an absolute path, in quotes or not."""


def without_folders(text: str) -> str:
    """Text whose absolute paths are their last part alone, since a page is sent to others."""
    return FOLDERS.sub("", text)


@dataclass(frozen=True)
class Results:
    """All there is to report. ``header``: of the results folder. ``warnings``: what was passed over in reading."""

    source: Path
    groups: tuple[Group, ...]
    failures: tuple[Mapping[str, Any], ...] = ()
    skips: tuple[Mapping[str, Any], ...] = ()
    header: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def load(path: Path, curves: Sequence[str] = (), max_share: float | None = None, asked: Asked | None = None) -> Results:
    """Read a results folder or a file of records. Raises DataError, UsageError.

    asked: only these tasks, and the weighted mean of their scores where they have weights. curves: only these.
    max_share: only points whose device computes no more than this part of what both ends compute; a warning says how
    many are left out.
    """
    warnings: list[str] = []
    skips: list[dict[str, Any]] = []
    header: dict[str, Any] = {}
    if path.is_dir():
        found, header = records.read(path, warnings), records.check_form(path)
        skips, _ = records.lines(path / records.SKIPS, warnings)
    elif path.exists():
        found = [records.restated(record) for record in records.lines(path, warnings)[0]]
    else:
        raise DataError(f"{path} is not there; name a folder that 'semcodec bench' made, or a file of records")
    measured: Sequence[Mapping[str, Any]] = chosen(_checked(found, path), asked or Asked(), path, warnings)
    if max_share is not None:
        check_share(max_share)
        measured = within(measured, max_share, warnings)
    groups = _grouped(measured)
    failures = [record for record in found if "failed" in record]
    if not groups:
        reason = f": all {len(failures)} cells failed, the first as {failures[0]['failed']}" if failures else ""
        raise DataError(f"{path} has no records to report{reason}")
    if curves:
        groups = _narrowed(groups, curves)
    return Results(path, groups, tuple(failures), tuple(skips), header, tuple(warnings))


def within(
    found: Sequence[Mapping[str, Any]], max_share: float, notes: list[str] | None = None
) -> list[Mapping[str, Any]]:
    """Records whose device computes no more than this part of what both compute. ``notes``: takes what is left out.

    Raises UsageError where none is left.
    """
    shares = [record.get("device_share") for record in found]
    kept = [record for record, share in zip(found, shares, strict=True) if share is not None and share <= max_share]
    known = [share for share in shares if share is not None]
    if found and not kept:
        least = f"the least is {min(known):.3g}" if known else "no record says what it is: measure anew"
        raise UsageError(f"no point has a device's share of at most {max_share:g}; {least}")
    lost, silent = len(known) - len(kept), len(shares) - len(known)
    parts = [f"{lost} with a larger device's share than {max_share:g}"] if lost else []
    parts += [f"{silent} that do not say what it is"] if silent else []
    if parts and notes is not None:
        notes.append(f"points left out: {' and '.join(parts)}")
    return kept


def _checked(found: Sequence[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """The records that ran, the last of those that are of the same cell. Raises DataError for another form."""
    kept: dict[Any, dict[str, Any]] = {}
    for number, record in enumerate(found, 1):
        where = f"{path}, record {number}"
        check_version(record, where)
        if "failed" in record:
            check_record(record, where)
            continue
        numbers = [record.get("bytes_total"), record.get(_metric(record, where)), *_stages(record, where).values()]
        if not isinstance(record.get("spec"), str) or not all(map(_is_number, numbers)):
            raise DataError(f"{where}: lacks a spec, bytes_total, an accuracy or stages_ms as numbers")
        check_record(record, where)
        same = record.get("cell") or record.get("key") or number
        kept[record.get("name"), same] = record
    return list(kept.values())


def _metric(record: Mapping[str, Any], where: str) -> str:
    metric = metric_of(record)
    if metric is None:
        raise DataError(f"{where}: has none of {', '.join(metrics())}")
    return metric


def _stages(record: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    stages = record.get("stages_ms")
    if not isinstance(stages, dict):
        raise DataError(f"{where}: lacks stages_ms")
    return stages


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _grouped(found: Iterable[Mapping[str, Any]]) -> tuple[Group, ...]:
    """Records by what they were measured on: a mean of tasks that was asked for, then the larger groups."""
    by_data: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for record in found:
        key = (record.get("data_digest"), record.get("data"), _metric(record, ""))
        by_data.setdefault(key, []).append(record)
    groups = []
    for (digest, data, metric), members in by_data.items():
        points = [_point(record, metric) for record in members]
        best = {id(point) for point in pareto(points)}
        marked = [replace(point, front=id(point) in best) for point in points]
        first = members[0]
        groups.append(
            Group(
                str(data),
                first.get("split"),
                int(first.get("samples", 0)),
                str(digest or ""),
                metric,
                tuple(sorted(marked, key=lambda p: (p.bytes, -p.accuracy))),
                tuple(_baselines(members)),
            )
        )
    return tuple(sorted(groups, key=lambda group: (group.metric != MEAN.key, -len(group.points))))


def _point(record: Mapping[str, Any], metric: str) -> MeasuredPoint:
    accuracy = float(record[metric])
    low, high = record.get(f"{metric}_interval") or (accuracy, accuracy)
    stages = record["stages_ms"]
    device = {stage: ms for stage, ms in stages.items() if stage not in SERVER}
    server = {stage: ms for stage, ms in stages.items() if stage in SERVER}
    curve = record.get("name") or stem(record["spec"], record.get("knobs", {}))
    return MeasuredPoint(
        record["spec"], curve, accuracy, low, high, float(record["bytes_total"]), device, server, record,
        share=record.get("device_share"),
    )  # fmt: skip


def _baselines(members: Sequence[Mapping[str, Any]]) -> list[Baseline]:
    """Local computing and full offloading for each backbone, timed by the records that left it the most to do.

    Tails that compute the same are pooled first, as ``semcodec plan`` does.
    """
    most: dict[tuple[str, str], Mapping[str, Any]] = {}
    for record in pool_tails([{"sent_ratio": 1.0, **record} for record in members])[0]:
        backbone = backbone_of(record)
        whole = record["sent_ratio"] == 1.0 and {"head", "tail"} <= set(record["stages_ms"])
        if whole and (backbone not in most or _backbone_ms(record) > _backbone_ms(most[backbone])):
            most[backbone] = record
    found = []
    for (name, cut), record in most.items():
        whole_ms = _backbone_ms(record)
        found.append(Baseline(f"local: {name} on the device", 0.0, whole_ms, 0.0))
        if cut in ("", "input") and record.get("raw_uint8_bytes"):
            found.append(Baseline(f"full offloading to {name}, 8-bit pixels", record["raw_uint8_bytes"], 0.0, whole_ms))
    return found


def _backbone_ms(record: Mapping[str, Any]) -> float:
    return sum(float(record["stages_ms"].get(stage, 0.0)) for stage in MODEL)


def stem(spec: str, knobs: Mapping[str, Any]) -> str:
    """A spec without what needs no other model, which names the curve its points lie on.

    That is without call parameters, Selectors' parameters and the Selectors that the Encoder has anyway.
    knobs: the Encoder's call parameters; they tell for components that are not installed here.
    """
    from semcodec.composition.registry import get_registry

    items, usual = [], set()
    for item in parse(spec).items:
        try:
            component = get_registry().find(item.name, item.kind)
        except SemcodecError:
            kept = [arg for arg in item.args if arg.key is None or arg.key not in knobs]
        else:
            own = component.params if component.kind != "selector" else ()
            build = {param.name for param in own if param.when == "build"}
            kept = [arg for arg in item.args if (arg.key or component.positional) in build]
            targets = component.traits.get("targets", ())
            for own_item in (i for text in component.traits.get("selectors", ()) for i in parse(text).items):
                target = own_item.target or (targets[0] if len(targets) == 1 else None)
                usual.add(str(replace(own_item, args=(), target=target)))
        items.append(str(replace(item, args=tuple(kept))))
    return "+".join(item for item in items if item not in usual)


def pareto(points: Iterable[MeasuredPoint]) -> list[MeasuredPoint]:
    """The points that no other beats, in order of bytes: each more accurate than all that take no more bytes."""
    front: list[MeasuredPoint] = []
    for point in sorted(points, key=lambda p: (p.bytes, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


SHOWN = 6
"""How many points are followed where there are no more curves than that."""
FOLLOWED_CURVES = 12
"""Of how many curves the best point is followed: of more the eye follows none."""


def best_of(points: Sequence[MeasuredPoint]) -> MeasuredPoint:
    """The most accurate point, of several the one that takes the fewest bytes."""
    return max(points, key=lambda point: (point.accuracy, -point.bytes))


def followed(group: Group, anchor: str | None = None) -> list[MeasuredPoint]:
    """Points to look at first: the anchor's best, each curve's best, and what there is room for evenly over the front.

    Where there are many curves the ones whose best point is most accurate are taken. In order of bytes.
    """
    bests = {name: best_of(points) for name, points in group.curves.items()}
    ranked = sorted(bests, key=lambda name: (name != anchor, -bests[name].accuracy, bests[name].bytes))
    chosen = [bests[name] for name in ranked[:FOLLOWED_CURVES]]
    front = [point for point in group.points if point.front]
    count = min(SHOWN, len(front))
    for point in (front[round(i * (len(front) - 1) / max(1, count - 1))] for i in range(count)):
        if len(chosen) < SHOWN and all(point is not other for other in chosen):
            chosen.append(point)
    kept = {id(point) for point in chosen}
    return [point for point in group.points if id(point) in kept]


def uncompressed(group: Group) -> dict[str, float]:
    """By backbone, the accuracy of the model alone: where the points have one that changes nothing it is known."""
    found: dict[str, float] = {}
    for point in group.points:
        if _changes_nothing(point):
            found.setdefault(backbone_of(point.record)[0], point.accuracy)
    return found


def _changes_nothing(point: MeasuredPoint) -> bool:
    """Whether the whole model ran on the device, or all pixels were sent without loss."""
    from semcodec.composition.registry import get_registry

    record = point.record
    if point.bytes == 0:
        return point.share == 1 and record.get("macs_device", -1) == record.get("macs_whole", -2)
    item = parse(point.spec).items[0]
    try:
        exact = get_registry().find(item.name, "encoder").traits.get("error") == 0
    except SemcodecError:
        return False
    _, cut = backbone_of(record)
    return exact and cut in ("", "input") and not item.args and record.get("sent_ratio", 1.0) == 1.0


def names(groups: Sequence[Group]) -> list[str]:
    """Of all curves, each once."""
    return list(dict.fromkeys(name for group in groups for name in group.curves))


def _narrowed(groups: Sequence[Group], curves: Sequence[str]) -> tuple[Group, ...]:
    known = names(groups)
    for name in curves:
        if name not in known:
            raise UsageError(f"there is no curve {name!r}; there are {', '.join(known)}")
    kept = []
    for group in groups:
        points = [replace(point, front=False) for point in group.points if point.curve in curves]
        best = {id(point) for point in pareto(points)}
        if points:
            kept.append(replace(group, points=tuple(replace(p, front=id(p) in best) for p in points)))
    return tuple(kept)
