"""Trains and measures what docs/results/many_tasks.md shows: one stream for three tasks beside a stream for each.

    python docs/results/many_tasks.py runs/many               trains what is missing, measures, writes the page's tables
    python docs/results/many_tasks.py runs/many --only tables  from the records that are there

Every codec starts from the detector's that ships (`layered+det-nano@d3`) and learns by distillation from as many
pictures: from its own tail where it is for one task, from all where it is for all. Run again to go on; the records
are in many_tasks.jsonl, the tables of many_tasks.md, between their marks, are made from them anew.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.composition.composition import compose_spec
from semcodec.evaluation.evaluate import run_sweep
from semcodec.evaluation.keys import Known
from semcodec.pipeline.weights import WeightsRequest
from semcodec.tasks.average_precision import Matches
from semcodec.tasks.mean_iou import Counts
from semcodec.tasks.statistics import resampled
from semcodec.tasks.table import get_task
from semcodec.training.train import WEIGHTS, train

HERE = Path(__file__).parent
RECORDS, PAGE = HERE / "many_tasks.jsonl", HERE / "many_tasks.md"
MARKS = "<!-- tables -->", "<!-- end of tables -->"
DATA = "digits-scenes"
TAILS = {"classification": "cls-nano", "detection": "det-nano", "retrieval": "embed-nano"}
ALL = "+".join(f"{tail}@d3" for tail in TAILS.values())
ONE = f"layered+rans+{ALL}"
EACH = {task: f"layered+rans+{tail}@d3" for task, tail in TAILS.items()}
PICTURES = {
    "WebP": (f"webp+{'+'.join(TAILS.values())}", {"webp.quality": [1, 5, 15, 40, 75]}),
    "AVIF": (f"avif+{'+'.join(TAILS.values())}", {"avif.quality": [5, 15, 30, 50]}),
    "uncompressed": (f"png+{'+'.join(TAILS.values())}", {}),
}
LAYERS = {"layered.layers": [1, 2, 3, 4]}
START = "semcodec_plugins.layered", "weights/layered-det-nano.safetensors"
BELOW = (0.01, 0.02, 0.05, 0.1)
"""By how much all scores may be below those of the pictures as they are, in every resample."""
WAYS = ("one stream", "a stream for each", "WebP", "AVIF")
Floats = npt.NDArray[np.float64]


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.exists() else []


def teach(spec: str, out: Path, scale: float, weights: Mapping[str, float]) -> None:
    if not (out / WEIGHTS).exists():
        with as_file(files(START[0]) / START[1]) as start:
            train(
                spec, DATA, out, request=WeightsRequest(offline=True), init=str(start), objective="distil",
                scale=scale, task_weights=weights,
            )  # fmt: skip


def keep(name: str, spec: str, grid: Mapping[str, Sequence[Any]], request: WeightsRequest, limit: int) -> None:
    for record in run_sweep(compose_spec(spec), grid, request, DATA, limit=limit, known=Known.read(RECORDS)):
        for weights in record["weights"].values():
            weights["source"] = Path(weights["source"] or "").name
        with RECORDS.open("a") as file:
            file.write(json.dumps({**record, "name": name}) + "\n")
        metric = get_task(record["task"]).metric
        print(f"{name}: {metric.head} {100 * record[metric.key]:.1f}, {record['bytes_total']:.0f} bytes", flush=True)


# -- what the records say ----------------------------------------------------------------------------------------------


def scores(record: Mapping[str, Any]) -> Floats:
    """The score of all samples, then of every resample, (1 + RESAMPLES,); the same resamples for every record."""
    weights = np.concatenate([np.ones((1, record["samples"])), resampled(record["samples"])])
    if record["task"] == "detection":
        return np.asarray(Matches.read(record["matches"]).average_precision(weights))
    if record["task"] == "segmentation":
        return np.asarray(Counts.read(record["counts"]).mean(weights))
    right = np.frombuffer(record["hits" if record["task"] == "retrieval" else "correct"].encode(), np.uint8) == ord("1")
    return np.asarray(weights @ right / weights.sum(1))


def needed(points: Sequence[Mapping[str, Any]], wanted: Floats) -> Floats:
    """Bytes at which a score is reached, of all samples and of every resample; infinite where it is not.

    wanted: the score, of all samples and of every resample.

    Between two points of the monotone hull on a line in the logarithm of the bytes.
    """
    points = sorted(points, key=lambda record: float(record["bytes_total"]))
    logs = np.log([record["bytes_total"] for record in points])
    best = np.maximum.accumulate(np.stack([scores(record) for record in points]))
    found = np.empty(best.shape[1])
    for column, (score, reached) in enumerate(zip(wanted, best.T, strict=True)):
        front = np.flatnonzero(np.concatenate([[True], reached[1:] > reached[:-1]]))
        found[column] = np.interp(score, reached[front], logs[front])
        if score > reached[-1] + 1e-12:
            found[column] = np.inf
    return np.exp(found)


def all_needed(there: Mapping[str, Mapping[str, list[Any]]], wanted: Mapping[str, Floats]) -> dict[str, Floats]:
    """By way, the bytes for all three scores: the most that a task of one stream needs, the sum of the streams'."""
    found = {}
    for name in ("one stream", "WebP", "AVIF"):
        if set(there.get(name, {})) == set(wanted):
            found[name] = np.max([needed(there[name][task], score) for task, score in wanted.items()], axis=0)
    if all(there.get(f"{task} alone", {}).get(task) for task in wanted):
        alone = [needed(there[f"{task} alone"][task], score) for task, score in wanted.items()]
        found["a stream for each"] = np.sum(alone, axis=0)
    return found


def between(values: Floats) -> str:
    low, high = np.quantile(values[1:], (0.025, 0.975), method="inverted_cdf")
    return " - ".join("never" if np.isinf(bound) else f"{bound:.0f}" for bound in (low, high))


def shown(row: Mapping[str, Any], key: str) -> str:
    """A score in percent, with its interval."""
    low, high = row[f"{key}_interval"]
    return f"{100 * row[key]:.1f} ({100 * low:.1f} - {100 * high:.1f})"


def ratio(one: Floats, other: Floats) -> str:
    if np.isinf(one[0]):
        return "-"
    if np.isinf(other[0]):
        return "it never gets there"
    with np.errstate(invalid="ignore"):
        parts = one / other
    low, high = np.nanquantile(parts[1:], (0.025, 0.975), method="inverted_cdf")
    return f"{parts[0]:.2f} ({low:.2f} - {'never' if np.isinf(high) else f'{high:.2f}'})"


def tables() -> list[str]:
    there: dict[str, dict[str, list[Any]]] = {}
    for record in records():
        there.setdefault(record["name"], {}).setdefault(record["task"], []).append(record)
    tasks = [task for task in TAILS if task in there["uncompressed"]]
    heads = [get_task(task).metric.head for task in tasks]
    lines = [
        f"| way | bytes | {' | '.join(f'{head} (95 %)' for head in heads)} |",
        "| --- | ---: |" + " --- |" * len(heads),
    ]
    for name, by_task in there.items():
        rates = sorted(
            {(record["bytes_total"], json.dumps(record["knobs"])) for rows in by_task.values() for record in rows}
        )
        for rate, knobs in rates:
            cells = []
            for task in tasks:
                key = get_task(task).metric.key
                row = next((r for r in by_task.get(task, []) if json.dumps(r["knobs"]) == knobs), None)
                cells.append("" if row is None else shown(row, key))
            lines.append(f"| {name} | {rate:.0f} | {' | '.join(cells)} |")
    best = {task: scores(there["uncompressed"][task][0]) for task in tasks}
    lines += ["", f"| scores | {' | '.join(WAYS)} | one / each | one / WebP |", "| --- |" + " --- |" * (len(WAYS) + 2)]
    for below in BELOW:
        wanted = {task: score - below for task, score in best.items()}
        found = all_needed(there, wanted)
        cells = []
        for name in WAYS:
            values = found.get(name)
            never = values is not None and np.isinf(values[0])
            cells.append("" if values is None else "never" if never else f"{values[0]:.0f} ({between(values)})")
        for name in ("a stream for each", "WebP"):
            both = "one stream" in found and name in found
            cells.append(ratio(found["one stream"], found[name]) if both else "")
        told = ", ".join(f"{100 * score[0]:.1f}" for score in wanted.values())
        lines.append(f"| {told} | {' | '.join(cells)} |")
    return lines


def tell() -> None:
    page = PAGE.read_text() if PAGE.exists() else "\n".join(MARKS)
    before, _, rest = page.partition(MARKS[0])
    PAGE.write_text(f"{before}{MARKS[0]}\n\n" + "\n".join(tables()) + f"\n\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, help="folder for what is trained")
    parser.add_argument("--scale", type=float, default=0.05, help="multiplies the samples of every training")
    parser.add_argument("--limit", type=int, default=300, help="test images")
    parser.add_argument("--task-weight", action="append", default=[], help="TASK=FLOAT, of the one stream")
    parser.add_argument("--only", default="", help="one of: one, each, a task, pictures, tables")
    options = parser.parse_args()
    weights = {name: float(value) for name, _, value in (text.partition("=") for text in options.task_weight)}
    if options.only in ("", "pictures"):
        for name, (spec, grid) in PICTURES.items():
            keep(name, spec, grid, WeightsRequest(offline=True), options.limit)
    if options.only in ("", "one"):
        teach(ONE, options.runs / "one", options.scale, weights)
        keep("one stream", ONE, LAYERS, WeightsRequest({"encoder": str(options.runs / "one")}, True), options.limit)
    if options.only in ("", "each", *EACH):
        for task, spec in EACH.items():
            if options.only in EACH and options.only != task:
                continue
            teach(spec, options.runs / task, options.scale, {})
            request = WeightsRequest({"encoder": str(options.runs / task)}, True)
            keep(f"{task} alone", spec, LAYERS, request, options.limit)
    tell()


if __name__ == "__main__":
    main()
