"""Draws the figures of README and of docs/methods.md, each in light and dark: ``python docs/figures.py [NAME ...]``.

    python docs/figures.py                  everything, into docs/figures
    python docs/figures.py sent win         the two of README alone
    python docs/figures.py --measure RUNS   first measures what "win" shows into RUNS, which goes on where it stopped

Curves are drawn from the records beside the pages of docs/results, pictures by sending a sample that ships through the
method. Needs the extra ``report``.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from PIL import Image

import semcodec
from semcodec.evaluation.sample_panels import make_panels
from semcodec.evaluation.thumbnails import folded
from semcodec.painting import paint
from semcodec.panels import Panel

HERE = Path(__file__).parent
OUT = HERE / "figures"
RESULTS = HERE / "results"
FIRST = RESULTS / "first_minute.jsonl"
Record = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """Colours of one scheme. curves: in order, the first for what the figure is about."""

    name: str
    back: str
    ink: str
    soft: str
    grid: str
    curves: tuple[str, ...]


LOOKS = (
    Look("light", "#ffffff", "#16191d", "#5b6470", "#e3e6ea", ("#2f6fde", "#e06c00", "#12936a", "#d6336c", "#7048e8")),
    Look("dark", "#0d1117", "#e8ebef", "#a3adb9", "#2a3039", ("#6ea4ff", "#ff9f4a", "#3fcf9b", "#ff7aa8", "#a68bff")),
)

# -- what README's plot shows ------------------------------------------------------------------------------------------

CODEC = "layered:level=2+rans+vit-nano@embed"
CLIPS = 500
CRF = (32, 36, 40, 44, 48, 51)
QUALITY = (1, 5, 10, 20, 40)
GRIDS = {
    "layered+rans+vit-nano@embed": ("layered.level", (1, 2, 3, 4)),
    "h265+vit-nano": ("h265.crf", CRF),
    "h264+vit-nano": ("h264.crf", CRF),
    "avif+vit-nano": ("avif.quality", QUALITY),
    "jpeg+vit-nano": ("jpeg.quality", QUALITY),
}
"""What is measured, each coder as it comes and down to its lowest quality."""
KEPT = (
    "spec", "task", "knobs", "data", "split", "samples", "data_digest", "top1", "top1_interval", "correct",
    "bytes_total", "bytes_payload", "bytes_side", "bytes_header", "raw_uint8_bytes", "ratio_uint8", "sent_ratio",
    "device_share",
    "stages_ms", "versions", "weights", "record", "key",
)  # fmt: skip


def measure(runs: Path) -> None:
    """Measure what ``win`` shows, going on where it stopped, and keep the records."""
    from semcodec.cli import main
    from semcodec.evaluation.records import PLAN, read

    found = []
    for spec, (knob, values) in GRIDS.items():
        out = runs / spec.partition("+")[0]
        again = ["--resume"] if (out / PLAN).exists() else []
        sweep = ["--sweep", f"{knob}={','.join(map(str, values))}"]
        main(
            ["bench", spec, *sweep, "--data", "digits-motion", "--limit", str(CLIPS), "--offline", "--out", str(out),
             *again],
            standalone_mode=False,
        )  # fmt: skip
        found += [{key: row[key] for key in KEPT if key in row} for row in read(out)]
    FIRST.write_text("".join(json.dumps(row) + "\n" for row in found))


NAMES = {
    "layered": "layered", "h264": "H.264", "h265": "H.265", "avif": "AVIF", "jpeg": "JPEG", "webp": "WebP",
    "png": "PNG", "av1": "AV1", "cls-attn": "cls-attn", "stae": "STAE",
}  # fmt: skip


def records(name: str) -> list[Record]:
    return [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text().splitlines() if line.strip()]


def encoder(record: Record) -> str:
    return record["spec"].partition("+")[0].partition(":")[0]


def front(rows: Sequence[Record]) -> list[Record]:
    """The records that no other beats, in order of bytes."""
    kept: list[Record] = []
    for row in sorted(rows, key=lambda row: (row["bytes_total"], -metric(row)[0])):
        if not kept or metric(row)[0] > metric(kept[-1])[0]:
            kept.append(row)
    return kept


def metric(row: Record) -> tuple[float, float, float]:
    """Accuracy and its interval."""
    name = next(key for key in ("top1", "map50") if key in row)
    low, high = row.get(f"{name}_interval") or (row[name], row[name])
    return row[name], low, high


def curve(axes: Axes, rows: Sequence[Record], colour: str, marker: str, label: str, size: float = 5) -> None:
    """Points with their intervals, and a line over them in order of bytes."""
    rows = sorted(rows, key=lambda row: row["bytes_total"])
    values = np.array([metric(row) for row in rows]) * 100
    spread = [np.maximum(values[:, 0] - values[:, 1], 0), np.maximum(values[:, 2] - values[:, 0], 0)]
    x = [row["bytes_total"] for row in rows]
    axes.errorbar(x, values[:, 0], spread, color=colour, marker=marker, markersize=size, label=label, linewidth=1.6,
                  elinewidth=0.8, capsize=0)  # fmt: skip


def dress(axes: Axes, look: Look, small: bool = False) -> None:
    axes.set_facecolor(look.back)
    axes.grid(True, color=look.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=look.soft, labelsize=7 if small else 9, which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda size, _: f"{size / 1000:g} kB" if size >= 1000 else f"{size:g} B")
    )
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def win(look: Look) -> Figure:
    """Accuracy over bytes of clips: the codec that ships beside video and pictures, and the device's share."""
    figure = Figure((8.6, 4.3), facecolor=look.back, layout="constrained")
    axes = figure.add_subplot()
    dress(axes, look)
    rows = [json.loads(line) for line in FIRST.read_text().splitlines()]
    for i, (spec, marker) in enumerate(zip(GRIDS, "os^Dv", strict=True)):
        name = spec.partition("+")[0]
        own = sorted((row for row in rows if encoder(row) == name), key=lambda row: row["bytes_total"])
        curve(axes, own, look.curves[i], marker, NAMES[name])
        for row in own:
            axes.annotate(
                f"{row['device_share']:.2g}", (row["bytes_total"], 100 * row["top1"]), xytext=(4, -10),
                textcoords="offset points", fontsize=6.5, color=look.soft,
            )  # fmt: skip
        at = (own[0]["bytes_total"], 100 * own[0]["top1"])
        where = {"layered": (-4, -24), "h265": (10, -4), "h264": (-46, -4), "avif": (10, -4), "jpeg": (-40, -4)}[name]
        axes.annotate(NAMES[name], at, xytext=where, textcoords="offset points", fontsize=11, color=look.curves[i],
                      weight="bold")  # fmt: skip
    alone = next(row for row in records("stae_digits") if row["spec"] == "png+vit-nano")
    right = 100 * alone["correct"][:CLIPS].count("1") / CLIPS
    axes.axhline(right, color=look.soft, linestyle=(0, (5, 4)), linewidth=1)
    axes.annotate(f"uncompressed, 196,608 B: {right:.1f} %", (0.36, right), xycoords=("axes fraction", "data"),
                  xytext=(0, 5), textcoords="offset points", ha="center", fontsize=8, color=look.soft)  # fmt: skip
    axes.set_xlabel(
        "bytes a clip, everything counted; small figures: the device's share of the computing", color=look.soft
    )
    axes.set_ylabel("clips recognised, %", color=look.soft)
    return figure


def sent(look: Look) -> Figure:
    """One clip through the codec that ships: source, what is chosen, what arrived, and the answer."""
    pipeline = semcodec.compose(CODEC, offline=True)
    pixels, _ = semcodec.open_dataset("digits-motion", "test", pipeline.request).batch([0])
    [packet] = pipeline.encode_batch(pixels, [0])
    [answer] = pipeline.decode_batch(pipeline.records([packet]))
    prepared, _, _ = pipeline.device.prepare(pixels, [0])
    symbols = prepared.latents[0].symbols
    panels = make_panels(pipeline, pixels)
    figure = Figure((10.4, 3.0), facecolor=look.back, layout="constrained")
    grid = figure.add_gridspec(1, 4, width_ratios=(1, 1, 1, 1.15))
    frames = pixels[0]
    gap = np.full((4 * 66 - 2, 4 * 66 - 2, 3), _rgb(look.back), np.uint8)
    for i, frame in enumerate(frames):
        top, left = 66 * (i // 4), 66 * (i % 4)
        gap[top : top + 64, left : left + 64] = frame
    total = sum(int(values.size) for values in symbols.values())
    nonzero = sum(int(np.count_nonzero(values)) for values in symbols.values())
    shown = (
        (f"source: {len(frames)} frames, {pipeline.raw_uint8_bytes:,} B", gap),
        (f"chosen: {total:,} integers, {nonzero} not 0", _symbols(symbols, look)),
        (f"arrived, from {packet.bytes_total} B", paint(panels[-1])),
    )
    for i, (title, picture) in enumerate(shown):
        axes = figure.add_subplot(grid[i])
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(title, fontsize=9.5, color=look.ink, loc="left")
        axes.set_anchor("N")
        axes.set_axis_off()
    logits = answer.logits.astype(np.float64)
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    best = np.argsort(shares)[::-1][:5]
    axes = figure.add_subplot(grid[3])
    axes.set_facecolor(look.back)
    bars = axes.barh([pipeline.classes[i] for i in best], 100 * shares[best], color=[look.curves[0], *[look.grid] * 4])
    axes.bar_label(bars, [f"{100 * shares[i]:.0f} %" for i in best], padding=4, color=look.ink, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 118)
    axes.set_title(f"the server's answer: {answer.name}", fontsize=9.5, color=look.ink, loc="left")
    axes.tick_params(colors=look.ink, length=0, labelsize=9)
    axes.xaxis.set_visible(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _symbols(symbols: Mapping[str, Any], look: Look) -> np.ndarray[Any, Any]:
    """Maps of integers side by side, 32 wide: blue above zero, orange below."""
    rows = []
    for values in symbols.values():
        maps = values.reshape(-1, *values.shape[-2:])
        across = 32 // maps.shape[-1]
        grid = maps.reshape(-1, across, *maps.shape[-2:]).swapaxes(1, 2).reshape(-1, 32)
        rows += [grid, np.zeros((1, 32), grid.dtype)]
    whole = np.concatenate(rows[:-1])
    back, up, down = (np.array(_rgb(colour)) for colour in (look.grid, look.curves[0], look.curves[1]))
    strength = np.clip(np.abs(whole) / max(1, np.abs(whole).max()), 0, 1)[..., None] ** 0.5
    colours = np.where(whole[..., None] > 0, up, down)
    return np.asarray(back * (1 - strength) + colours * strength, np.uint8)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


# -- the gallery -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """One method. curves: encoders of the records ``of``, the method first. where: which of these records."""

    spec: str
    data: str
    of: str
    curves: tuple[str, ...]
    where: Callable[[Record], bool] = lambda row: True


def clips(samples: int) -> Callable[[Record], bool]:
    return lambda row: row["data"] == "digits-motion" and row["samples"] == samples


def ending(text: str, data: str = "digits-scenes") -> Callable[[Record], bool]:
    """Of this backbone and cut, or of the backbone's input."""
    at_input = text.partition("@")[0]
    return lambda row: row["data"] == data and row["spec"].rpartition("+")[2] in (text, at_input)


def ungated(row: Record) -> bool:
    return row["spec"].endswith("+vit-nano-server") and not any(w in row["spec"] for w in ("entropy:", "margin"))


PICTURES = ("avif", "webp", "jpeg")
GALLERY = {
    "layered": Shown(CODEC, "digits-motion", "first_minute", ("layered", "h265", "h264", "avif")),
    "stae": Shown("stae:frames=4+rans+vit-nano", "digits-motion", "stae_digits", ("stae", "webp", "jpeg", "h264"),
                  clips(300)),
    "deepisc": Shown("deepisc:entropy=all+rans+vit-nano", "digits-motion", "deepisc_video", ("deepisc", "h265", "av1"),
                     clips(300)),
    "cls-attn": Shown("cls-attn+rans+vit-nano-server", "digits-scenes", "cls_attn_digits", ("cls-attn", *PICTURES),
                      ungated),
    "mot": Shown("mot+rans+vit-nano-server", "digits-scenes", "cls_attn_digits", ("mot", "a-mot", *PICTURES), ungated),
    "sdt": Shown("sdt+rans+vit-nano-server", "digits-scenes", "cls_attn_digits", ("sdt", *PICTURES), ungated),
    "isr": Shown("isr:2+sr:2+vit-nano-server", "digits-scenes", "cls_attn_digits", ("isr", *PICTURES), ungated),
    "aecnn": Shown("aecnn+rans+resnet-nano", "digits-scenes", "aecnn_caltech", ("aecnn", "bottlenetpp", "jpeg")),
    "bottlenetpp": Shown("bottlenetpp+rans+resnet-nano", "digits-scenes", "aecnn_caltech",
                         ("bottlenetpp", "aecnn", "jpeg")),
    "pca": Shown("pca+rans+resnet-nano@stem", "digits-scenes", "feature_video", ("pca", *PICTURES),
                 ending("resnet-nano@stem")),
    "feature-video": Shown("feature-video+rans+resnet-nano@stem", "digits-scenes", "feature_video",
                           ("feature-video", "feature-video-pca", *PICTURES), ending("resnet-nano@stem")),
    "pictures": Shown("avif:10+vit-nano-server", "digits-scenes", "cls_attn_digits", PICTURES, ungated),
    "videos": Shown("h265:44+vit-nano", "digits-motion", "first_minute", ("h265", "h264", "avif", "jpeg")),
}  # fmt: skip


def method(name: str) -> Callable[[Look], Figure]:
    shown = GALLERY[name]
    pipeline = semcodec.compose(shown.spec, offline=True)
    pixels, _ = semcodec.open_dataset(shown.data, "test", pipeline.request).batch([3 if "scenes" in shown.data else 0])
    panels = _few(make_panels(pipeline, pixels))
    rows = [row for row in records(shown.of) if shown.where(row) and row["bytes_total"] > 0 and "failed" not in row]

    def draw(look: Look) -> Figure:
        figure = Figure((9.0, 2.7), facecolor=look.back, layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=(1.35, 1))
        for part in (left, right):
            part.set_facecolor(look.back)
        strips = all(panel.aspect > 3 for panel in panels)
        places = left.subplots(len(panels), 1) if strips else left.subplots(1, len(panels))
        for axes, panel in zip(np.atleast_1d(places), panels, strict=True):
            axes.imshow(paint(panel), interpolation="nearest", aspect="auto" if panel.image is None else "equal")
            title = panel.title if strips else textwrap.fill(panel.title, 27)
            axes.set_title(title, fontsize=8, color=look.ink, loc="left")
            axes.set_anchor("N")
            axes.set_axis_off()
        axes = right.subplots()
        dress(axes, look, small=True)
        for i, one in enumerate(shown.curves):
            own = front([row for row in rows if encoder(row) == one])
            if own:
                curve(axes, own, look.curves[i], "os^Dv"[i], NAMES.get(one, one), 3.5)
        label = "mAP50, %" if rows and "map50" in rows[0] else "top-1, %"
        axes.set_ylabel(label, color=look.soft, fontsize=8)
        told = f"{rows[0]['data']}, {rows[0]['samples']:,} samples" if rows else ""
        axes.set_xlabel(f"bytes a sample ({told})", color=look.soft, fontsize=8)
        axes.legend(fontsize=7, frameon=False, labelcolor=look.ink)
        return figure

    return draw


def _few(panels: Sequence[Panel]) -> list[Panel]:
    """Source, what it was chosen by, and what arrived."""
    few = [*panels[:2], panels[-1]] if len(panels) > 3 else list(panels)
    if all(panel.aspect > 3 for panel in few):
        return few
    return [Panel(one.title, folded(one.image)) if one.image is not None and one.aspect > 3 else one for one in few]


# -- writing -----------------------------------------------------------------------------------------------------------


def write(name: str, draw: Callable[[Look], Figure]) -> Iterator[Path]:
    """Both schemes: SVG for lines, a PNG of few colours for pictures."""
    for look in LOOKS:
        figure = draw(look)
        FigureCanvasAgg(figure)
        if name == "win":
            path = OUT / f"{name}-{look.name}.svg"
            figure.savefig(path, metadata={"Date": None}, facecolor=look.back)
            path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
        else:
            path = OUT / f"{name}-{look.name}.png"
            held = BytesIO()
            figure.savefig(held, dpi=110, facecolor=look.back)
            image = Image.open(held).convert("RGB").quantize(256, dither=Image.Dither.NONE)
            image.save(path, optimize=True)
        yield path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"sent, win, {', '.join(GALLERY)}; all by default")
    parser.add_argument("--measure", type=Path, metavar="RUNS")
    given = parser.parse_args()
    known: dict[str, Callable[[], Callable[[Look], Figure]]] = {"sent": lambda: sent, "win": lambda: win}
    known |= {name: lambda name=name: method(name) for name in GALLERY}
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"there is no figure {unknown[0]}; there are {', '.join(known)}")
    if given.measure:
        measure(given.measure)
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = "semcodec"
    OUT.mkdir(exist_ok=True)
    for name in given.names or known:
        for path in write(name, known[name]()):
            print(f"{path.relative_to(HERE.parent)}  {path.stat().st_size:,} B")


if __name__ == "__main__":
    main()
