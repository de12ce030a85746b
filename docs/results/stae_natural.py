"""Measures what docs/results/stae_natural.md shows: STAE on two sets of natural video, into stae_natural.jsonl.

    semcodec train vit-tiny:112 --data activities --init deit_tiny.safetensors -o runs/activities-vit
    semcodec train stae+rans+vit-tiny:112 --data activities --weights backbone=runs/activities-vit -o runs/activities
    python docs/results/stae_natural.py activities runs/activities-vit runs/activities

and the same for the other set.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from semcodec.composition.stored import compose_stored
from semcodec.evaluation.evaluate import run_sweep
from semcodec.evaluation.keys import Known
from semcodec.pipeline.weights import WeightsRequest

HERE = Path(__file__).parent
RECORDS = HERE / "stae_natural.jsonl"
BACKBONE = "vit-tiny:112"


def plan(vit: str, stae: str) -> list[tuple[str, dict[str, Any], WeightsRequest]]:
    """Spec, grid and weights of each sweep."""
    alone, whole = WeightsRequest({"backbone": vit}, offline=True), WeightsRequest({"": stae}, offline=True)
    return [
        (f"png+{BACKBONE}", {}, alone),
        (f"stae+rans+{BACKBONE}", {"stae.frames": (16, 8, 4, 2, 1), "stae.pixels": (1.0, 0.4)}, whole),
        (f"stae:coding=webp,quality=50+rans+{BACKBONE}", {"stae.frames": (8, 4, 2), "stae.pixels": (1.0, 0.4)}, whole),
        (f"webp+{BACKBONE}", {"webp.frames": (16, 8, 4), "webp.quality": (50,)}, alone),
        (f"h264+{BACKBONE}", {"h264.crf": (28, 36, 44)}, alone),
    ]


def main() -> None:
    measure(*sys.argv[1:])


def measure(data: str, vit: str, stae: str) -> None:
    known = Known.read(RECORDS)
    for spec, grid, request in plan(vit, stae):
        for record in run_sweep(compose_stored(spec, {}), grid, request, data, batch=8, known=known):
            record["data"] = Path(data).name
            for weights in record["weights"].values():
                weights["source"] = Path(weights["source"]).name
            with RECORDS.open("a") as file:
                print(json.dumps(record), file=file)
            low, high = record["top1_interval"]
            print(
                f"| `{record['spec']}` | {100 * record['top1']:.1f} ({100 * low:.1f}-{100 * high:.1f}) | "
                f"{record['bytes_total']:.0f} | {record['ratio_float32']:.0f} | {record['ratio_uint8']:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
