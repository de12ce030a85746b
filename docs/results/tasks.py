"""Accuracy over bytes for each task, learned codecs beside WebP and AVIF: the records and tables of ``tasks.md``.

    python docs/results/tasks.py embedded            the built-in scenes, what ships, minutes on one core
    python docs/results/tasks.py caltech --data caltech101 --weights deit_tiny_patch16_224.safetensors \\
        --codec plugins/layered/weights/layered-deit-tiny-block4.safetensors
    python docs/results/tasks.py table               tables of what was measured

Records are appended to ``tasks.jsonl``; what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from semcodec._json import to_json
from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_dataset
from semcodec.evaluation.evaluate import evaluate
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.tasks.table import compare, metric_of, task_of

RECORDS = Path(__file__).with_name("tasks.jsonl")
PICTURES = ("webp:1", "webp:20", "webp:60", "avif:20", "avif:50", "png")
SOME = ("webp:1", "webp:20", "avif:20", "png")
LAYERED = ("layered:layers=1", "layered:layers=2", "layered")
EMBEDDED = (
    ("seg-nano", PICTURES, ("feature-hyperprior", *LAYERED)),
    ("embed-nano", SOME, ()),
    ("det-nano", SOME, ("feature-hyperprior", *LAYERED)),
)
"""Models, pictures at their input, codecs at their cut d3."""
CALTECH = ("webp:1", "webp:20", "webp:60", "avif:15", "avif:20", "avif:30", "png")
LEVELS = (1, 2, 3, 4)
"""Of the codec at block4, which learned behind DeiT-Tiny's classifier."""


def known() -> list[dict]:
    return [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.is_file() else []


def measure(spec: str, data: str, limit: int, weights: WeightsRequest) -> None:
    if any((r["asked"], r["samples"]) == (spec, limit) for r in known()):
        return
    pipeline = Pipeline.load(compose_spec(spec), weights)
    dataset = open_dataset(data, "test", pipeline.request)
    record = {**evaluate(pipeline, dataset, limit=limit), "asked": spec}
    record["data"] = Path(data).name
    for source in record["weights"].values():
        source["source"] = Path(source["source"]).name
    with open(RECORDS, "a", encoding="utf-8") as file:
        print(to_json(record), file=file)
    metric = metric_of(record)
    print(f"{spec}: {metric} {record[metric]:.4f}, {record['bytes_total']:.1f} bytes", flush=True)


def embedded(limit: int) -> None:
    for model, pictures, codecs in EMBEDDED:
        for spec in (*(f"{p}+{model}" for p in pictures), *(f"{c}+rans+{model}@d3" for c in codecs)):
            measure(spec, "digits-scenes", limit, WeightsRequest(offline=True))


def table() -> None:
    """For each task and data set the records by bytes, with their intervals and the difference from ``png``."""
    groups: dict[tuple[str, str, int], list[dict]] = {}
    for record in known():
        groups.setdefault((record["task"], record["data"], record["samples"]), []).append(record)
    for (name, data, samples), records in groups.items():
        task = task_of(records[0])
        whole = next(r for r in records if r["asked"].startswith("png+"))
        heads = [
            "spec",
            "bytes",
            task.metric.head,
            "95 % interval",
            *(h for h, _ in task.columns(whole)),
            "less than png",
        ]
        print(f"\n{name}, {samples} of {data}\n\n| {' | '.join(heads)} |\n| --- {'| ---: ' * (len(heads) - 1)}|")
        for r in sorted(records, key=lambda r: r["bytes_total"]):
            key = task.metric.key
            low, high = r[f"{key}_interval"]
            lost = compare(whole, r)
            more = [f"{v:.1f}" if isinstance(v, float) else v for _, v in task.columns(r)]
            cells = [
                f"`{r['asked']}`",
                f"{r['bytes_total']:,.0f}",
                f"{100 * r[key]:.1f}",
                f"{100 * low:.1f} to {100 * high:.1f}",
            ]
            gap = f"{100 * lost['difference']:.1f} ({100 * lost['low']:.1f} to {100 * lost['high']:.1f})"
            print("| " + " | ".join([*cells, *more, "-" if r is whole else gap]) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=["embedded", "caltech", "table"])
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--data", default="caltech101")
    parser.add_argument("--weights", default="deit_tiny_patch16_224.safetensors")
    parser.add_argument("--codec", help="weights of layered+deit-tiny@block4")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.part == "embedded":
        embedded(given.limit)
    elif given.part == "caltech":
        for picture in CALTECH:
            spec = f"{picture}+timm-embed/deit_tiny_patch16_224"
            measure(spec, given.data, given.limit, WeightsRequest({"backbone": given.weights}, offline=True))
        for level in LEVELS if given.codec else ():
            spec = f"layered:level={level}+rans+timm-embed/deit_tiny_patch16_224@block4"
            both = {"backbone": given.weights, "encoder": given.codec}
            measure(spec, given.data, given.limit, WeightsRequest(both, offline=True))
    else:
        table()


if __name__ == "__main__":
    main()
