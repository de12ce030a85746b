"""What the scripts beside it share: records, kept line by line, and tables put into a page between its marks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from semcodec.bench.equal import Equal
from semcodec.composition.composition import compose_spec
from semcodec.evaluation.evaluate import run_sweep
from semcodec.evaluation.keys import Known
from semcodec.pipeline.weights import WeightsRequest
from semcodec.tasks.table import get_task

Record = dict[str, Any]


def read(path: Path) -> list[Record]:
    """The records of a file, none of one that is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, record: Record) -> None:
    """Keep one more, in which weights are named by the last part of their path alone."""
    for weights in record.get("weights", {}).values():
        weights["source"] = Path(weights["source"] or "").name
    with path.open("a") as file:
        print(json.dumps(record), file=file)


def measure(
    path: Path,
    name: str,
    spec: str,
    grid: Mapping[str, Sequence[Any]],
    request: WeightsRequest,
    data: str,
    limit: int | None = None,
) -> None:
    """Keep a record of each point of a sweep that has none yet, under a name."""
    for record in run_sweep(compose_spec(spec), grid, request, data, limit=limit, known=Known.read(path)):
        append(path, {**record, "data": Path(data).name, "name": name})
        metric = get_task(record["task"]).metric
        score = metric.shown(record[metric.key])
        print(f"{name}: {metric.head} {score:.1f}, {record['bytes_total']:.0f} bytes", flush=True)


def sent(rows: Iterable[Record]) -> Iterator[str]:
    """A table of points: what is sent, top-1, bytes and the device's share."""
    yield "| what is sent | top-1, % (95 %) | bytes | share |"
    yield "| --- | --- | ---: | ---: |"
    for r in rows:
        low, high = r["top1_interval"]
        score = f"{100 * r['top1']:.1f} ({100 * low:.1f}-{100 * high:.1f})"
        yield f"| `{r['spec']}` | {score} | {r['bytes_total']:,.0f} | {r['device_share']:.2f} |"


def compared(one: Equal, goal: float, digits: int) -> str:
    """A table's row of bytes at an accuracy: ours, the rivals', ours over the best of theirs, and whether it is met."""
    sizes = ["-" if size is None else f"{size:,.0f}" for size in (one.bytes, *one.rivals.values())]
    if one.ratio is None:
        told = ["-", "not reached"]
    else:
        low, high = (math.inf if bound is None else bound for bound in (one.low, one.high))
        met = "met" if one.ratio <= goal else f"missed by {one.ratio / goal:.2f} times"
        told = [f"{one.ratio:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})", met]
    return f"| {' | '.join([f'{100 * one.accuracy:g}', *sizes, *told])} |"


def tell(page: Path, marks: tuple[str, str], lines: Iterable[str]) -> None:
    """Put lines between the marks of a page, which begins with these alone where it is not there."""
    text = page.read_text() if page.exists() else "\n".join(marks)
    before, _, rest = text.partition(marks[0])
    page.write_text(
        f"{before}{marks[0]}\n\n" + "\n".join(lines).rstrip() + f"\n\n{marks[1]}{rest.partition(marks[1])[2]}"
    )
