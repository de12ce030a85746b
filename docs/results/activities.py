"""Trains and measures what docs/results/activities.md shows: a codec at a cut of a video ViT on natural clips.

    python docs/results/activities.py DATA/activities deit_tiny_patch16_224.safetensors runs/activities
    python docs/results/activities.py                    the page's tables, from the records that are there

In five folds of all 206 clips: a ViT learns four of five parts, a codec from the same clips and the ViT's own answers,
and both are measured on the fifth. What counts is how many clips are answered as the ViT answers them uncompressed, so
each fold has a folder in which a clip's class is that answer. Run again to go on.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pages

from semcodec.bench.equal import Equal, Method, at_equal_accuracy
from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_dataset
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.tasks.statistics import wilson
from semcodec.training.train import WEIGHTS, train

HERE = Path(__file__).parent
RECORDS, PAGE = HERE / "activities.jsonl", HERE / "activities.md"
MARKS = "<!-- tables -->", "<!-- end of tables -->"
FOLDS, ANSWERS = 5, "answers"
"""How many, and how the folder of each begins, in which clips have the ViT's answers for classes."""
VIT = "vit-tiny:112"
CUT = "vit-tiny@block4:112"
CODEC = f"layered:channels=16x2x4+rans+{CUT}"
RATE = 5.0
"""Weight of a kilobyte at the coarsest level."""
MATCH, DISTIL = 0.05, 0.03
"""Parts of what the two steps of distillation see by themselves: 2,000 and 3,000 clips."""
CRF = {"h264": (36, 44, 51), "h265": (32, 36, 40, 44, 48, 51), "av1": (53, 60, 63)}
SLOWEST = (36, 44, 51)
"""Of H.265 at veryslow."""
NAMES = {"h264": "H.264", "h265": "H.265", "av1": "AV1", "webp": "frames as WebP"}
GOAL = 1 / 4
REFERENCE, USUAL = ("h265", 36), "medium"
"""At the agreement of whole clips as this codes them ours should need that part of its bytes."""
Record = dict[str, Any]


def sweeps() -> Iterator[tuple[str, str, dict[str, Sequence[Any]]]]:
    """Name, spec and grid of what is measured."""
    yield "ours", CODEC, {"layered.level": (1, 2, 3, 4)}
    yield "uncompressed", f"png+{VIT}", {}
    for codec, values in CRF.items():
        yield NAMES[codec], f"{codec}+{VIT}", {f"{codec}.crf": values}
        if codec == "h265":
            yield NAMES[codec], f"{codec}:preset=veryslow+{VIT}", {f"{codec}.crf": SLOWEST}
    yield NAMES["webp"], f"webp+{VIT}", {"webp.frames": (1, 2), "webp.quality": (1, 20)}
    yield "tensor8", f"tensor8+rans+{CUT}", {}
    yield "feature-video", f"feature-video+rans+{CUT}", {"feature-video.qp": (42, 51)}


# -- folds ------------------------------------------------------------------------------------------------------------


def parts_of(data: Path) -> list[list[Path]]:
    """Clips by fold, paths in the folder: of every class each fifth in sorted order."""
    clips: dict[str, list[Path]] = {}
    for path in sorted(data.glob("*/*.mp4")):
        clips.setdefault(path.parent.name, []).append(path.relative_to(data))
    return [[clip for one in clips.values() for clip in one[fold::FOLDS]] for fold in range(FOLDS)]


def make_fold(data: Path, out: Path, clips: Mapping[Path, str], tested: Sequence[Path]) -> Path:
    """A folder of links by the class that each clip is to have, and the lists of its splits."""
    if not (out / "test.txt").exists():
        lists: dict[str, list[str]] = {"train": [], "test": []}
        for clip, name in clips.items():
            link = out / name / clip.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to((data / clip).resolve())
            lists["test" if clip in tested else "train"].append(f"{name}/{clip.name}\n")
        for split, lines in lists.items():
            (out / f"{split}.txt").write_text("".join(lines))
    return out


def answers(vit: Path, fold: Path) -> dict[Path, str]:
    """What the ViT says of the fold's test clips, by their paths in the folder."""
    pipeline = Pipeline.load(compose_spec(f"png+{VIT}"), WeightsRequest({"backbone": str(vit)}, offline=True))
    clips = open_dataset(str(fold), "test", pipeline.request)
    found = {}
    for row, name in enumerate(clips.ids(range(len(clips)))):
        pixels, _ = clips.batch([row])
        [prediction] = pipeline.decode_batch(pipeline.records(pipeline.encode_batch(pixels, [row])))
        found[Path(name)] = prediction.name
    return found


def teach(data: Path, init: str, runs: Path, number: int, tested: Sequence[Path]) -> tuple[Path, dict[str, str]]:
    """The folder of one fold by the ViT's answers, and its weights; what is there already is taken as it is."""
    clips = {clip: clip.parent.name for part in parts_of(data) for clip in part}
    fold = make_fold(data, runs / f"fold{number}", clips, tested)
    vit, matched, codec = (runs / f"{what}{number}" for what in ("vit", "matched", "codec"))
    if not (vit / WEIGHTS).exists():
        train(VIT, str(fold), vit, init=init, until="whole clips", scale=0.5)
    request = WeightsRequest({"backbone": str(vit)}, offline=True)
    options: dict[str, Any] = {"request": request, "objective": "distil", "rate_weight": RATE}
    if not (matched / WEIGHTS).exists():
        train(CODEC, str(fold), matched, **options, until="match", scale=MATCH)
    if not (codec / WEIGHTS).exists():
        train(CODEC, str(fold), codec, **options, init=str(matched / WEIGHTS), scale=DISTIL)
    agreed = runs / f"{ANSWERS}{number}"
    if not (agreed / "test.txt").exists():
        make_fold(data, agreed, {**clips, **answers(vit, fold)}, tested)
    return agreed, {"encoder": str(codec), "backbone": str(vit)}


def measure(fold: Path, weights: dict[str, str]) -> None:
    for name, spec, grid in sweeps():
        own = {slot: path for slot, path in weights.items() if slot == "backbone" or name == "ours"}
        pages.measure(RECORDS, name, spec, grid, WeightsRequest(own, True), str(fold))


# -- what the records say ---------------------------------------------------------------------------------------------


def over_folds() -> dict[str, list[Record]]:
    """By name, a record of all clips for each point that every fold has."""
    by: dict[tuple[str, str], list[Record]] = {}
    for record in pages.read(RECORDS):
        by.setdefault((record["name"], record["spec"]), []).append(record)
    found: dict[str, list[Record]] = {}
    for (name, _), folds in by.items():
        folds = sorted(folds, key=lambda record: str(record["data"]))
        if [record["data"] for record in folds] != [f"{ANSWERS}{number}" for number in range(FOLDS)]:
            continue
        count = [record["samples"] for record in folds]
        correct = "".join(record["correct"] for record in folds)
        whole = {
            **folds[0],
            "samples": sum(count),
            "correct": correct,
            "top1": correct.count("1") / sum(count),
            "bytes_total": float(np.average([record["bytes_total"] for record in folds], weights=count)),
        }
        found.setdefault(name, []).append(whole)
    return found


def lines() -> Iterator[str]:
    methods = over_folds()
    yield "| what is sent | agreement, % (95 %) | bytes | share |"
    yield "| --- | --- | ---: | ---: |"
    for points in methods.values():
        for r in sorted(points, key=lambda r: float(r["bytes_total"])):
            low, high = wilson(r["correct"].count("1"), r["samples"])
            agreed = f"{100 * r['top1']:.1f} ({100 * low:.1f}-{100 * high:.1f})"
            yield f"| `{r['spec']}` | {agreed} | {r['bytes_total']:,.0f} | {r['device_share']:.2f} |"
    yield ""
    rivals = {name: Method.of(methods[name]) for name in NAMES.values()}
    codec, crf = REFERENCE
    [reference] = [r for r in methods[NAMES[codec]] if r["knobs"] == {**r["knobs"], "crf": crf, "preset": USUAL}]
    wanted = sorted({reference["top1"], *(step / 100 for step in range(70, 100, 5))})
    yield "| agreement, % | ours | " + " | ".join(rivals) + " | ours / H.265 (95 %) | ours / best (95 %) | a quarter |"
    yield "| ---: | ---: |" + " ---: |" * len(rivals) + " --- | --- | --- |"
    ours = Method.of(methods["ours"])
    of_h265 = at_equal_accuracy(ours, {NAMES[codec]: rivals[NAMES[codec]]}, wanted)
    for one, other in zip(at_equal_accuracy(ours, rivals, wanted), of_h265, strict=True):
        theirs = map(size, one.rivals.values())
        cells = [f"{100 * one.accuracy:.1f}", size(one.bytes), *theirs, ratio(other), ratio(one)]
        met = "met" if other.ratio is not None and other.ratio <= GOAL else "missed"
        yield f"| {' | '.join(cells)} | {met} |"


def size(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"


def ratio(one: Equal) -> str:
    low, high = ("inf" if bound is None else f"{bound:.2f}" for bound in (one.low, one.high))
    return "-" if one.ratio is None else f"{one.ratio:.2f} ({low} to {high})"


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="?", help="folder of clips by class")
    parser.add_argument("init", nargs="?", help="weights of DeiT-Tiny")
    parser.add_argument("runs", type=Path, nargs="?", help="folder for what is trained")
    options = parser.parse_args()
    for number, tested in enumerate(parts_of(options.data) if options.runs else ()):
        measure(*teach(options.data, options.init, options.runs, number, tested))
    pages.tell(PAGE, MARKS, lines())


if __name__ == "__main__":
    main()
