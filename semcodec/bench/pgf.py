"""The report's curves as PGF for a paper: pictures of ``pgfplots``, in which LaTeX sets text in the paper's own font.

Written as text, so neither LaTeX nor matplotlib is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

from semcodec.bench.latex import text
from semcodec.bench.results import Group, MeasuredPoint, followed, pareto, uncompressed

COLOURS = ("2f6fde", "e06c00", "12936a", "d6336c", "7048e8", "0891a8", "a97a00", "8a4b2d", "5c8a00", "6b7785")
MARKS = ("*", "square*", "triangle*", "diamond*", "pentagon*", "o", "square", "triangle", "diamond", "pentagon")
HEAD = r"""% \usepackage{pgfplots} \pgfplotsset{compat=1.17}
\begin{tikzpicture}
"""


def accuracy(group: Group) -> str:
    """Accuracy over bytes: points with their intervals, and a line over each curve's own front."""
    options = [
        "xmode=log",
        "xlabel={bytes a sample}",
        rf"ylabel={{{text(group.measure.label)} in {text(group.measure.unit)}}}",
    ]
    body = []
    for i, (name, points) in enumerate(group.curves.items()):
        own = [point for point in points if point.bytes > 0]
        mark = f"mark={MARKS[i % len(MARKS)]}"
        bars = "error bars/.cd, y dir=both, y explicit"
        body.append(rf"\addplot[curve{i}, {mark}, mark size=1.5pt, only marks, {bars}] table[")
        body.append("  x=bytes, y=accuracy, y error plus=more, y error minus=less] {")
        body += [
            "  bytes accuracy more less",
            *(f"  {_row(point)}" for point in own),
            "};",
            rf"\addlegendentry{{{text(name)}}}",
        ]
        line = " ".join(f"({point.bytes:.6g},{point.shown[0]:.6g})" for point in pareto(own))
        body.append(rf"\addplot[curve{i}, forget plot] coordinates {{{line}}};")
    low, high = _ends([point.bytes for point in group.points if point.bytes > 0])
    for name, value in uncompressed(group).items():
        at = group.measure.shown(value)
        body.append(rf"\addplot[dashed, gray] coordinates {{({low:.6g},{at:.6g}) ({high:.6g},{at:.6g})}};")
        body.append(rf"\addlegendentry{{{text(name)} uncompressed}}")
    return _picture(options, body, len(group.curves))


def completion(group: Group, rates: Sequence[float]) -> str:
    """Completion time over the rate of the link, of the points that are followed and of the baselines."""
    options = ["xmode=log", "ymode=log", "xlabel={link rate in Mbit/s}", "ylabel={completion time in ms}"]
    names = list(group.curves)
    body = []
    for point in followed(group):
        line = " ".join(f"({rate:.5g},{point.ms(rate):.5g})" for rate in rates)
        body.append(rf"\addplot[curve{names.index(point.curve)}] coordinates {{{line}}};")
        body.append(rf"\addlegendentry{{{text(point.spec)}}}")
    for base in group.baselines:
        line = " ".join(f"({rate:.5g},{base.ms(rate):.5g})" for rate in rates)
        body += [rf"\addplot[dashed, gray] coordinates {{{line}}};", rf"\addlegendentry{{{text(base.label)}}}"]
    return _picture(options, body, len(names))


def _picture(options: Sequence[str], body: Sequence[str], curves: int) -> str:
    colours = [
        rf"\definecolor{{semcodec{i}}}{{HTML}}{{{COLOURS[i % len(COLOURS)].upper()}}}"
        rf" \pgfplotsset{{curve{i}/.style={{semcodec{i}}}}}"
        for i in range(curves)
    ]
    look = "grid=major, legend cell align=left, legend style={font=\\scriptsize}, legend pos=outer north east"
    axis = [rf"\begin{{axis}}[{', '.join(options)}, {look}]", *body, r"\end{axis}"]
    return HEAD + "\n".join([*colours, *axis, r"\end{tikzpicture}"]) + "\n"


def _row(point: MeasuredPoint) -> str:
    value, low, high = point.shown
    more, less = max(0.0, high - value), max(0.0, value - low)
    return f"{point.bytes:.6g} {value:.6g} {more:.6g} {less:.6g}"


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (1.0, 10.0)
