"""The report's charts as PNG, SVG and PDF, drawn by matplotlib, and beside them as PGF."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semcodec.bench import pgf
from semcodec.bench.results import Group, Results, followed, pareto, uncompressed
from semcodec.errors import SemcodecError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RATES = [10 ** (-1 + i / 20) for i in range(81)]
"""Mbit/s, 0.1 to 1000."""
BARS_MBPS = 10.0
MARKERS = "os^Dvp*XP"
FORMS = ("png", "svg", "pdf")
UNDATED: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Metadata without the time, so that the same results are the same file."""


def write(results: Results, folder: Path) -> Iterator[Path]:
    """Draw every chart of every data set into the folder, a file of each of ``FORMS``, and its curves as PGF.

    Raises SemcodecError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise SemcodecError("plots need matplotlib: pip install 'semcodec[report]'") from None
    from semcodec._files import whole_file

    folder.mkdir(parents=True, exist_ok=True)
    for group, name in zip(results.groups, _file_names(results), strict=True):
        for chart in (accuracy, completion, stages):
            figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
            FigureCanvasAgg(figure)
            axes = figure.add_subplot()
            chart(axes, group)
            axes.set_title(f"{group.title}, {group.split or 'all'}, {group.samples:,} samples", fontsize=10)
            for form in FORMS:
                path = folder / f"{chart.__name__}{name}.{form}"
                with whole_file(path) as file:
                    figure.savefig(file, format=form, metadata=UNDATED.get(form, {}))
                yield path
        for kind, text in (("accuracy", pgf.accuracy(group)), ("completion", pgf.completion(group, RATES))):
            path = folder / f"{kind}{name}.pgf"
            with whole_file(path) as file:
                file.write(text.encode())
            yield path


def accuracy(axes: Axes, group: Group) -> None:
    """Accuracy against bytes, with intervals and the Pareto front."""
    import matplotlib

    colours = matplotlib.colormaps["tab10"]
    for i, (name, points) in enumerate(group.curves.items()):
        own = [p for p in points if p.bytes > 0]
        values = [p.shown[0] for p in own]
        spread = [[p.shown[0] - p.shown[1] for p in own], [p.shown[2] - p.shown[0] for p in own]]
        look: dict[str, Any] = {"color": colours(i % 10), "label": name, "linestyle": "none", "elinewidth": 0.6}
        marker = MARKERS[i // 10 % len(MARKERS)]
        axes.errorbar([p.bytes for p in own], values, yerr=spread, marker=marker, markersize=4, alpha=0.8, **look)
        best = pareto(own)  # a curve is the line over its own front
        line = [p.bytes for p in best], [p.shown[0] for p in best]
        axes.plot(*line, color=colours(i % 10), linewidth=1.1, alpha=0.8)
    front = [p for p in group.points if p.front and p.bytes > 0]
    last = max(p.bytes for p in group.points)
    steps = [[*(p.bytes for p in front), last], [p.shown[0] for p in [*front, *front[-1:]]]]
    if front:
        axes.step(*steps, where="post", color="black", linewidth=1.2, label="Pareto front")
    for name, value in uncompressed(group).items():
        axes.axhline(
            group.measure.shown(value), color="0.4", linestyle="--", linewidth=0.8, label=f"{name} uncompressed"
        )
    if last > 0:
        axes.set_xscale("log")
    axes.set(xlabel="bytes a sample", ylabel=f"{group.measure.label} in {group.measure.unit}")
    _finish(axes)


def completion(axes: Axes, group: Group) -> None:
    """Device, link and server time against the rate of the link."""
    for point in followed(group):
        axes.plot(RATES, [point.ms(rate) for rate in RATES], label=point.spec)
    for i, base in enumerate(group.baselines):
        times = [base.ms(rate) for rate in RATES]
        axes.plot(RATES, times, label=base.label, color="0.4", linestyle=("--", ":", "-.")[i % 3])
    axes.set(xscale="log", yscale="log", xlabel="link rate in Mbit/s", ylabel="completion time in ms")
    _finish(axes)


def stages(axes: Axes, group: Group) -> None:
    """Time by stage at one link rate, stacked: blue on the device, grey on the link, orange on the server."""
    import matplotlib

    points = followed(group)
    stacked: dict[str, list[float]] = {}
    device = list(dict.fromkeys(stage for p in points for stage in p.device_ms))
    server = list(dict.fromkeys(stage for p in points for stage in p.server_ms))
    for stage in device:
        stacked[stage] = [p.device_ms.get(stage, 0.0) for p in points]
    stacked["link"] = [p.link_ms(BARS_MBPS) for p in points]
    for stage in server:
        stacked[stage] = [p.server_ms.get(stage, 0.0) for p in points]
    shades = {"link": (0.67, 0.7, 0.75, 1.0)}
    for names, palette in ((device, "Blues"), (server, "Oranges")):
        for i, stage in enumerate(names):
            shades[stage] = matplotlib.colormaps[palette](0.35 + 0.55 * i / max(1, len(names) - 1))
    left = [0.0] * len(points)
    for stage, times in stacked.items():
        axes.barh([p.spec for p in points], times, left=left, color=shades[stage], label=stage)
        left = [a + b for a, b in zip(left, times, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel(f"ms a sample at {BARS_MBPS:g} Mbit/s")
    axes.tick_params(axis="y", labelsize=6)
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.grid(True, which="major", color="0.9")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=6, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _file_names(results: Results) -> list[str]:
    """What tells the files of the data sets apart: nothing for a single one."""
    if len(results.groups) == 1:
        return [""]
    plain = [re.sub(r"[^a-z0-9]+", "-", group.title.lower()).strip("-") for group in results.groups]
    scores = [group.metric.replace("_", "-") for group in results.groups]
    digests = [group.digest[:8] for group in results.groups]
    for parts in ([plain], [plain, scores], [plain, digests]):
        names = ["".join(f"-{part}" for part in row) for row in zip(*parts, strict=True)]
        if len(set(names)) == len(names):
            return names
    return ["".join(f"-{part}" for part in row) for row in zip(plain, scores, digests, strict=True)]
