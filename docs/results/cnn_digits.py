"""Trains and measures what docs/results/cnn_digits.md shows: every codec for CNN features on digits-scenes, in minutes.

    python docs/results/cnn_digits.py runs/digits              all recipes at a twentieth of their samples
    python docs/results/cnn_digits.py runs/digits --scale 1    as they stand

A test of the recipes, not of the figures. Run again to go on; the records are in cnn_digits.jsonl, the table of
cnn_digits.md, between its two marks, is made from them anew.
"""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

import pages

from semcodec.composition.composition import compose_spec
from semcodec.evaluation.evaluate import run_sweep
from semcodec.evaluation.keys import Known
from semcodec.pipeline.weights import WeightsRequest
from semcodec.training.train import WEIGHTS, train

HERE = Path(__file__).parent
RECORDS, PAGE = HERE / "cnn_digits.jsonl", HERE / "cnn_digits.md"
MARKS = "<!-- table -->", "<!-- end of table -->"
DATA, BACKBONE = "digits-scenes", "resnet-nano"
PLAIN = {"uncompressed": f"png+{BACKBONE}", "tensor8": f"tensor8+rans+{BACKBONE}@stem", "JPEG": f"jpeg:50+{BACKBONE}"}
CODECS = {
    "BottleNet++": f"bottlenetpp:ratio=4+rans+{BACKBONE}@stem",
    "CA_Pruned": f"aecnn:ratio=4+none+rans+{BACKBONE}@stem",
    "AECNN": f"aecnn:ratio=4+rans+{BACKBONE}@stem",
    "PCA": f"pca:components=16+rans+{BACKBONE}@stem",
    "PCA, adapted": f"pca-adapt:components=16+rans+{BACKBONE}@stem",
}


def keep(name: str, spec: str, request: WeightsRequest, limit: int) -> None:
    known = Known.read(RECORDS)
    for record in run_sweep(compose_spec(spec), {}, request, DATA, limit=limit, known=known):
        pages.append(RECORDS, {**record, "name": name})
        print(f"{name}: {100 * record['top1']:.1f} %, {record['bytes_total']:.0f} bytes", flush=True)


def tell() -> None:
    lines = ["| codec | spec | top-1, % (95 %) | bytes | x float32 |", "| --- | --- | --- | ---: | ---: |"]
    for record in pages.read(RECORDS):
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
    options = parser.parse_args()
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
