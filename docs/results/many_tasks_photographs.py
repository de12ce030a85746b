"""One stream of photographs for classes and retrieval, beside WebP and AVIF: the second tables of many_tasks.md.

    python docs/results/many_tasks_photographs.py --data nips2017 --weights deit_tiny_patch16_224.safetensors
        --codec plugins/layered/weights/layered-deit-tiny-block4.safetensors
    python docs/results/many_tasks_photographs.py            the tables, from the records that are there

Both tasks are measured of the same packets: DeiT-Tiny's classes, and its embeddings, by which a picture is looked for
among the others; a picture that is alone of its class is no query. Run again to go on. Records of another codec than
the one that is named are measured anew; the tables are of the most photographs that were measured.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path

from many_tasks import HERE, PAGE, at_equal_scores, points
from pages import measure, read, tell

from semcodec.pipeline.weights import WeightsRequest, read_card

RECORDS = HERE / "many_tasks_photographs.jsonl"
MARKS = "<!-- tables of photographs -->", "<!-- end of tables of photographs -->"
TASKS = ("classification", "retrieval")
CLASSES, EMBEDDINGS = "deit-tiny", "timm-embed/deit_tiny_patch16_224"
CODEC = "one stream"
BELOW = (0.05, 0.1, 0.15, 0.2)
"""By how much both scores may be below those of the photographs as they are, in every resample."""
WAYS = {
    "uncompressed": (f"png+{CLASSES}+{EMBEDDINGS}", {}),
    CODEC: (f"layered+rans+{CLASSES}@block4+{EMBEDDINGS}@block4", {"layered.level": [1, 2, 3, 4]}),
    "AVIF": (f"avif+{CLASSES}+{EMBEDDINGS}", {"avif.quality": [10, 20, 30, 40, 50]}),
    "WebP": (f"webp+{CLASSES}+{EMBEDDINGS}", {"webp.quality": [1, 20, 60]}),
}


def forget_others(codec: str) -> None:
    """Drop the records of another codec: its digest names it."""
    digest = read_card(Path(codec))["digests"]["encoder"]
    kept = [one for one in read(RECORDS) if one["name"] != CODEC or one["weights"]["encoder"]["digest"] == digest]
    RECORDS.write_text("".join(json.dumps(one) + "\n" for one in kept))


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="photographs with classes of ImageNet")
    parser.add_argument("--weights", help="of DeiT-Tiny")
    parser.add_argument("--codec", help="weights of layered+deit-tiny@block4")
    parser.add_argument("--limit", type=int, help="photographs; all where it is left out")
    options = parser.parse_args()
    if options.data:
        forget_others(options.codec)
        backbones = dict.fromkeys((CLASSES, EMBEDDINGS), options.weights)
        for name, (spec, grid) in WAYS.items():
            given = backbones | ({"encoder": options.codec} if name == CODEC else {})
            measure(RECORDS, name, spec, grid, WeightsRequest(given, True), options.data, options.limit)
    there: dict[str, dict[str, list[dict]]] = {}
    rows = read(RECORDS)
    most = max(record["samples"] for record in rows)
    for record in (one for one in rows if one["samples"] == most):
        there.setdefault(record["name"], {}).setdefault(record["task"], []).append(record)
    ratios = [(CODEC, name) for name in ("AVIF", "WebP")]
    ways = [name for name in WAYS if name != "uncompressed"]
    equal = at_equal_scores(there, [TASKS[:1], TASKS[1:], TASKS], ways, ratios, BELOW)
    tell(PAGE, MARKS, [*points(there, TASKS), "", *equal])


if __name__ == "__main__":
    main()
