"""Trains and measures the third tables of many_tasks.md: four tasks, with weights of tasks and rates.

    python docs/results/many_tasks_longer.py runs/longer    trains what is missing, measures, writes the page's tables
    python docs/results/many_tasks_longer.py                the tables, from the records that are there

The detector's codec and the segmenter's are those that ship. Each of the others begins from the detector's, as the
segmenter's did, and learns by distillation from 64,000 scenes, of all four from 80,000. Those of five layers begin from
the shipped ones of four and learn from 100,000 more. Pictures are those of many_tasks.jsonl. Run again to go on.
"""

from __future__ import annotations

from argparse import ArgumentParser
from importlib.resources import as_file, files
from pathlib import Path

from many_tasks import DATA, HERE, LAYERS, PAGE, START, TAILS, at_equal_scores, measured, points
from pages import measure, read, tell

from semcodec.pipeline.weights import WeightsRequest
from semcodec.training.train import WEIGHTS, train

RECORDS = HERE / "many_tasks_longer.jsonl"
MARKS = "<!-- tables of longer training -->", "<!-- end of tables of longer training -->"
TASKS = tuple(TAILS)[:4]
ONE, FIVE = "one stream for four", "one stream of five layers"
MASKS, FIVE_MASKS = "segmentation alone", "segmentation of five layers"
MORE = "layered:channels=4x4-8x2-12-20-16x1"
SPECS = {
    ONE: "layered+rans+" + "+".join(f"{TAILS[task]}@d3" for task in TASKS),
    FIVE: f"{MORE}+rans+" + "+".join(f"{TAILS[task]}@d3" for task in TASKS),
    **{f"{task} alone": f"layered+rans+{TAILS[task]}@d3" for task in TASKS},
    FIVE_MASKS: f"{MORE}+rans+{TAILS['segmentation']}@d3",
}
STARTS = {
    FIVE: "weights/layered-cls-nano-det-nano-embed-nano-seg-nano.safetensors",
    FIVE_MASKS: "weights/layered-seg-nano.safetensors",
}
"""Of the package ``layered``, where it is not the detector's codec."""
RATES = {
    ONE: (2.6, 0.8, 0.16, 0.02),
    FIVE: (2.6, 0.8, 0.16, 0.04, 0.01),
    FIVE_MASKS: (2, 0.8, 0.25, 0.08, 0.02),
    "classification alone": (6.8, 2, 0.4, 0.05),
    "retrieval alone": (6.8, 2, 0.4, 0.05),
}
"""Weights of a kilobyte by the number of layers; of the ways that are not here the codec ships."""
TASK_WEIGHTS = {"detection": 1, "segmentation": 30, "classification": 10, "retrieval": 10}
"""So that what each task loses by a kilobyte less counts about alike: boxes' loss is in other units than KL."""
SCALE = {ONE: 0.8, FIVE: 1, FIVE_MASKS: 1, "classification alone": 0.64, "retrieval alone": 0.64}
WAYS = (ONE, FIVE, "a stream for each", "WebP", "AVIF")
RATIOS = ((ONE, "a stream for each"), (FIVE, "a stream for each"), (ONE, "WebP"), (FIVE, "WebP"))
SETS = (TASKS[:3], ("classification", "detection", "segmentation"), TASKS)


def teach(name: str, out: Path) -> None:
    if not (out / WEIGHTS).exists():
        with as_file(files(START[0]) / STARTS.get(name, START[1])) as start:
            train(
                SPECS[name], DATA, out, request=WeightsRequest(offline=True), init=str(start), objective="distil",
                rate_weight=RATES[name], scale=SCALE[name], task_weights=TASK_WEIGHTS if name in (ONE, FIVE) else None,
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
            grid = {"layered.layers": range(1, 6)} if name in STARTS else LAYERS
            measure(RECORDS, name, spec, grid, WeightsRequest(given, True), DATA, options.limit)
    there = {name: by_task for name, by_task in measured().items() if name in ("uncompressed", "WebP", "AVIF")}
    for record in read(RECORDS):
        there.setdefault(record["name"], {}).setdefault(record["task"], []).append(record)
    own = {name: by_task for name, by_task in there.items() if name in SPECS}
    # A stream for masks alone is the better of both codecs.
    there[MASKS] = {"segmentation": [*there[MASKS]["segmentation"], *there[FIVE_MASKS]["segmentation"]]}
    tell(PAGE, MARKS, [*points(own, TASKS), "", *at_equal_scores(there, SETS, WAYS, RATIOS)])


if __name__ == "__main__":
    main()
