"""Results as one HTML page that needs nothing else: its data, style and script are inside it."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from semcodec._json import to_json
from semcodec._version import __version__
from semcodec.bench.claims import claims, headline
from semcodec.bench.deltas import Delta
from semcodec.bench.results import Group, MeasuredPoint, Results, followed, uncompressed, without_folders
from semcodec.tasks.table import WEIGHTS

if TYPE_CHECKING:
    from semcodec.bench.pictures import Received

    Pictures = Mapping[tuple[str, str, str], Sequence[Received]]


@dataclass(frozen=True)
class Report:
    """Results as a notebook shows them: the page, in a frame of its own. anchor: what the curves are compared with."""

    results: Results
    anchor: str | None = None

    def _repr_html_(self) -> str:
        page = html.escape(render(self.results, self.anchor))
        return f'<iframe style="width:100%;height:820px;border:0" sandbox="allow-scripts" srcdoc="{page}"></iframe>'


def render(
    results: Results,
    anchor: str | None = None,
    deltas: Mapping[tuple[str, str, str], Sequence[Delta]] | None = None,
    pictures: Pictures | None = None,
) -> str:
    """The page. By key of the group: ``deltas``, the curves against ``anchor``; ``pictures``, what arrived."""
    parts = {
        name: files("semcodec.bench").joinpath(f"page.{name}").read_text("utf-8") for name in ("html", "css", "js")
    }
    title = f"semcodec report: {', '.join(dict.fromkeys(group.title for group in results.groups))}"
    page = parts["html"]
    found = payload(results, anchor, deltas or {}, pictures or {})
    # "<" only ever opens markup, so data that holds "</script>" cannot end the script it lies in
    inside = to_json(found, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    for name, text in (("title", html.escape(title)), ("css", parts["css"]), ("js", parts["js"]), ("data", inside)):
        page = page.replace("{{" + name + "}}", text, 1)
    return page


def payload(
    results: Results,
    anchor: str | None,
    deltas: Mapping[tuple[str, str, str], Sequence[Delta]],
    pictures: Pictures,
) -> dict[str, Any]:
    """What the script draws."""
    groups = []
    for group in results.groups:
        names = list(group.curves)
        rows = deltas.get(group.key)
        told = claims(group, anchor if anchor in names else None)
        base = told[0].anchor if told else anchor
        chosen = {id(point) for point in followed(group, base)}
        groups.append(
            {
                "data": group.title,
                "split": group.split,
                "samples": group.samples,
                "metric_name": group.measure.label,
                "unit": group.measure.unit,
                "curves": names,
                "points": [_point(point, names.index(point.curve)) for point in group.points],
                "follow": [i for i, point in enumerate(group.points) if id(point) in chosen],
                "anchor": names.index(base) if base in names else None,
                "headline": headline(told),
                "claims": [str(claim) for claim in told[1:]],
                "uncompressed": [
                    {"name": n, "accuracy": group.measure.shown(a) / 100} for n, a in uncompressed(group).items()
                ],
                "pictures": [asdict(one) for one in pictures.get(group.key, ())],
                "baselines": [asdict(baseline) for baseline in group.baselines],
                "deltas": rows and {"anchor": anchor, "rows": [asdict(row) for row in rows]},
                "reproduce": {"commands": commands(results, group), "fields": origin(results, group)},
            }
        )
    return {
        "groups": groups,
        "failures": [
            {"spec": str(f.get("spec")), "reason": without_folders(str(f["failed"]))} for f in results.failures
        ],
        "skips": [{"spec": str(s.get("spec")), "reason": without_folders(str(s.get("reason")))} for s in results.skips],
        "warnings": [without_folders(text) for text in results.warnings],
    }


def _point(point: MeasuredPoint, curve: int) -> dict[str, Any]:
    """accuracy, low, high: in hundredths of the unit."""
    accuracy, low, high = (value / 100 for value in point.shown)
    record = point.record
    parts = [record.get(f"bytes_{part}") for part in ("payload", "side", "header")]
    return {
        "spec": point.spec,
        "curve": curve,
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "bytes": point.bytes,
        "parts": None if None in parts else parts,
        "ratio": record.get("ratio_uint8"),
        "sent": record.get("sent_ratio", 1.0),
        "share": point.share,
        "device": dict(point.device_ms),
        "server": dict(point.server_ms),
        "front": point.front,
    }


def commands(results: Results, group: Group) -> list[str]:
    """What measures these points again: the folder's own command, else one for each curve's first point.

    Of paths only the last part is told.
    """
    command = results.header.get("command")
    if command:
        return [without_folders(command if isinstance(command, str) else shlex.join(map(str, command)))]
    split = ["--split", group.split] if group.split else []
    few = [without_folders(points[0].spec) for points in group.curves.values()][:3]
    more = [f"# and so on, {len(group.points)} points in all"] if len(group.points) > len(few) else []
    tail = ["--data", group.title, *split, "--limit", str(group.samples)]
    return ["\n".join([*(shlex.join(["semcodec", "eval", spec, *tail]) for spec in few), *more])]


def origin(results: Results, group: Group) -> list[tuple[str, str]]:
    """Data, versions, machine and weights behind the points, each value once."""
    members = [point.record for point in group.points]
    found = [
        ("data", f"{group.title}, {group.split or 'all'}, {group.samples:,} samples, digest {group.digest}"),
        ("weights of tasks", _each(_pairs(record.get(WEIGHTS)) for record in members)),
        ("versions", _each(_pairs(record.get("versions")) for record in members)),
        ("machine", _each(_pairs(record.get("machine")) for record in members)),
        ("samples together", _each(str(record.get("batch", "")) for record in members)),
        ("seed", _each(str(record.get("seed", "")) for record in members)),
        ("weights", _each(text for record in members for text in _weights(record.get("weights")))),
        ("from", str(results.source.name)),
        ("page by", f"semcodec {__version__}"),
    ]
    return [(name, without_folders(value)) for name, value in found if value]


def _each(values: Iterable[str]) -> str:
    return "; ".join(value for value in dict.fromkeys(values) if value)


def _pairs(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else ""


def _weights(value: Any) -> Iterable[str]:
    if isinstance(value, Mapping):
        for slot, source in value.items():
            yield f"{slot} {source.get('digest')} ({source.get('source')})"
