"""Results as text for other programs: CSV, Markdown, JSON and CompressAI's JSON of rate and distortion."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from semcodec._json import to_json
from semcodec._version import __version__
from semcodec.bench.deltas import Delta
from semcodec.bench.page import commands, origin
from semcodec.bench.results import Group, MeasuredPoint, Results

PIXEL_BYTES = 3
"""Of one 8-bit RGB pixel of the source."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What cells that spreadsheets compute begin with."""
Deltas = Mapping[tuple[str, str, str], Sequence[Delta]]
COLUMNS: dict[str, Callable[[Group, MeasuredPoint], Any]] = {
    "data": lambda group, point: group.data,
    "split": lambda group, point: group.split,
    "samples": lambda group, point: group.samples,
    "data_digest": lambda group, point: group.digest,
    "curve": lambda group, point: point.curve,
    "spec": lambda group, point: point.spec,
    "metric": lambda group, point: group.metric,
    "accuracy": lambda group, point: point.accuracy,
    "low": lambda group, point: point.low,
    "high": lambda group, point: point.high,
    "bytes_total": lambda group, point: point.bytes,
    "bytes_payload": lambda group, point: point.record.get("bytes_payload"),
    "bytes_side": lambda group, point: point.record.get("bytes_side"),
    "bytes_header": lambda group, point: point.record.get("bytes_header"),
    "ratio_uint8": lambda group, point: point.record.get("ratio_uint8"),
    "ratio_float32": lambda group, point: point.record.get("ratio_float32"),
    "sent_ratio": lambda group, point: point.record.get("sent_ratio"),
    "device_share": lambda group, point: point.share,
    "macs_device": lambda group, point: point.record.get("macs_device"),
    "macs_server": lambda group, point: point.record.get("macs_server"),
    "device_ms": lambda group, point: sum(point.device_ms.values()),
    "server_ms": lambda group, point: sum(point.server_ms.values()),
    "pareto": lambda group, point: point.front,
}


def as_csv(results: Results, anchor: str | None, deltas: Deltas) -> str:
    """One line a point; with an anchor each also has what its curve is against that one."""
    out = io.StringIO()
    rows = [{n: value(group, p) for n, value in COLUMNS.items()} for group in results.groups for p in group.points]
    if anchor:
        against = {(group.key, d.curve): d for group in results.groups for d in deltas.get(group.key, ())}
        points = [(group, point) for group in results.groups for point in group.points]
        for row, (group, point) in zip(rows, points, strict=True):
            row |= _beside(anchor, against.get((group.key, point.curve)))
    names = list(rows[0])
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _neutral(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _beside(anchor: str, delta: Delta | None) -> dict[str, Any]:
    """What a point's curve is against the anchor; nothing of the anchor itself."""
    found = asdict(delta) if delta else dict.fromkeys(field.name for field in fields(Delta))
    told: dict[str, Any] = {"bd_anchor": anchor}
    for name in ("rate", "accuracy"):
        low, high = found[f"{name}_interval"] or (None, None)
        told |= {f"bd_{name}": found[name], f"bd_{name}_low": low, f"bd_{name}_high": high}
    return told | {"bd_overlap": found["overlap"], "bd_note": found["note"]}


def _neutral(value: Any) -> Any:
    """Text on one line; what a spreadsheet would take for a formula after an apostrophe (OWASP, CSV injection)."""
    if not isinstance(value, str):
        return value
    return "'" * value.startswith(FORMULA) + " ".join(value.splitlines())


def as_markdown(results: Results, anchor: str | None, deltas: Deltas) -> str:
    """Tables by data set, and what was not measured."""
    lines = []
    for group in results.groups:
        lines += [f"## {_text(group.title)}, {_text(group.split or 'all')}, {group.samples:,} samples", ""]
        lines += _table(
            [
                "spec",
                "curve",
                f"{group.measure.label}, {group.measure.unit}",
                "95 % interval",
                "bytes",
                "x 8-bit",
                "share",
                "device ms",
                "server ms",
            ],
            [_row(point) for point in group.points],
            right=range(2, 9),
        )
        lines += ["", "Bold: on the Pareto front.", ""]
        if rows := deltas.get(group.key):
            lines += [f"### Bjøntegaard deltas against {_text(anchor)}", ""]
            figures = [
                [
                    _text(d.curve),
                    d.points,
                    _signed(d.rate, " %", d.rate_interval),
                    _signed(d.accuracy, "", d.accuracy_interval),
                    f"{d.overlap:.0%}",
                    d.note,
                ]
                for d in rows
            ]
            head = ["curve", "points", "BD-rate", "BD-accuracy, points", "overlap", "note"]
            lines += [*_table(head, figures, right=range(1, 5)), ""]
        lines += [f"- {name}: {_text(value)}" for name, value in origin(results, group)]
        told = "\n".join(commands(results, group))
        fence = "`" * max(3, _longest_ticks(told) + 1)
        lines += ["", fence, told, fence, ""]
    for title, entries, key in (("Failed", results.failures, "failed"), ("Skipped", results.skips, "reason")):
        if entries:
            lines += [
                f"## {title}",
                "",
                *_table(["spec", "why"], [[_text(e.get("spec")), _text(e.get(key))] for e in entries]),
                "",
            ]
    return "\n".join(lines)


def as_json(results: Results, anchor: str | None, deltas: Deltas) -> str:
    """Everything: records as they are, with curve, place on the front and baselines."""
    groups = [
        {
            "data": group.data,
            "split": group.split,
            "samples": group.samples,
            "data_digest": group.digest,
            "metric": group.metric,
            "points": [{**p.record, "curve": p.curve, "pareto": p.front} for p in group.points],
            "baselines": [asdict(baseline) for baseline in group.baselines],
            **({"anchor": anchor, "deltas": [asdict(d) for d in deltas.get(group.key, ())]} if anchor else {}),
        }
        for group in results.groups
    ]
    found = {
        "semcodec": __version__,
        "header": dict(results.header),
        "groups": groups,
        "failures": list(results.failures),
        "skips": list(results.skips),
        "warnings": list(results.warnings),
    }
    return to_json(found, indent=2) + "\n"


def as_compressai(results: Results) -> str:
    """CompressAI's form for its plots: one object for one curve, a list of them for several.

    ``bpp`` is bits of a packet for each pixel of the source (of every frame, for video), and left out where the
    source's size is not in the records.
    """
    curves = [_curve(group, name, points) for group in results.groups for name, points in group.curves.items()]
    return to_json(curves[0] if len(curves) == 1 else curves, indent=2) + "\n"


def _curve(group: Group, name: str, points: Sequence[MeasuredPoint]) -> dict[str, Any]:
    pixels = [(point.record.get("raw_uint8_bytes") or 0) / PIXEL_BYTES for point in points]
    bpp = {"bpp": [8 * p.bytes / n for p, n in zip(points, pixels, strict=True)]} if all(pixels) else {}
    values = {"bytes": [p.bytes for p in points], group.metric: [p.accuracy for p in points]}
    unit = "a fraction" if group.measure.unit == "%" else f"in {group.measure.unit}"
    about = f"{group.data}, {group.split or 'all'}, {group.samples} samples, digest {group.digest}; "
    about += f"{group.metric} is {unit}, bytes are means a sample"
    times = {
        "encoding_time": [sum(p.device_ms.values()) / 1e3 for p in points],
        "decoding_time": [sum(p.server_ms.values()) / 1e3 for p in points],
    }
    return {"name": name, "description": about, "results": {**bpp, **values, **times}}


def _row(point: MeasuredPoint) -> list[Any]:
    mark = "**" if point.front else ""
    ratio = point.record.get("ratio_uint8")
    value, low, high = point.shown
    return [
        f"{mark}{_code(point.spec)}{mark}",
        _text(point.curve),
        f"{value:.1f}",
        f"{low:.1f} - {high:.1f}",
        f"{point.bytes:,.1f}",
        f"{ratio:,.1f}" if ratio else "-",
        "-" if point.share is None else f"{point.share:.3f}",
        f"{sum(point.device_ms.values()):.2f}",
        f"{sum(point.server_ms.values()):.2f}",
    ]


def _signed(value: float | None, unit: str, interval: tuple[float, float] | None = None) -> str:
    ends = f" ({interval[0]:+.2f} to {interval[1]:+.2f})" if interval else ""
    return "-" if value is None else f"{value:+.2f}{unit}{ends}"


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()) -> list[str]:
    rule = ["---:" if i in right else "---" for i in range(len(headers))]
    return [f"| {' | '.join(map(_cell, row))} |" for row in (headers, rule, *rows)]


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _text(value: Any) -> str:
    """Text on one line in which Markdown finds no tag, link or code."""
    plain = html.escape(" ".join(str(value).splitlines()), quote=False)
    return re.sub(r"([`\[\]])", r"\\\1", plain)


def _code(text: str) -> str:
    """Text as code, whatever backticks it has."""
    count = _longest_ticks(text)
    space, ticks = " " * bool(count), "`" * (count + 1)
    return f"{ticks}{space}{' '.join(text.splitlines())}{space}{ticks}"


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
