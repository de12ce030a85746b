"""Results as LaTeX for a paper: tables by ``booktabs``, the best figures bold, all text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from semcodec._version import __version__
from semcodec.bench.claims import Claim, claims
from semcodec.bench.deltas import Delta
from semcodec.bench.export import Deltas
from semcodec.bench.results import MeasuredPoint, Results, uncompressed

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def text(value: object) -> str:
    """Text in which LaTeX finds no command."""
    return "".join(SPECIAL.get(letter, letter) for letter in " ".join(str(value).splitlines()))


def code(value: object) -> str:
    """A spec, which may break behind ``+`` and ``,``."""
    return rf"\texttt{{{text(value)}}}".replace("+", r"+\allowbreak{}").replace(",", r",\allowbreak{}")


def as_latex(results: Results, anchor: str | None, deltas: Deltas) -> str:
    """A table of the points of each data set, and beside it one of the curves against the anchor."""
    lines = [f"% semcodec {__version__}; needs \\usepackage{{booktabs}}"]
    for group in results.groups:
        measure = group.measure
        where = f"{text(group.title)}, {text(group.split or 'all')}, {group.samples:,} samples"
        alone = "; ".join(
            f"{text(name)} uncompressed: {measure.shown(value):.1f}" for name, value in uncompressed(group).items()
        )
        head = ["curve", "spec", f"{text(measure.label)}, {text(measure.unit)}", "95\\,\\% interval", "bytes", "share"]
        lines += _table(
            "llrrrr", head, (_row(point) for point in group.points), f"{where}. Bold: on the Pareto front. {alone}"
        )
        if rows := deltas.get(group.key):
            told = {claim.curve: claim for claim in claims(group, anchor)}
            lines += _table(
                "lrrrr",
                ["curve", "BD-rate, \\%", "BD-accuracy, points", "bytes, \\%", "overlap, \\%"],
                (_delta(row, told.get(row.curve)) for row in rows),
                f"{where}: against {text(anchor)}, with 95\\,\\% intervals by resamples of the samples. "
                "Bytes: mean at the accuracies that both reach.",
            )
    return "\n".join(lines) + "\n"


def _table(columns: str, head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> list[str]:
    return [
        "\\begin{table}",
        "\\centering",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(head) + r" \\",
        "\\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        "\\bottomrule",
        "\\end{tabular}",
        f"\\caption{{{caption.strip()}}}",
        "\\end{table}",
    ]


def _row(point: MeasuredPoint) -> list[str]:
    value, low, high = point.shown
    figures = f"{value:.1f}", f"{point.bytes:,.1f}"
    accuracy, size = (rf"\textbf{{{figure}}}" if point.front else figure for figure in figures)
    interval = f"{low:.1f}--{high:.1f}"
    return [text(point.curve), code(point.spec), accuracy, interval, size, _share(point)]


def _share(point: MeasuredPoint) -> str:
    return "--" if point.share is None else f"{point.share:.2f}"


def _delta(row: Delta, claim: Claim | None) -> list[str]:
    rate, accuracy = _with(row.rate, row.rate_interval), _with(row.accuracy, row.accuracy_interval)
    fewer = None if claim is None else 100 * (claim.ratio - 1)
    ends = None if claim is None else (100 * (claim.low - 1), 100 * (claim.high - 1))
    return [text(row.curve), rate, accuracy, _with(fewer, ends), f"{100 * row.overlap:.0f}"]


def _with(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "--"
    ends = "" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]"
    return f"${value:+.1f}$".replace("+", "{+}").replace("-", "{-}") + ends.replace("-", "$-$")
