"""Trains and measures the third tables of many_tasks.md: four tasks, with weights of tasks and rates.

    python docs/results/many_tasks_longer.py runs/longer    trains what is missing, measures, writes the page's tables
    python docs/results/many_tasks_longer.py                the tables, from the records that are there

The detector's codec and the segmenter's are those that ship. Each of the others begins from the detector's, as the
segmenter's did, and learns by distillation from 64,000 scenes, of all four from 80,000. Pictures are those of
many_tasks.jsonl. Run again to go on.
"""

from __future__ import annotations

from argparse import ArgumentParser
from importlib.resources import as_file, files
from pathlib import Path

from many_tasks import DATA, HERE, LAYERS, START, TAILS, at_equal_scores, keep, measured, points, records, tell

from semcodec.pipeline.weights import WeightsRequest
from semcodec.training.train import WEIGHTS, train

RECORDS = HERE / "many_tasks_longer.jsonl"
MARKS = "<!-- tables of longer training -->", "<!-- end of tables of longer training -->"
TASKS = tuple(TAILS)[:4]
ONE = "one stream for four"
SPECS = {
    ONE: "layered+rans+" + "+".join(f"{TAILS[task]}@d3" for task in TASKS),
    **{f"{task} alone": f"layered+rans+{TAILS[task]}@d3" for task in TASKS},
}
RATES = {
    ONE: (2.6, 0.8, 0.16, 0.02),
    "classification alone": (6.8, 2, 0.4, 0.05),
    "retrieval alone": (6.8, 2, 0.4, 0.05),
}
"""Weights of a kilobyte by the number of layers; of the ways that are not here the codec ships."""
TASK_WEIGHTS = {"detection": 1, "segmentation": 30, "classification": 10, "retrieval": 10}
"""So that what each task loses by a kilobyte less counts about alike: boxes' loss is in other units than KL."""
SCALE = {ONE: 0.8, "classification alone": 0.64, "retrieval alone": 0.64}
WAYS = (ONE, "a stream for each", "WebP", "AVIF")
RATIOS = ((ONE, "a stream for each"), (ONE, "WebP"))
SETS = (TASKS[:3], ("classification", "detection", "segmentation"), TASKS)


def teach(name: str, out: Path) -> None:
    if not (out / WEIGHTS).exists():
        with as_file(files(START[0]) / START[1]) as start:
            train(
                SPECS[name], DATA, out, request=WeightsRequest(offline=True), init=str(start), objective="distil",
                rate_weight=RATES[name], scale=SCALE[name], task_weights=TASK_WEIGHTS if name == ONE else None,
            )  # fmt: skip


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="?", help="folder for what is trained")
    parser.add_argument("--limit", type=int, default=300, help="test images")
    options = parser.parse_args()
    if options.runs:
        for name, spec in SPECS.items():
            given = {}
            if name in RATES:
                out = options.runs / name.replace(" ", "-")
                teach(name, out)
                given = {"encoder": str(out)}
            keep(name, spec, LAYERS, WeightsRequest(given, True), options.limit, path=RECORDS)
    there = {name: by_task for name, by_task in measured().items() if name in ("uncompressed", "WebP", "AVIF")}
    for record in records(RECORDS):
        there.setdefault(record["name"], {}).setdefault(record["task"], []).append(record)
    own = {name: by_task for name, by_task in there.items() if name in SPECS}
    tell([*points(own, TASKS), "", *at_equal_scores(there, SETS, WAYS, RATIOS)], MARKS)


if __name__ == "__main__":
    main()
