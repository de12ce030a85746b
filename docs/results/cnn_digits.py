"""Trains and measures what docs/results/cnn_digits.md shows: every codec for CNN features on digits-scenes, in minutes.

    python docs/results/cnn_digits.py runs/digits              all recipes at a twentieth of their samples
    python docs/results/cnn_digits.py runs/digits --scale 1    as they stand
    python docs/results/cnn_digits.py examples/zoo --layered   the codec of examples/zoo beside pictures

A test of the recipes, not of the figures, but for the last. Run again to go on: records are in cnn_digits.jsonl, and
cnn_digits.md has tables between marks, which are made from them anew.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pages

from semcodec.bench.equal import Method, at_equal_accuracy
from semcodec.composition.composition import compose_spec
from semcodec.evaluation.evaluate import run_sweep
from semcodec.evaluation.keys import Known
from semcodec.pipeline.weights import WeightsRequest
from semcodec.training.train import WEIGHTS, train

HERE = Path(__file__).parent
RECORDS, PAGE = HERE / "cnn_digits.jsonl", HERE / "cnn_digits.md"
MARKS = "<!-- table -->", "<!-- end of table -->"
LAYERED_MARKS = "<!-- layered -->", "<!-- end of layered -->"
DATA, BACKBONE = "digits-scenes", "resnet-nano"
PLAIN = {"uncompressed": f"png+{BACKBONE}", "tensor8": f"tensor8+rans+{BACKBONE}@stem", "JPEG": f"jpeg:50+{BACKBONE}"}
CODECS = {
    "BottleNet++": f"bottlenetpp:ratio=4+rans+{BACKBONE}@stem",
    "CA_Pruned": f"aecnn:ratio=4+none+rans+{BACKBONE}@stem",
    "AECNN": f"aecnn:ratio=4+rans+{BACKBONE}@stem",
    "PCA": f"pca:components=16+rans+{BACKBONE}@stem",
    "PCA, adapted": f"pca-adapt:components=16+rans+{BACKBONE}@stem",
}


LAYERED = "layered"
AT_LAYER2 = f"layered+rans+{BACKBONE}@layer2"
LAYERS = {"layered.layers": (1, 2, 3, 4)}
QUALITIES = (1, 5, 10, 20, 30, 40, 50, 60, 70)
RIVALS = {
    "WebP": (f"webp:slow=true+{BACKBONE}", {"webp.quality": QUALITIES}),
    "AVIF": (f"avif+{BACKBONE}", {"avif.quality": QUALITIES}),
    "JPEG XL": (f"jpegxl:slow=true+{BACKBONE}", {"jpegxl.quality": (1, 10, 25, 50)}),
}
WANTED = [percent / 100 for percent in range(88, 98)]
GOAL = 1 / 3


def keep(name: str, spec: str, request: WeightsRequest, limit: int) -> None:
    known = Known.read(RECORDS)
    for record in run_sweep(compose_spec(spec), {}, request, DATA, limit=limit, known=known):
        pages.append(RECORDS, {**record, "name": name})
        print(f"{name}: {100 * record['top1']:.1f} %, {record['bytes_total']:.0f} bytes", flush=True)


def keep_layered(zoo: Path, limit: int) -> None:
    weights = WeightsRequest({"encoder": str(zoo / BACKBONE)}, offline=True)
    pages.measure(RECORDS, LAYERED, AT_LAYER2, LAYERS, weights, DATA, limit)
    for name, (spec, grid) in RIVALS.items():
        pages.measure(RECORDS, name, spec, grid, WeightsRequest(offline=True), DATA, limit)


def tell_layered() -> None:
    by: dict[str, list[pages.Record]] = {}
    for record in pages.read(RECORDS):
        if record["name"] in (LAYERED, *RIVALS):
            by.setdefault(record["name"], []).append(record)
    rows = [row for one in by.values() for row in sorted(one, key=lambda row: float(row["bytes_total"]))]
    lines = list(pages.sent(rows))
    rivals = {name: Method.of(by[name]) for name in RIVALS}
    lines += ["", f"| top-1, % | layered | {' | '.join(rivals)} | ours / best (95 %) | a third |"]
    lines += ["| ---: | ---: |" + " ---: |" * len(rivals) + " --- | --- |"]
    found = at_equal_accuracy(Method.of(by[LAYERED]), rivals, WANTED)
    pages.tell(PAGE, LAYERED_MARKS, [*lines, *(pages.compared(one, GOAL, 3) for one in found)])


def tell() -> None:
    lines = ["| codec | spec | top-1, % (95 %) | bytes | x float32 |", "| --- | --- | --- | ---: | ---: |"]
    for record in pages.read(RECORDS):
        if record["name"] not in (*PLAIN, *CODECS):
            continue
        low, high = record["top1_interval"]
        lines.append(
            f"| {record['name']} | `{record['spec']}` | {100 * record['top1']:.1f} ({100 * low:.1f}-{100 * high:.1f}) "
            f"| {record['bytes_total']:.0f} | {record['ratio_float32']:.0f} |"
        )
    pages.tell(PAGE, MARKS, lines)


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, help="folder for what is trained")
    parser.add_argument("--scale", type=float, default=0.05, help="multiplies the samples of every recipe")
    parser.add_argument("--limit", type=int, default=1000, help="test images")
    parser.add_argument("--layered", action="store_true", help="the codec that lies in the folder, beside pictures")
    options = parser.parse_args()
    if options.layered:
        keep_layered(options.runs, options.limit)
        tell_layered()
        return
    for name, spec in PLAIN.items():
        keep(name, spec, WeightsRequest(offline=True), options.limit)
    for name, spec in CODECS.items():
        out = options.runs / name.lower().replace("+", "p").replace(", ", "-")
        if not (out / WEIGHTS).exists():
            train(spec, DATA, out, request=WeightsRequest(offline=True), scale=options.scale)
        keep(name, spec, WeightsRequest({"": str(out)}, offline=True), options.limit)
    tell()


if __name__ == "__main__":
    main()
