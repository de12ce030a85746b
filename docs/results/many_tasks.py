"""Trains and measures what docs/results/many_tasks.md shows: one stream for five tasks beside a stream for each.

    python docs/results/many_tasks.py runs/many               trains what is missing, measures, writes the page's tables
    python docs/results/many_tasks.py runs/many --only tables  from the records that are there

Every codec starts from the detector's that ships (`layered+det-nano@d3`) and learns by distillation from as many
pictures: from its own tail where it is for one task, from all where it is for all, or at each number of layers from
those that so many serve. Run again to go on; the records
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
from pages import append, measure, read, tell

from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_dataset
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.tasks.base import Metric
from semcodec.tasks.prediction import Prediction
from semcodec.tasks.reconstruction import ReconstructionScore
from semcodec.tasks.statistics import resampled
from semcodec.tasks.table import get_task, scores_of
from semcodec.tensors import eight_bits
from semcodec.training.train import WEIGHTS, train

HERE = Path(__file__).parent
RECORDS, PAGE = HERE / "many_tasks.jsonl", HERE / "many_tasks.md"
MARKS = "<!-- tables -->", "<!-- end of tables -->"
DATA = "digits-scenes"
TAILS = {
    "classification": "cls-nano",
    "detection": "det-nano",
    "retrieval": "embed-nano",
    "segmentation": "seg-nano",
    "reconstruction": "draw-nano",
}
ALL = "+".join(f"{tail}@d3" for tail in TAILS.values())
ONE = f"layered+rans+{ALL}"
SERVES = "detection.2-classification.2-retrieval.2-segmentation.3-reconstruction.4"
THREE = f"layered+rans+{'+'.join(f'{tail}@d3' for tail in list(TAILS.values())[:3])}"
BY_TASK = f"layered:serves={SERVES}+rans+{ALL}"
EACH = {task: f"layered+rans+{tail}@d3" for task, tail in TAILS.items()}
PICTURES = {
    "WebP": (f"webp+{'+'.join(TAILS.values())}", {"webp.quality": [1, 5, 15, 40, 75]}),
    "AVIF": (f"avif+{'+'.join(TAILS.values())}", {"avif.quality": [5, 15, 30, 50]}),
    "uncompressed": (f"png+{'+'.join(TAILS.values())}", {}),
}
LAYERS = {"layered.layers": [1, 2, 3, 4]}
START = "semcodec_plugins.layered", "weights/layered-det-nano.safetensors"
BELOW = (0.01, 0.02, 0.05, 0.1)
"""By how much all scores may be below those of the pictures as they are, in every resample; ten times as much in dB."""
WAYS = ("one stream", "layers by task", "one stream for three", "a stream for each", "WebP", "AVIF")
RATIOS = (("one stream", "a stream for each"), ("one stream", "WebP"), ("layers by task", "one stream"))
SETS = (tuple(TAILS)[:3], tuple(TAILS)[:4], tuple(TAILS))
"""Tasks that are asked for together."""
WORDS = dict(zip(TAILS, ("class", "boxes", "retrieval", "masks", "picture"), strict=True))
RIVALS = ("WebP", "AVIF")
Floats = npt.NDArray[np.float64]


def teach(spec: str, out: Path, scale: float, weights: Mapping[str, float]) -> None:
    if not (out / WEIGHTS).exists():
        with as_file(files(START[0]) / START[1]) as start:
            train(
                spec, DATA, out, request=WeightsRequest(offline=True), init=str(start), objective="distil",
                scale=scale, task_weights=weights,
            )  # fmt: skip


def keep_received(name: str, spec: str, limit: int) -> None:
    """A record of each point for the picture as it arrives, which no network has drawn again: of the rival's own."""
    known = {(record["name"], json.dumps(record["knobs"])) for record in read(RECORDS) if record.get("received")}
    composition = compose_spec(spec).alone("reconstruction")
    whole = Pipeline.load(compose_spec(spec), WeightsRequest(offline=True))
    for record in [one for one in read(RECORDS) if one["name"] == name and one["task"] == "reconstruction"]:
        if (name, json.dumps(record["knobs"])) in known or record.get("received"):
            continue
        pipeline = whole.replace(composition=composition.with_call(**record["knobs"]))
        score, dataset = ReconstructionScore(pipeline.request), open_dataset(DATA, "test", pipeline.request)
        for start in range(0, limit, 32):
            rows = range(start, min(limit, start + 32))
            (pixels, labels), sizes = dataset.batch(rows), dataset.sizes(rows)
            arrived = pipeline.records(pipeline.encode_batch(pixels, list(rows), sizes=sizes))
            pictures = [eight_bits(pipeline.server.restored(one).features["image"])[0] for one in arrived]
            score.add([Prediction(-1, "", 0.0, picture=picture) for picture in pictures], labels, sizes)
        found = {
            **record,
            **score.accuracy(),
            **score.by_sample(),
            "key": f"{record['key']} as received",
            "received": 1,
        }
        append(RECORDS, found)
        print(f"{name}, as received: {found['psnr']:.2f} dB, {record['bytes_total']:.0f} bytes", flush=True)


# -- what the records say ----------------------------------------------------------------------------------------------


def scores(record: Mapping[str, Any]) -> Floats:
    """The score of all samples, then of every resample, (1 + RESAMPLES,); the same resamples for every record."""
    weights = np.concatenate([np.ones((1, record["samples"])), resampled(record["samples"])])
    return np.asarray(scores_of(record, weights))


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


def all_needed(
    there: Mapping[str, Mapping[str, list[Any]]], wanted: Mapping[str, Floats], ways: Sequence[str]
) -> dict[str, Floats]:
    """By way, the bytes for all these scores: the most that a task of one stream needs, the sum of the streams'."""
    found = {}
    for name in ways:
        if set(there.get(name, {})) >= set(wanted):
            found[name] = np.max([needed(there[name][task], score) for task, score in wanted.items()], axis=0)
    if all(there.get(f"{task} alone", {}).get(task) for task in wanted):
        alone = [needed(there[f"{task} alone"][task], score) for task, score in wanted.items()]
        found["a stream for each"] = np.sum(alone, axis=0)
    return found


def between(values: Floats) -> str:
    low, high = np.quantile(values[1:], (0.025, 0.975), method="inverted_cdf")
    return " - ".join("never" if np.isinf(bound) else f"{bound:.0f}" for bound in (low, high))


def shown(row: Mapping[str, Any], metric: Metric) -> str:
    """A score in percent or dB, with its interval."""
    value, low, high = (metric.shown(number) for number in (row[metric.key], *row[f"{metric.key}_interval"]))
    return f"{value:.1f} ({low:.1f} - {high:.1f})"


def measured() -> dict[str, dict[str, list[Any]]]:
    """Records by way and task; of WebP and AVIF the picture is the one that arrives."""
    there: dict[str, dict[str, list[Any]]] = {}
    for record in read(RECORDS):
        drawn = record["task"] == "reconstruction" and record["name"] in RIVALS and not record.get("received")
        if not drawn:
            there.setdefault(record["name"], {}).setdefault(record["task"], []).append(record)
    return there


def lowered(task: str, score: Floats, below: float) -> Floats:
    """A score that much lower, in dB ten times as much."""
    return score - (below if get_task(task).metric.unit == "%" else 10 * below)


def ratio(one: Floats, other: Floats) -> str:
    if np.isinf(one[0]):
        return "-"
    if np.isinf(other[0]):
        return "it never gets there"
    with np.errstate(invalid="ignore"):
        parts = one / other
    low, high = np.nanquantile(parts[1:], (0.025, 0.975), method="inverted_cdf")
    return f"{parts[0]:.2f} ({low:.2f} - {'never' if np.isinf(high) else f'{high:.2f}'})"


def points(there: Mapping[str, Mapping[str, list[Any]]], tasks: Sequence[str]) -> list[str]:
    """The table of what was measured: a line for each way and rate."""
    metrics = {task: get_task(task).metric for task in tasks}
    lines = [
        f"| way | bytes | {' | '.join(f'{metric.head} (95 %)' for metric in metrics.values())} |",
        "| --- | ---: |" + " --- |" * len(tasks),
    ]
    for name, by_task in there.items():
        rates = sorted(
            {(record["bytes_total"], json.dumps(record["knobs"])) for rows in by_task.values() for record in rows}
        )
        for rate, knobs in rates:
            cells = []
            for task in tasks:
                row = next((r for r in by_task.get(task, []) if json.dumps(r["knobs"]) == knobs), None)
                cells.append("" if row is None else shown(row, metrics[task]))
            lines.append(f"| {name} | {rate:,.0f} | {' | '.join(cells)} |")
    return lines


def at_equal_scores(
    there: Mapping[str, Mapping[str, list[Any]]],
    sets: Sequence[Sequence[str]],
    ways: Sequence[str],
    ratios: Sequence[tuple[str, str]],
    lower: Sequence[float] = BELOW,
) -> list[str]:
    """The table of the bytes at which all scores of a set of tasks are reached, each so much lower than it may be."""
    heads = [*ways, *(f"{one} / {other}" for one, other in ratios)]
    lines = [f"| for | scores | {' | '.join(heads)} |", "| --- | --- |" + " --- |" * len(heads)]
    for tasks in sets:
        best = {task: scores(there["uncompressed"][task][0]) for task in tasks}
        for below in lower:
            wanted = {task: lowered(task, score, below) for task, score in best.items()}
            found = all_needed(there, wanted, ways)
            cells = []
            for name in ways:
                values = found.get(name)
                never = values is not None and np.isinf(values[0])
                cells.append("" if values is None else "never" if never else f"{values[0]:,.0f} ({between(values)})")
            for one, other in ratios:
                cells.append(ratio(found[one], found[other]) if one in found and other in found else "")
            told = ", ".join(f"{get_task(task).metric.shown(score[0]):.1f}" for task, score in wanted.items())
            lines.append(f"| {', '.join(WORDS[task] for task in wanted)} | {told} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, help="folder for what is trained")
    parser.add_argument("--scale", type=float, default=0.05, help="multiplies the samples of every training")
    parser.add_argument("--limit", type=int, default=300, help="test images")
    parser.add_argument("--task-weight", action="append", default=[], help="TASK=FLOAT, of the one stream")
    parser.add_argument("--only", default="", help="one of: one, layers, three, each, a task, pictures, tables")
    options = parser.parse_args()
    weights = {name: float(value) for name, _, value in (text.partition("=") for text in options.task_weight)}
    if options.only in ("", "pictures"):
        for name, (spec, grid) in PICTURES.items():
            measure(RECORDS, name, spec, grid, WeightsRequest(offline=True), DATA, options.limit)
            if name in RIVALS:
                keep_received(name, spec, options.limit)
    for only, name, spec in (
        ("one", "one stream", ONE), ("layers", "layers by task", BY_TASK), ("three", "one stream for three", THREE)
    ):  # fmt: skip
        if options.only in ("", only):
            teach(spec, options.runs / only, options.scale, weights)
            request = WeightsRequest({"encoder": str(options.runs / only)}, True)
            measure(RECORDS, name, spec, LAYERS, request, DATA, options.limit)
    if options.only in ("", "each", *EACH):
        for task, spec in EACH.items():
            if options.only in EACH and options.only != task:
                continue
            teach(spec, options.runs / task, options.scale, {})
            request = WeightsRequest({"encoder": str(options.runs / task)}, True)
            measure(RECORDS, f"{task} alone", spec, LAYERS, request, DATA, options.limit)
    there = measured()
    tell(PAGE, MARKS, [*points(there, list(TAILS)), "", *at_equal_scores(there, SETS, WAYS, RATIOS)])


if __name__ == "__main__":
    main()
