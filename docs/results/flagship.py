"""Measures what docs/results/flagship.md shows: codecs of features at a cut against pictures and video.

Beside every figure stands the device's share of the computing.

    python docs/results/flagship.py RUNS                       everything, then the page: see --part and --step
    python docs/results/flagship.py RUNS --part clips --step rivals
    python docs/results/flagship.py RUNS --part clips --limit 200      a try, whose tables are printed and not kept
    python docs/results/flagship.py                            the page's tables, from the records there are

Photographs are DATA/nips2017, where DATA is the folder that SEMCODEC_DATA names, and their DeiT-Tiny lies beside it.
ResNet-50 of DATA/caltech101 has learned its last stage first:

    semcodec train resnet50-caffe:side=128 --init resnet50_caffe_to_layer3.safetensors --data DATA/caltech101 \
        -o RUNS/caltech-backbone

RUNS gets a results folder of 'semcodec bench' for each step of a part, which goes on where it stopped; what is measured
on all samples is kept in flagship.jsonl, where the page's tables come from. Steps ``rivals``
and ``others`` do not depend on the codecs' weights, which ``ours`` takes from where they ship, or from --codec.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pages

from semcodec._json import to_json
from semcodec.bench.equal import Method, at_equal_accuracy
from semcodec.cli import main as semcodec
from semcodec.composition.composition import compose_spec
from semcodec.evaluation.records import PLAN, read
from semcodec.tasks.base import Metric
from semcodec.tasks.table import get_task

HERE = Path(__file__).parent
ZOO = HERE.parents[1] / "examples" / "zoo"
RECORDS, PAGE = HERE / "flagship.jsonl", HERE / "flagship.md"
MARKS = "<!-- measured -->", "<!-- end -->"
Record = dict[str, Any]
Grid = dict[str, Sequence[Any]]
Cells = list[tuple[str, Grid]]
LEVELS: Grid = {"layered.level": (1, 2, 3, 4)}

QUALITIES = (1, 2, 3, 5, 7, 10, 13, 16, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 90)
LOW = tuple(quality for quality in QUALITIES if quality <= 40)
"""Of scenes: beyond all that its goals ask for."""
PRESETS = {
    "h264": ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"),
    "av1": tuple(range(13, -1, -1)),
}
PRESETS["h265"] = PRESETS["h264"]
GROUPS = (0, 1, 4, 8)
"""Frames from key frame to key frame; 0 leaves that to the coder, for which a clip of 16 is one group."""
CRF = {"h264": tuple(range(27, 52, 3)), "h265": tuple(range(27, 52, 3)), "av1": tuple(range(27, 64, 4))}
"""Down to the lowest quality that each has."""
TRIED = {"h264": (36, 46), "h265": (36, 46), "av1": (47, 60)}
TRIAL, ALIKE = 50, 0.01
"""Clips that presets and groups are tried on, and the part of bytes up to which settings are alike there."""


@dataclass(frozen=True)
class Goal:
    """At most ``ratio`` of the rivals' bytes, within ``share``, at every whole percentage from ``low`` to ``high``, and
    at ``high``.
    """

    low: int
    high: float
    share: float
    ratio: float

    @property
    def accuracies(self) -> list[float]:
        return [percent / 100 for percent in sorted({*range(self.low, int(self.high) + 1), self.high})]


@dataclass(frozen=True)
class Part:
    """One table. rivals: by encoder, what its points are called. qualities: of pictures. weights: by slot. codec: of
    ours, where none ship.
    """

    title: str
    data: str
    samples: int
    backbone: str
    ours: Cells
    goals: tuple[Goal, ...]
    rivals: Mapping[str, str]
    others: Cells
    qualities: Sequence[int] = QUALITIES
    batch: int = 32
    weights: Mapping[str, str] = field(default_factory=dict)
    codec: Sequence[str] = ()


def parts(runs: Path = Path("RUNS")) -> dict[str, Part]:
    data = Path(os.environ.get("SEMCODEC_DATA", "data"))
    deit = data.parent / "weights" / "deit_tiny_patch16_224.fp16.safetensors"
    whole = {"avif": "AVIF", "webp": "WebP", "jpegxl": "JPEG XL"}
    pictures = {**whole, "isr": "half size"}
    sums = (0.8, 0.87, 0.93, 0.97)
    return {
        "clips": Part(
            "Clips: digits-motion, vit-nano", "digits-motion", 1000, "vit-nano", [("layered+vit-nano@embed", LEVELS)],
            (Goal(99, 99, 0.5, 1 / 10), Goal(90, 98, 0.5, 1 / 5)),
            {"h264": "H.264", "h265": "H.265", "av1": "AV1"},
            [
                ("local+vit-nano", {}), ("png+vit-nano", {}), ("tensor8+rans+vit-nano", {}),
                ("tensor8+rans+vit-nano@embed", {}),
                ("stae+rans+vit-nano", {"stae.frames": (8, 12, 16), "stae.quality": (1, 10, 30)}),
                ("deepisc:entropy=all,pixels=0.0+rans+vit-nano", {"deepisc.frames": (4, 8, 16)}),
            ],
        ),
        "scenes": Part(
            "Scenes: digits-scenes, vit-nano-server", "digits-scenes", 1000, "vit-nano-server",
            [("layered+vit-nano-server@block2", LEVELS)], (Goal(80, 95, 0.5, 1 / 2),), pictures,
            [
                ("local+vit-nano-server", {}), ("png+vit-nano-server", {}), ("tensor8+rans+vit-nano-server", {}),
                ("tensor8+rans+vit-nano-server@block2", {}),
                ("cls-attn+attention-sum+rans+vit-nano-server",
                 {"attention-sum.threshold": sums, "cls-attn.quality": (1, 10, 30)}),
                ("isr:2,coding=webp+sr:2+vit-nano-server", {"isr.quality": (1, 10, 30, 50, 75)}),
            ],
            LOW,
        ),
        "boxes": Part(
            "Boxes: digits-scenes, det-nano", "digits-scenes", 1000, "det-nano",
            [("layered+det-nano@d3", {"layered.layers": (1, 2, 3, 4)}), ("feature-hyperprior+det-nano@d3", {})],
            (Goal(90, 99.5, 0.6, 1 / 5),), whole,
            [
                ("png+det-nano", {}), ("tensor8+rans+det-nano", {}), ("tensor8+rans+det-nano@d3", {}),
                ("feature-video-pca+rans+det-nano@d3", {}),
            ],
            LOW,
        ),
        "photographs": Part(
            "Photographs: nips2017, DeiT-Tiny", str(data / "nips2017"), 500, "deit-tiny",
            [("layered+deit-tiny@block4", LEVELS), ("layered+deit-tiny@block2", LEVELS)],
            (Goal(65, 82, 0.35, 1 / 6), Goal(65, 82, 0.2, 1 / 4)), pictures,
            [
                ("local+deit-tiny", {}), ("png+deit-tiny", {}), ("tensor8+rans+deit-tiny", {}),
                ("tensor8+rans+deit-tiny@block4", {}),
                ("cls-attn:patches=avif+attention-sum+rans+deit-tiny",
                 {"attention-sum.threshold": sums, "cls-attn.quality": (20, 40, 55)}),
            ],
            batch=25, weights={"backbone": str(deit)},
        ),
        "caltech": Part(
            "Caltech-101: ResNet-50 at 128 pixels", str(data / "caltech101"), 1010, "resnet50-caffe:128",
            [("layered:channels=16-16-24,width=128+resnet50-caffe@layer3:128", {"layered.layers": (1, 2, 3)})],
            (Goal(75, 86, 0.8, 1 / 3),), whole,
            [("png+resnet50-caffe:128", {}), ("tensor8+rans+resnet50-caffe@layer3:128", {})],
            weights={"backbone": str(runs / "caltech-backbone")}, codec=[str(ZOO / "resnet50-caffe")],
        ),
    }  # fmt: skip


# -- measuring --------------------------------------------------------------------------------------------------------


def rivals(part: Part, folder: Path, limit: int) -> None:
    """The most telling first, each at all that its coder offers."""
    if "h264" in part.rivals:
        settings = [(codec, setting) for codec in part.rivals for setting in ({}, *best(part, folder, codec))]
        bench(part, folder / "rivals", [clips(part, codec, setting) for codec, setting in settings], limit)
        trial = [clips(part, codec, None) for codec in part.rivals]
        bench(part, folder / TRIAL_STEP, trial, min(limit, TRIAL))
        bench(part, folder / "rivals", [clips(part, c, s) for c in part.rivals for s in best(part, folder, c)], limit)
        return
    for coder, effort in (("webp", ":slow=true"), ("jpegxl", ":slow=true"), ("avif", ""), ("avif", ":slow=true")):
        spec = f"{coder}{effort}+{part.backbone}"
        bench(part, folder / "rivals", [(spec, {f"{coder}.quality": part.qualities})], limit)
        if effort and coder != "jpegxl" and "isr" in part.rivals:
            small = f"isr:2,coding={coder},slow=true+bicubic:2+{part.backbone}"
            bench(part, folder / "rivals", [(small, {"isr.quality": part.qualities})], limit)


def clips(part: Part, codec: str, setting: Mapping[str, Any] | None) -> tuple[str, Grid]:
    """A codec at one setting and all its qualities, or at all settings and some qualities."""
    spec = f"{codec}+{part.backbone}"
    if setting is None:
        return spec, {f"{codec}.preset": PRESETS[codec], f"{codec}.group": GROUPS, f"{codec}.crf": TRIED[codec]}
    fixed = {f"{codec}.{name}": (value,) for name, value in setting.items()}
    return spec, {**fixed, f"{codec}.crf": CRF[codec]}


def best(part: Part, folder: Path, codec: str) -> list[dict[str, Any]]:
    """The setting that took the fewest bytes in the trial, in the mean over the goals' accuracies; none before it.

    The quickest of those that are alike.
    """
    by: dict[tuple[Any, int], list[Record]] = {}
    for record in records(folder / TRIAL_STEP):
        if encoder_of(record) == codec:
            by.setdefault((record["knobs"]["preset"], record["knobs"]["group"]), []).append(record)
    wanted = np.array([accuracy for goal in part.goals for accuracy in goal.accuracies])
    logs = {setting: Method.of(rows).log_bytes(wanted) for setting, rows in by.items()}
    reached = max((np.isfinite(log).sum() for log in logs.values()), default=0)
    means = {
        setting: log[np.isfinite(log)].mean() for setting, log in logs.items() if np.isfinite(log).sum() == reached
    }
    alike = [setting for setting, mean in means.items() if mean <= min(means.values()) + ALIKE]
    quickest = sorted(alike, key=lambda setting: sum(r["stages_ms"]["encode"] for r in by[setting]))[:1]
    return [{"preset": preset, "group": group} for preset, group in quickest]


def bench(part: Part, folder: Path, cells: Cells, limit: int, weights: Sequence[str] = ()) -> None:
    """'semcodec bench' of cells, into a folder that goes on where it stopped."""
    cells = [cell for cell in cells if cell]
    if not cells:
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder.parent / f"{folder.name}.toml"
    file.write_text("".join(f"[[cell]]\nspec = {to_json(spec)}\n{sweep(grid)}\n" for spec, grid in cells))
    given = [f"{slot}={path}" for slot, path in part.weights.items()] + list(weights)
    named = [word for weight in given for word in ("--weights", weight)]
    arguments = [
        "bench", "--cells", file, "--data", part.data, "--limit", limit, "--batch", part.batch, "--out", folder,
        "--offline", "--max-cells", 10000, *named, *(["--resume"] if (folder / PLAN).exists() else []),
    ]  # fmt: skip
    code = semcodec([str(word) for word in arguments], standalone_mode=False)
    if code:
        raise SystemExit(f"semcodec bench ended with {code}: see {folder}")


def sweep(grid: Grid) -> str:
    rows = ", ".join(f"{to_json(name)} = {to_json(list(values))}" for name, values in grid.items())
    return f"sweep = {{{rows}}}\n" if grid else ""


STEPS, TRIAL_STEP = ("ours", "others", "rivals"), "trial"


def measure(part: Part, folder: Path, steps: Sequence[str], limit: int, codecs: Sequence[str]) -> None:
    for step in steps:
        if step == "rivals":
            rivals(part, folder, limit)
        else:
            bench(part, folder / step, part.ours if step == "ours" else part.others, limit,
                  (codecs or part.codec) if step == "ours" else ())  # fmt: skip


def found_in(folder: Path) -> dict[str, list[Record]]:
    """What is measured of a part, by step."""
    return {step: records(folder / step) for step in (*STEPS, TRIAL_STEP)}


def keep(name: str, found: Mapping[str, Sequence[Record]]) -> None:
    """Of a part, what is measured, in the place of what was kept of it."""
    others = [record for record in pages.read(RECORDS) if record["part"] != name]
    RECORDS.unlink(missing_ok=True)
    for record in (*others, *({"part": name, "step": step, **r} for step, rows in found.items() for r in rows)):
        pages.append(RECORDS, record)


def kept(name: str) -> dict[str, list[Record]]:
    """What is kept of a part, by step."""
    rows = [record for record in pages.read(RECORDS) if record["part"] == name]
    return {step: [r for r in rows if r["step"] == step] for step in (*STEPS, TRIAL_STEP)}


# -- showing ----------------------------------------------------------------------------------------------------------


def records(folder: Path) -> list[Record]:
    return [r for r in read(folder) if "failed" not in r] if (folder / PLAN).exists() else []


def encoder_of(record: Record) -> str:
    return str(compose_spec(record["spec"]).encoder.name)


def named(part: Part, rows: Sequence[Record]) -> dict[str, list[Record]]:
    """Rivals by what their coders are called."""
    found: dict[str, list[Record]] = {}
    for record in rows:
        name = part.rivals[encoder_of(record)]
        if name == "half size":
            name = f"{part.rivals[record['knobs']['coding']]} at half size"
        found.setdefault(name, []).append(record)
    return found


def lines(part: Part, found: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    theirs, mine, others = named(part, found["rivals"]), found["ours"], found["others"]
    yield f"## {part.title}"
    yield ""
    yield f"{part.samples} samples of {Path(part.data).name}, whole packets. `share` is the device's part of what both"
    yield f"ends compute, `of local` what the device computes over what {part.backbone} takes alone."
    yield ""
    for goal in part.goals if theirs else ():
        yield from equal(goal, mine, theirs)
    yield from points(mine, theirs, others)


def equal(goal: Goal, mine: Sequence[Record], theirs: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    """Bytes at equal accuracy, of our points within the goal's share."""
    within = [r for r in mine if r["device_share"] <= goal.share]
    yield f"### Bytes at equal accuracy, share at most {goal.share:g}: the goal is {goal.ratio:.3f} of the best"
    yield ""
    if not within:
        yield from ("No point of ours is measured within this share yet.", "")
        return
    methods = {name: Method.of(rows) for name, rows in theirs.items()}
    found = at_equal_accuracy(Method.of(within), methods, goal.accuracies)
    yield f"| {metric_of(mine[0]).head} | ours | {' | '.join(methods)} | ours / best (95 %) | goal |"
    yield "| ---: | ---: |" + " ---: |" * len(methods) + " --- | --- |"
    yield from (pages.compared(one, goal.ratio, 3) for one in found)
    met = sum(one.ratio is not None and one.ratio <= goal.ratio for one in found)
    yield ""
    yield f"Met at {met} of {len(found)} accuracies; our points have shares of {shares(within)}."
    yield ""


def shares(rows: Sequence[Record]) -> str:
    values = sorted(r["device_share"] for r in rows)
    return f"{values[0]:.3f}" if values[0] == values[-1] else f"{values[0]:.3f} to {values[-1]:.3f}"


def points(mine: Sequence[Record], theirs: Mapping[str, Sequence[Record]], others: Sequence[Record]) -> Iterator[str]:
    """All of ours and of the others; of each rival what no other point of it beats."""
    yield "### Points"
    yield ""
    metric = metric_of(next(iter((*mine, *others, *itertools.chain(*theirs.values())))))
    columns = (
        f"{metric.head} (95 %) | bytes | share | of local | device, M MAC | device, MB | device, ms | server, M MAC"
    )
    yield f"| | spec | {columns} |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    groups = [("ours", list(mine)), ("others", list(others)), *((name, front(rows)) for name, rows in theirs.items())]
    for name, rows in groups:
        for r in sorted(rows, key=lambda r: r["bytes_total"]):
            low, high = r[f"{metric.key}_interval"]
            ms = sum(took for stage, took in r["stages_ms"].items() if stage not in SERVER)
            yield (
                f"| {name} | `{r['spec']}` | {100 * r[metric.key]:.1f} ({100 * low:.1f}-{100 * high:.1f}) | "
                f"{r['bytes_total']:.0f} | {r['device_share']:.3f} | {r['macs_device'] / r['macs_whole']:.3f} | "
                f"{r['macs_device'] / 1e6:.1f} | "
                f"{r['memory_device'] / 1e6:.1f} | {ms:.1f} | {r['macs_server'] / 1e6:.1f} |"
            )
    yield ""


SERVER = ("entropy_decode", "read", "restore", "recover", "tail", "nms")


def metric_of(record: Record) -> Metric:
    return get_task(record["task"]).metric


def score_of(record: Record) -> float:
    return float(record[metric_of(record).key])


def front(rows: Sequence[Record]) -> list[Record]:
    kept: list[Record] = []
    for r in sorted(rows, key=lambda r: (r["bytes_total"], -score_of(r))):
        if not kept or score_of(r) > score_of(kept[-1]):
            kept.append(r)
    return kept


def picture(name: str, part: Part, found: Mapping[str, Sequence[Record]]) -> None:
    """Accuracy over bytes: fronts as lines, the device's share beside each of our codecs."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "semcodec"
    figure, axes = pyplot.subplots(figsize=(8, 5))
    curves = {label: front(rows) for label, rows in named(part, found["rivals"]).items()}
    for spec, _ in part.ours:
        own = [r for r in found["ours"] if r["spec"].rpartition("+")[2] == spec.rpartition("+")[2]]
        if own:
            curves[f"{spec} (share {shares(own)})"] = front(own)
    for label, rows in curves.items():
        x, y = [r["bytes_total"] for r in rows], [100 * score_of(r) for r in rows]
        axes.plot(x, y, marker="o", ms=3, lw=2.2 if "share" in label else 1, label=label)
    by: dict[str, list[Record]] = {}
    for record in found["others"]:
        if record["bytes_total"]:
            by.setdefault(record["spec"].partition("+")[0].partition(":")[0], []).append(record)
    for label, rows in by.items():
        axes.plot([r["bytes_total"] for r in rows], [100 * score_of(r) for r in rows], "x", ms=4,
                  label=f"{label} (share {shares(rows)})")  # fmt: skip
    shown = [r for rows in (*curves.values(), *by.values()) for r in rows]
    top = max(map(score_of, shown), default=1)
    axes.set(
        xscale="log",
        xlabel="bytes a sample (whole packets)",
        ylabel=metric_of(shown[0]).head,
        ylim=(100 * top - 40, 100 * top + 1),
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(HERE / f"flagship_{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


def show() -> None:
    """The page's tables, between its marks, and a picture beside it for each part that is measured."""
    text = []
    for name, part in parts().items():
        found = kept(name)
        if any(found[step] for step in STEPS):
            picture(name, part, found)
            text += [*lines(part, found), f"![accuracy over bytes]({f'flagship_{name}.svg'})", ""]
    pages.tell(PAGE, MARKS, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", help="folder of what is measured")
    parser.add_argument("--part", action="append", choices=tuple(parts()), help="only this one; repeatable")
    parser.add_argument("--step", action="append", choices=STEPS, help="only this one; repeatable")
    parser.add_argument("--limit", type=int, help="the first so many samples: a try, which does not touch the page")
    parser.add_argument("--codec", action="append", default=[], metavar="[SLOT=]PATH", help="weights of the codecs")
    options = parser.parse_args()
    for name, part in parts(options.runs).items() if options.runs else ():
        if name not in (options.part or parts()):
            continue
        limit = min(options.limit or part.samples, part.samples)
        folder = options.runs / f"{name}-{limit}"
        measure(part, folder, options.step or STEPS, limit, options.codec)
        if options.limit:
            print("\n".join(lines(part, found_in(folder))))
        else:
            keep(name, found_in(folder))
    if not options.limit:
        show()


if __name__ == "__main__":
    main()
