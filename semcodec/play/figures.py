"""What was measured as HTML and SVG that stand alone: no script, no font and no address of anywhere else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from semcodec.planning.latency import OperatingPoint
from semcodec.planning.link import Link
from semcodec.play.playground import Share, Shown
from semcodec.play.rivals import Point, found_names

RATES = np.geomspace(0.02, 100, 61)
"""Mbit/s of the chart of completion times."""
WIDE, HIGH, LEFT, RIGHT, BOTTOM, TOP = 640, 320, 66, 24, 48, 12
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#8c564b")
PARTS = (("payload", "#d62728"), ("side", "#ff9896"), ("header", "#c7a4a4"))

STYLE = """<style>
.sc{font:14px/1.45 system-ui,sans-serif;color:var(--body-text-color,#222)} .sc h3{font-size:15px;margin:.6em 0 .4em}
.sc .big{font-size:20px;font-weight:600} .sc .note{opacity:.75;font-size:13px} .sc .bytes{white-space:nowrap}
.sc .row{display:grid;grid-template-columns:minmax(6.5em,9em) 1fr;gap:.2em .6em;align-items:center;margin:.2em 0}
.sc .bar{display:flex;height:16px;min-width:1px;border-radius:2px;overflow:hidden}
.sc .key{display:inline-block;width:10px;height:10px;margin:0 4px 0 10px}
.sc svg{width:100%;height:auto;max-width:760px} .sc svg text{fill:currentColor;font:15px system-ui,sans-serif}
</style>"""


def page(shown: Shown) -> str:
    """All figures of a run, below each other."""
    return f'<div class="sc">{STYLE}{_answer(shown)}{_bytes(shown)}{_times(shown)}</div>'


def problem(text: str) -> str:
    """What went wrong, in the place of figures."""
    return f'<div class="sc">{STYLE}<p class="big">{escape(text)}</p></div>'


def _answer(shown: Shown) -> str:
    first, *others = shown.answer
    more = f'<div class="note">{escape(", ".join(others))}</div>' if others else ""
    sent = f"{shown.total:,} bytes" if shown.total else f"nothing sent; {shown.kept} bytes keep the device's own answer"
    ratio = f", {shown.raw / shown.total:,.0f} times fewer than the input's pixels" if shown.total else ""
    return (
        f'<div class="big">{escape(first)}</div>{more}<div id="sc-bytes" class="bytes">{sent}</div>'
        f'<div class="note">{escape(shown.spec)}{ratio}</div>'
    )


def _bytes(shown: Shown) -> str:
    points = [point for one in shown.rivals for point in (one.same_bytes, one.same_answer) if point is not None]
    most = max([shown.total, 1, *(point.bytes for point in points)])
    key = "".join(f'<span class="key" style="background:{colour}"></span>{name}' for name, colour in PARTS)
    parts = [(shown.bytes[name], colour) for name, colour in PARTS]
    split = " + ".join(f"{shown.bytes[name]:,} {name}" for name, _ in PARTS)
    lines = [f"<h3>Bytes</h3><div class='note'>{key}</div>", _row("this", parts, most, split)]
    for one in shown.rivals:
        same = _told(one.same_bytes) if one.fits else f"{_told(one.same_bytes)}: cannot be smaller"
        lines.append(_row(f"{one.name}, equal bytes", [(one.same_bytes.bytes, "#1f77b4")], most, same))
        if one.same_answer is None:
            lines.append(_row(f"{one.name}, equal answer", [], most, "none of its settings that were tried"))
        else:
            alike = [(one.same_answer.bytes, "#7fb2dd")]
            lines.append(_row(f"{one.name}, equal answer", alike, most, _told(one.same_answer)))
    return "".join(lines)


def _told(point: Point) -> str:
    names = found_names(point.prediction)
    answer = point.prediction.name if names is None else f"{len(names)} found"
    return f"{point.bytes:,} at {point.knob}: {answer}"


def _row(name: str, parts: Iterable[tuple[int, str]], most: int, text: str) -> str:
    bars = "".join(f'<i style="width:{100 * size / most:.2f}%;background:{colour}"></i>' for size, colour in parts)
    right = f'<div><div class="bar">{bars}</div><span class="note">{escape(text)}</span></div>'
    return f'<div class="row"><span>{escape(name)}</span>{right}</div>'


def ends(share: Share | None) -> str:
    """What each end computes, below the other figures; nothing while that is not known."""
    if share is None:
        return ""
    both = (share.macs_device + share.macs_server) / 1e6
    told = "neither end multiplies anything"
    if share.device is not None:
        told = f"{100 * share.device:.1f} % of {both:,.1f} million multiply-accumulates"
    whole = f"the model alone: {share.macs_whole / 1e6:,.1f} million"
    return f'<div class="sc">{STYLE}<h3>The device\'s share</h3><div>{told}</div><div class="note">{whole}</div></div>'


def curves(shown: Shown) -> list[tuple[str, list[float]]]:
    """By name, ms until the answer is there at each of ``RATES``: this, rivals at the same answer, and raw pixels."""
    points = [("this", shown.point)]
    for one in shown.rivals:
        if (alike := one.same_answer) is not None:
            times = {"device": alike.device_ms}, {"server": alike.server_ms}
            points.append((one.name, OperatingPoint(one.name, None, float(alike.bytes), *times)))
    tail = shown.rivals[0].same_bytes.server_ms if shown.rivals else sum(shown.point.server_ms.values())
    points.append(("raw pixels", OperatingPoint("raw", None, float(shown.raw), {}, {"server": tail})))
    return [(name, [float(point.ms(Link.fixed(float(rate)))) for rate in RATES]) for name, point in points]


def _times(shown: Shown) -> str:
    drawn = curves(shown)
    low = math.floor(math.log10(max(1e-3, min(min(line) for _, line in drawn))))
    high = math.ceil(math.log10(max(max(line) for _, line in drawn)))
    high = max(high, low + 1)

    def x(rate: float) -> float:
        first, last = math.log10(RATES[0]), math.log10(RATES[-1])
        return LEFT + (math.log10(rate) - first) / (last - first) * (WIDE - LEFT - RIGHT)

    def y(ms: float) -> float:
        return HIGH - BOTTOM - (math.log10(max(ms, 1e-3)) - low) / (high - low) * (HIGH - BOTTOM - TOP)

    parts = [
        f'<line x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{y(10**power):.1f}" y2="{y(10**power):.1f}" stroke="currentColor" '
        f'stroke-opacity=".15"/><text x="{LEFT - 6}" y="{y(10**power) + 4:.1f}" text-anchor="end">{10**power:g}</text>'
        for power in range(low, high + 1)
    ]
    parts += [
        f'<text x="{x(rate):.1f}" y="{HIGH - BOTTOM + 19}" text-anchor="middle">{rate:g}</text>'
        for rate in (0.02, 0.1, 1, 10, 100)
    ]
    parts.append(f'<text x="{(LEFT + WIDE) / 2}" y="{HIGH - 6}" text-anchor="middle">Mbit/s of the link</text>')
    for number, (_, line) in enumerate(drawn):
        path = " ".join(f"{x(rate):.1f},{y(ms):.1f}" for rate, ms in zip(RATES, line, strict=True))
        dashes = ' stroke-dasharray="5 4"' if number == len(drawn) - 1 else ""
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
    svg = f'<svg viewBox="0 0 {WIDE} {HIGH}" role="img">{"".join(parts)}</svg>'
    device, server = (sum(times.values()) for times in (shown.point.device_ms, shown.point.server_ms))
    here = f'<div class="note">here {device:.1f} ms on the device, {server:.1f} ms on the server</div>'
    return f"<h3>Milliseconds until the answer is there</h3>{here}<div>{_keys([name for name, _ in drawn])}</div>{svg}"


def _keys(names: Sequence[str]) -> str:
    return "".join(
        f'<span class="key" style="background:{COLOURS[i % len(COLOURS)]}"></span>{escape(name)}'
        for i, name in enumerate(names)
    )
