"""``semcodec eval``."""

from __future__ import annotations

import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semcodec._files import LineFile, whole_file
from semcodec._json import to_json
from semcodec._progress import Progress
from semcodec.cli import options
from semcodec.cli.output import echo_fields, echo_table
from semcodec.cli.reads import spare
from semcodec.cli.streams import check_output
from semcodec.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from semcodec.composition.grammar import Value
    from semcodec.tasks.base import Metric


@click.command()
@click.argument("spec")
@click.option("--data", required=True, metavar="NAME|FOLDER", help="What to evaluate on; see 'semcodec data list'.")
@click.option("--split", default="test", show_default=True, help="test, train, or for folders all.")
@options.classes
@options.tasks
@click.option("--limit", type=click.IntRange(1), help="The first so many samples.")
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Samples that run together.")
@click.option(
    "--sweep",
    "swept",
    multiple=True,
    metavar="ITEM.KEY=V,V,...",
    help="Evaluate every value, as in stae.frames=1,2,4; repeated, every combination.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Append the records to this JSON Lines file; points that it has are not run again.",
)
@click.option("--remeasure", is_flag=True, help="With -o: measure points anew that have changed since.")
@options.accelerator
@options.weights
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    help="How results are printed; json is one line a point.  [default: table, json with --sweep]",
)
def command(
    spec: str,
    data: str,
    split: str,
    classes: list[str] | None,
    tasks: tuple[str, ...],
    limit: int | None,
    batch: int,
    swept: tuple[str, ...],
    output: Path | None,
    remeasure: bool,
    device: str,
    half: bool,
    given: tuple[str, ...],
    offline: bool,
    form: str | None,
) -> None:
    """Run every sample of a data set through SPEC, as real bytes, and print means.

    Accuracy comes with its 95 % interval (Wilson's) and the digest of what was evaluated; sizes and times are means
    per sample. Records have the keys of compose --input, averaged. Of a detector it is mAP50, by pycocotools, with an
    interval from 1,000 bootstrap samples of the images (seed 0). Of a spec with several backbones there is one record
    for each task, of the same packets.
    """
    from semcodec.composition.composition import compose_spec
    from semcodec.data.datasets import check_dataset

    composition, grid = compose_spec(spec), grid_of(swept)
    request = options.request(given, offline)
    for task in tasks:
        composition.alone(task)  # raises where there is none
    form = form or ("json" if grid else "table")
    if remeasure and output is None:
        raise UsageError("--remeasure is for -o FILE, whose points have changed")
    if output:
        check_output(output, stdout=False)
        spare([output], data=[data], weights=given)
    check_dataset(data)
    with LineFile(output) if output else nullcontext() as file:
        there = _records(file) if file else []

        from semcodec.evaluation.evaluate import run_sweep
        from semcodec.evaluation.keys import Known

        known = Known(there, output, remeasure=remeasure, tell=partial(click.echo, err=True))
        records = []
        points = run_sweep(
            composition, grid, request, data, split=split, classes=classes, limit=limit, batch=batch, known=known,
            device=device, half=half, progress=Progress().count, tasks=tasks,
        )  # fmt: skip
        for record in points:
            line = to_json(record)
            if file:
                file.append(line)
            if form == "json":
                click.echo(line)
            records.append(record)
    if output and known.stale:
        _leave_out(output, known.stale)
    if not records:
        click.echo(f"nothing to run: {output} has every point", err=True)
    elif form == "table":
        _show(records)


def grid_of(swept: Sequence[str]) -> dict[str, list[Value]]:
    """By "item.key", the values to try. Raises UsageError."""
    from semcodec.composition.grammar import read_word

    grid: dict[str, list[Value]] = {}
    for text in swept:
        name, equals, values = text.partition("=")
        item, _, key = name.rpartition(".")
        if not (equals and item and key) or "" in values.split(","):
            raise UsageError(f"--sweep {text}: expects ITEM.KEY=V,V,... as in stae.frames=1,2,4")
        if name in grid:
            raise UsageError(f"--sweep names {name} twice; give all of its values at once")
        try:
            grid[name] = [read_word(word) for word in values.split(",")]
        except ValueError as error:
            raise UsageError(f"--sweep {text}: {error} is too large a number") from None
    return grid


def _records(file: LineFile) -> list[dict[str, Any]]:
    """The records that the file has. A half line at its end, of a run that was stopped, is cut off."""
    if not file.regular:  # a pipe or a device has no records
        return []
    content = file.path.read_bytes()
    whole, newline, rest = content.rpartition(b"\n")
    try:
        found = [json.loads(line) for line in whole.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        found = [None]
    half = not rest or rest.startswith(b"{")
    if not half or not all(isinstance(record, dict) and "key" in record for record in found):
        raise DataError(f"{file.path} is no file of records; name another with -o")
    if len(whole + newline) < len(content):
        file.truncate(len(whole + newline))
    return found


def _leave_out(output: Path, stale: Sequence[Mapping[str, Any]]) -> None:
    """Take records out of a file, in whose place others were measured."""
    if not output.is_file():
        return
    kept = [
        line
        for line in output.read_bytes().splitlines(keepends=True)
        if not line.strip() or json.loads(line) not in stale
    ]
    with whole_file(output) as file:
        file.writelines(kept)


def _show(found: Sequence[dict[str, Any]]) -> None:
    """A table for each task."""
    for number, task in enumerate(dict.fromkeys(record["task"] for record in found)):
        if number:
            click.echo()
        _show_alike([record for record in found if record["task"] == task])


def _show_alike(records: Sequence[dict[str, Any]]) -> None:
    first = records[0]
    if len(records) == 1:
        click.echo(f"{first['spec']}\n")
    from semcodec.tasks.table import task_of

    task = task_of(first)
    metric = task.metric
    half = "half_cost" in first
    headers = [
        metric.head,
        "95 % interval",
        *(["at float32"] if half else []),
        *(head for head, _ in task.columns(first)),
    ]
    headers += ["bytes", "payload", "side", "header", "x float32", "x 8-bit", "share", "ms"]
    rows = []
    for r in records:
        low, high = (metric.shown(bound) for bound in r[f"{metric.key}_interval"])
        row: list[Any] = [
            *([r["spec"]] if len(records) > 1 else []),
            metric.shown(r[metric.key]),
            f"{low:.1f} - {high:.1f}",
        ]
        row += [metric.shown(r["half_cost"][metric.key])] if half else []
        row += [value for _, value in task.columns(r)]
        row += [float(r[f"bytes_{part}"]) for part in ("total", "payload", "side", "header")]
        share = "-" if r["device_share"] is None else f"{r['device_share']:.3f}"
        rows.append([*row, r["ratio_float32"], r["ratio_uint8"], share, float(sum(r["stages_ms"].values()))])
    echo_table([*(["spec"] if len(records) > 1 else []), *headers], rows)
    click.echo()
    fields = [("data", f"{first['data']}, {first['split'] or 'all'}, {first['samples']:,} samples")]
    fields += [*task.notes(first), ("digest", first["data_digest"])]
    if first["sent_ratio"] < 1:
        fields.append(("sent", f"{100 * first['sent_ratio']:.1f} % of samples; the device answered the others"))
    if len(records) == 1:
        fields.append(("ms", ", ".join(f"{stage} {ms:.2f}" for stage, ms in first["stages_ms"].items())))
        millions = ", ".join(f"{end} {first[f'macs_{end}'] / 1e6:,.1f} M" for end in ("device", "server", "whole"))
        fields.append(("macs", f"{millions}; share is the device's of both; whole is the model alone"))
    if half and len(records) == 1:
        fields.append(("bfloat16", _cost(first["half_cost"], metric)))
    if "accelerator" in first:
        fields.append(("device", f"{first['accelerator']}, {first['accelerator_name']}"))
    weights = "; ".join(f"{slot}: {w['source']}" for slot, w in first["weights"].items())
    echo_fields([*fields, ("weights", weights or "none needed")])


def _cost(cost: Mapping[str, float], metric: Metric) -> str:
    """What computing in bfloat16 costs of accuracy, in one line."""
    points, low, high = (metric.shown(cost[name]) for name in ("difference", "low", "high"))
    size = f"{cost['bytes_total']:,.1f} bytes"
    return (
        f"costs {points:.2f} points ({low:.2f} to {high:.2f}) of {metric.shown(cost[metric.key]):.2f} {metric.unit} "
        f"at float32 and {size}"
    )
