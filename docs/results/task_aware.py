"""Trains and measures what docs/results/task_aware.md shows: one codec for pixels and for the task on digits-scenes.

    python docs/results/task_aware.py runs/task-aware     trains what is not there yet, measures what is not known yet
    python docs/results/task_aware.py show                tables and task_aware.svg again

About 25 minutes on a core of its own. Run again to go on.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pages
import torch

from semcodec.bench import deltas, results
from semcodec.composition.composition import compose_spec
from semcodec.errors import UsageError
from semcodec.evaluation.evaluate import run_sweep
from semcodec.evaluation.keys import Known
from semcodec.pipeline.weights import WeightsRequest
from semcodec.tasks.table import compare
from semcodec.training.train import WEIGHTS, train

HERE = Path(__file__).parent
RECORDS, PAGE, PICTURE = (HERE / f"task_aware.{suffix}" for suffix in ("jsonl", "md", "svg"))
MARKS = "<!-- table -->", "<!-- end of table -->"
DATA, BACKBONE, DETECTOR = "digits-scenes", "resnet-nano", "det-nano"
QUALITIES = (1, 2, 3, 4)
TASKS = ((4, 0.5), (4, 2.0), (1, 1.0), (1, 4.0), (1, 12.0), (1, 36.0))
"""Quality of the codec that the task's begins from, and lambda."""
FIRST, MORE = 10_000, 4_000
"""Samples of a codec for pixels, and of each half of what comes after. In the first the backbone alone learns to read
what is decoded; in the second it goes on so, or all learns for the task."""
PIXELS, OBJECTIVE = 60_000, 40_000
"""Samples of the recipe ``pixels`` and of an objective, on this data."""
LOW = {"jpeg": 3, "webp": 1}
"""The quality at which the backbone learns to read pictures; it is then measured at all of them."""
SHOWN = {"jpeg": "JPEG", "webp": "WebP"}
PICTURES = {"jpeg": (1, 2, 3, 5, 10, 20), "webp": (1, 5, 10, 20, 40)}
FOUND = 200
"""Test pictures of the detector; the others are measured on 500."""


def codec(quality: int) -> str:
    return f"learned/bmshj2018-factorized:quality={quality},size=16-24+rans+{BACKBONE}"


@dataclass
class Run:
    """One training. start: the run whose weights it begins with, of all slots."""

    name: str
    spec: str
    samples: int
    objective: str = "recipe"
    rate_weight: float | None = None
    start: str | None = None


@dataclass
class Curve:
    """Points under one name: run by run, or one run over a grid."""

    name: str
    spec: str
    run: str | None = None
    grid: tuple[str, tuple[int, ...]] | None = None
    samples: int = 500


def learning() -> Iterator[Run]:
    for quality in QUALITIES:
        yield Run(f"pixels-{quality}", codec(quality), FIRST)
        yield Run(f"refined-{quality}", codec(quality), MORE, "refine", start=f"pixels-{quality}")
    for quality, weight in TASKS:
        yield Run(f"task-{quality}-{weight:g}", codec(quality), MORE, "task", weight, f"refined-{quality}")
    for quality in QUALITIES:
        yield Run(f"control-{quality}", codec(quality), MORE, "refine", start=f"refined-{quality}")
    for picture, quality in LOW.items():
        yield Run(f"{picture}-refined", f"{picture}:quality={quality}+{BACKBONE}", 2 * MORE, "refine")
    yield Run("det-refined", f"jpeg:quality={LOW['jpeg']}+{DETECTOR}", MORE, "refine")


def curves() -> Iterator[Curve]:
    yield Curve("uncompressed", f"png+{BACKBONE}")
    for picture, qualities in PICTURES.items():
        shown = SHOWN[picture]
        for name, run in ((shown, None), (f"{shown}, refined", f"{picture}-refined")):
            yield Curve(name, f"{picture}+{BACKBONE}", run, (f"{picture}.quality", qualities))
    for quality in QUALITIES:
        yield Curve("pixels", codec(quality), f"pixels-{quality}")
    for quality, weight in TASKS:
        yield Curve("task-aware", codec(quality), f"task-{quality}-{weight:g}")
    for quality in QUALITIES:
        yield Curve("pixels, refined", codec(quality), f"control-{quality}")
    grid = ("jpeg.quality", PICTURES["jpeg"])
    yield Curve("detector: uncompressed", f"png+{DETECTOR}", samples=FOUND)
    yield Curve("detector: JPEG", f"jpeg+{DETECTOR}", None, grid, FOUND)
    yield Curve("detector: JPEG, refined", f"jpeg+{DETECTOR}", "det-refined", grid, FOUND)


def learn(runs: Path, run: Run) -> None:
    if (runs / run.name / WEIGHTS).exists():
        return
    whole = PIXELS if run.objective == "recipe" else OBJECTIVE
    request = WeightsRequest({"": str(runs / run.start)} if run.start else {}, offline=True)
    train(
        run.spec, DATA, runs / run.name, request=request, objective=run.objective, rate_weight=run.rate_weight,
        scale=run.samples / whole,
    )  # fmt: skip


def measure(runs: Path, curve: Curve) -> None:
    request = WeightsRequest({"": str(runs / curve.run)} if curve.run else {}, offline=True)
    grid = dict([curve.grid]) if curve.grid else {}
    known = Known.read(RECORDS)
    for record in run_sweep(compose_spec(curve.spec), grid, request, DATA, limit=curve.samples, known=known):
        pages.append(RECORDS, {**record, "name": curve.name, "run": curve.run})
        print(f"{curve.name} {curve.run or ''}: {_percent(record)} %, {record['bytes_total']:.0f} bytes", flush=True)


def accuracy(record: dict[str, Any]) -> float:
    return float(record["top1"] if "top1" in record else record["map50"])


def _percent(record: dict[str, Any]) -> str:
    low, high = record["top1_interval"] if "top1" in record else record["map50_interval"]
    return f"{100 * accuracy(record):.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _knob(record: dict[str, Any]) -> str:
    if record["name"] == "task-aware":
        _, quality, weight = record["run"].split("-")
        return f"from {quality}, lambda {weight}"
    quality = record["knobs"].get("quality") or (record["run"] or "-").rpartition("-")[2]
    return f"quality {quality}" if quality else ""


def tell() -> str:
    rows = pages.read(RECORDS)
    names = list(dict.fromkeys(curve.name for curve in curves()))
    rows.sort(key=lambda row: (names.index(row["name"]), row["bytes_total"]))
    lines = ["| codec | knob | top-1 or mAP50, % (95 %) | bytes |", "| --- | --- | --- | ---: |"]
    lines += [f"| {r['name']} | {_knob(r)} | {_percent(r)} | {r['bytes_total']:.0f} |" for r in rows]
    return "\n".join([*lines, "", *equal(rows), "", *rates(), "", *pairs(rows)])


def equal(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Bytes at which each curve reaches an accuracy, log bytes interpolated between points of its Pareto front."""
    levels = (0.75, 0.83, 0.88, 0.9, 0.93)
    yield "| bytes at top-1 of | " + " | ".join(f"{100 * level:.0f} %" for level in levels) + " |"
    yield "| --- |" + " ---: |" * len(levels)
    for name in dict.fromkeys(row["name"] for row in rows if "top1" in row and row["name"] != "uncompressed"):
        yield f"| {name} | " + " | ".join(bytes_at(rows, name, level) for level in levels) + " |"


def bytes_at(rows: list[dict[str, Any]], name: str, level: float) -> str:
    front: list[tuple[float, float]] = []
    for row in (row for row in rows if row["name"] == name):  # in order of bytes
        if not front or row["top1"] > front[-1][1]:
            front.append((row["bytes_total"], row["top1"]))
    if front[0][1] >= level:
        return f"at most {front[0][0]:.0f}"
    for (a, low), (b, high) in itertools.pairwise(front):
        if low <= level <= high:
            share = (level - low) / (high - low)
            return f"{math.exp((1 - share) * math.log(a) + share * math.log(b)):.0f}"
    return "not reached"


def rates() -> Iterator[str]:
    """Bjøntegaard deltas, as ``semcodec report docs/results/task_aware.jsonl --bd CURVE`` has them."""
    yield "| curve | against | BD-rate, % | BD-accuracy, points | shared accuracies, % |"
    yield "| --- | --- | ---: | ---: | ---: |"
    found = results.load(RECORDS)
    for anchor in ("pixels, refined", "JPEG", "detector: JPEG"):
        try:
            groups = deltas.against(found, anchor)
        except UsageError as error:
            yield f"| - | {anchor} | {str(error).split(';')[0]} | | |"
            continue
        for group in groups.values():
            for delta in group:
                if delta.curve in ("task-aware", f"{anchor}, refined"):
                    figures = [f"{v:+.1f}" if v is not None else "-" for v in (delta.rate, delta.accuracy)]
                    yield f"| {delta.curve} | {anchor} | {' | '.join(figures)} | {100 * delta.overlap:.0f} |"


def pairs(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Each task-aware point against the cheapest of other curves that costs at least as much, on the same pictures."""
    yield "| codec | against | bytes | apart, points (95 %) | McNemar p |"
    yield "| --- | --- | --- | --- | ---: |"
    for ours in (row for row in rows if row["name"] == "task-aware"):
        for other in ("pixels", "pixels, refined"):
            dear = [row for row in rows if row["name"] == other and row["bytes_total"] >= ours["bytes_total"]]
            if dear:
                theirs = min(dear, key=lambda row: float(row["bytes_total"]))
                test = compare(ours, theirs)
                yield (
                    f"| task-aware, {_knob(ours)} | {other}, {_knob(theirs)} | {ours['bytes_total']:.0f}, "
                    f"{theirs['bytes_total']:.0f} | {100 * test['difference']:+.1f} ({100 * test['low']:+.1f} to "
                    f"{100 * test['high']:+.1f}) | {test['p']:.2g} |"
                )


def picture(rows: list[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "semcodec"
    figure, axes = pyplot.subplots(figsize=(7.5, 5))
    for name in dict.fromkeys(row["name"] for row in rows if "top1" in row):
        points = sorted((row["bytes_total"], *row["top1_interval"], row["top1"]) for row in rows if row["name"] == name)
        sizes, low, high, middle = ([value * 100 if i else value for value in column] for i, column in
                                    enumerate(zip(*points, strict=True)))  # fmt: skip
        if name == "uncompressed":
            axes.axhline(middle[0], color="grey", lw=0.8, ls="--", label=name)
            continue
        (line,) = axes.plot(sizes, middle, marker="o", ms=3, ls="--" if "refined" in name else "-", label=name)
        axes.fill_between(sizes, low, high, color=line.get_color(), alpha=0.1, lw=0)
    axes.set(xscale="log", xlabel="bytes a picture, whole packets", ylabel="top-1, % (band: 95 %, Wilson)")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})


def show() -> None:
    pages.tell(PAGE, MARKS, [tell()])
    picture(pages.read(RECORDS))


def main() -> None:
    if sys.argv[1:] != ["show"]:
        torch.set_num_threads(1)
        runs = Path(sys.argv[1])
        for run in learning():
            learn(runs, run)
        for curve in curves():
            measure(runs, curve)
    show()


if __name__ == "__main__":
    main()
