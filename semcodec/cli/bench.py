"""``semcodec bench``."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from semcodec._json import to_json
from semcodec.cli import options
from semcodec.cli.output import echo_fields, echo_table
from semcodec.cli.reads import spare
from semcodec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from semcodec.bench.cells import Cell
    from semcodec.bench.matrix import Matrix
    from semcodec.bench.runner import Pool
    from semcodec.bench.worker import Settings
    from semcodec.tasks.weighted import Asked

MANY = 2000
SOME_FAILED = 3
"""The exit code where some cells failed, and others were measured."""
_Command = TypeVar("_Command", bound="Callable[..., Any]")


def _several(name: str, what: str) -> Callable[[_Command], _Command]:
    return click.option(f"--{name}", name, multiple=True, metavar="NAME", help=f"Only {what}; repeatable.")


@click.command()
@click.argument("specs", nargs=-1, metavar="[SPEC]...")
@click.option("--data", required=True, metavar="NAME|FOLDER", help="What to evaluate on; see 'semcodec data list'.")
@click.option("--out", "out", type=click.Path(path_type=Path), metavar="DIR", help="Where results go.")
@click.option("--resume", is_flag=True, help="Go on with the results that --out has.")
@click.option("--retry", is_flag=True, help="With --resume: run the cells that failed again.")
@click.option("--remeasure", is_flag=True, help="With --resume: measure cells anew that have changed since.")
@click.option("--dry-run", is_flag=True, help="Only show the plan; runs nothing, imports no torch.")
@click.option("--explain-skips", is_flag=True, help="List what is left out, with the reason.")
@click.option("--task", "tasks", multiple=True, metavar="TASK[=FLOAT],...",
              help="Only models of this task, as in detection or segmentation; of SPECs with several backbones this "
              "one. With weights, as in classification=1,detection=2, the weighted mean is shown too. Repeatable.  "
              "[default: all]")  # fmt: skip
@_several("encoder", "this encoder")
@_several("entropy", "this entropy stage, for encoders that use one")
@_several("recoverer", "this recoverer, instead of each encoder's own")
@_several("selector", "this selector, instead of each encoder's own")
@_several("backbone", "this backbone; needed for families such as timm/*")
@click.option("--all", "everything", is_flag=True, help="Every selector and recoverer, not each encoder's own alone.")
@click.option("--knobs", is_flag=False, flag_value="usual", type=click.Choice(["usual", "all"]),
              help="Sweep the values that components declare: the usual ones of each encoder (its budgets, or its "
              "quality), or all.")  # fmt: skip
@click.option("--sweep", "swept", multiple=True, metavar="ITEM.KEY=V,V,...", help="Sweep these values; repeatable.")
@click.option("--cells", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE.toml",
              help="Specs from a file of [[cell]] tables with spec = ... and sweep = {item.key = [...]}.")  # fmt: skip
@click.option("--max-cells", type=click.IntRange(1), default=MANY, show_default=True, help="Refuse a larger plan.")
@click.option("--split", default="test", show_default=True, help="test, train, or for folders all.")
@options.classes
@click.option("--limit", type=click.IntRange(1), help="The first so many samples.")
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Samples that run together.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of whatever is drawn at random.")
@click.option("-j", "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Workers.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of each worker.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=3600.0, show_default=True,
              help="Seconds a cell may take.")  # fmt: skip
@click.option("--memory-gb", type=click.FloatRange(0, min_open=True), help="Memory a worker may take.")
@click.option("--share-gb", type=click.FloatRange(0), default=1.0, show_default=True,
              help="Memory of a worker for what cells share.")  # fmt: skip
@click.option("--shard", metavar="I/N", help="Only part I of N of the plan, for batch schedulers.")
@click.option("--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--address", help="Of a Ray cluster; without, one is started here.")
@options.accelerator
@options.weights
@click.option("--max-device-share", type=float, help="Show only points whose device computes no more than this part of "
              "what both ends compute, as in 0.35.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True,
              help="How results are printed; json is one record a line.")  # fmt: skip
def command(
    specs: tuple[str, ...],
    data: str,
    out: Path | None,
    resume: bool,
    retry: bool,
    remeasure: bool,
    dry_run: bool,
    explain_skips: bool,
    swept: tuple[str, ...],
    file: Path | None,
    max_cells: int,
    split: str,
    classes: list[str] | None,
    limit: int | None,
    batch: int,
    seed: int,
    jobs: int,
    threads: int,
    timeout: float,
    memory_gb: float | None,
    share_gb: float,
    shard: str | None,
    executor: str,
    address: str | None,
    device: str,
    half: bool,
    given: tuple[str, ...],
    offline: bool,
    max_device_share: float | None,
    form: str,
    tasks: tuple[str, ...],
    **choice: Any,
) -> None:
    """Measure many pipelines alike: the SPECs, or every combination of what is installed that composes for the data.

    Each is a cell: one record, that of semcodec eval, in DIR/records.jsonl as it is finished; a cell that fails is
    recorded with the reason, and the exit code is then 3, or 1 where all cells failed. Cells share what they have in
    common. 'semcodec report DIR' shows the results, 'semcodec plan --results DIR' chooses among them.
    """
    from semcodec.bench.cells import cell_of, ordered, parts
    from semcodec.bench.cells import shard as part_of
    from semcodec.data.datasets import check_dataset
    from semcodec.evaluation.records import data_of
    from semcodec.tasks.weighted import Asked

    asked = Asked.parse(tasks)
    if not dry_run and out is None:
        raise UsageError("--out DIR is missing: where results go; or --dry-run to see the plan")
    for name, given_so in (("retry", retry), ("remeasure", remeasure)):
        if given_so and not resume:
            raise UsageError(f"--{name} is for --resume")
    if max_device_share is not None:
        from semcodec.planning.plan import check_share

        check_share(max_device_share)
    if address and executor != "ray":
        raise UsageError("--address is for --executor ray")
    check_dataset(data)
    most = max_cells * (parts(shard) if shard else 1)
    matrix = _matrix(specs, file, data, split, classes, swept, options.request(given, offline), choice, asked, most)
    named = data_of(out, data) if resume and out is not None and not dry_run else data
    cells = ordered(cell_of(c, named, split, limit, seed, classes) for c in matrix.with_seed(seed))
    cells = part_of(cells, shard) if shard else cells
    if not cells:
        raise UsageError(_empty(matrix, shard))
    if len(cells) > max_cells:
        raise UsageError(f"the plan has {len(cells):,} cells, more than {max_cells:,}: narrow it or raise --max-cells")
    if dry_run:
        _show_plan(cells, matrix, data, explain_skips)
        return
    if explain_skips:
        _show_skips(matrix)
    from semcodec.bench.worker import GIB, Settings
    from semcodec.evaluation.records import PLAN, RECORDS, SKIPS
    from semcodec.pipeline.accelerator import Accelerator
    from semcodec.tasks.weighted import means_of

    if executor == "local":  # what nodes of a cluster have only they know
        Accelerator.find(device)

    settings = Settings(
        data=data if not os.path.isdir(data) else os.path.abspath(data), split=split,
        classes=None if classes is None else tuple(classes), limit=limit, batch=batch, seed=seed,
        weights=tuple(map(_absolute, given)), offline=offline, threads=threads,
        memory=None if memory_gb is None else int(memory_gb * GIB), shared=int(share_gb * GIB),
        device=device, half=half,
    )  # fmt: skip
    assert out is not None
    spare((out / name for name in (PLAN, RECORDS, SKIPS)), data=[data], weights=given, files=[file])
    from semcodec.bench.resume import content

    header = {
        "data": data,
        "content": content(settings),
        "split": split,
        "limit": limit,
        "seed": seed,
        "batch": batch,
        "weights": list(given),
    }
    header |= {
        name: value for name, value, usual in (("device", device, "cpu"), ("half", half, False)) if value != usual
    }
    header |= {"classes": classes, "command": "semcodec " + shlex.join(sys.argv[1:])}
    records = _run(
        cells, matrix, settings, header, out, retry, form,
        lambda: _pool(executor, settings, timeout, address), resume=resume, jobs=jobs, remeasure=remeasure,
    )  # fmt: skip
    measured = [record for record in records if "failed" not in record]
    means: list[dict[str, Any]] = []
    try:
        means = means_of(measured, asked, out) if measured else []
    except UsageError as error:  # as where all cells of one task failed
        click.echo(f"warning: {error}", err=True)
    if form == "table":
        _show([*means, *records], out, max_device_share)
    else:
        for mean in means:
            click.echo(to_json(mean))
    failed = ["failed" in record for record in records]
    if any(failed):
        click.get_current_context().exit(1 if all(failed) else SOME_FAILED)


def _matrix(
    specs: Sequence[str],
    file: Path | None,
    data: str,
    split: str,
    classes: list[str] | None,
    swept: Sequence[str],
    request: Any,
    choice: dict[str, Any],
    asked: Asked,
    limit: int,
) -> Matrix:
    from semcodec.bench import matrix, sweeps
    from semcodec.cli.eval import grid_of

    sweep = grid_of(swept)
    chosen = matrix.Choice(task=asked.tasks, **choice)
    if not specs and file is None:
        if asked.weights:
            raise UsageError("weights of tasks are for specs with several backbones: name them")
        return matrix.enumerate_all(data, split, chosen, sweep, request, classes=classes, limit=limit)
    narrowed = [*replace(chosen, task=()).named(), *(["--knobs"] if chosen.knobs else [])]
    if narrowed:
        raise UsageError(f"{narrowed[0]} is for the matrix of all there is, and specs are given: leave out one")
    named: list[tuple[str, Any]] = [(spec, {}) for spec in specs]
    return matrix.given([*named, *(sweeps.read_cells(file) if file else [])], sweep, limit=limit, tasks=asked.tasks)


def _empty(matrix: Matrix, shard: str | None) -> str:
    if matrix.cells:
        return f"--shard {shard}: nothing is left for this part; there are fewer cells than parts"
    first = f", the first as {matrix.skips[0].spec}: {matrix.skips[0].reason}" if matrix.skips else ""
    return f"nothing to run: of {len(matrix.skips)} combinations none can be measured{first}; see --explain-skips"


def _absolute(weights: str) -> str:
    """Workers elsewhere on this machine find a file by its whole path."""
    slot, equals, path = weights.rpartition("=")
    return slot + equals + os.path.abspath(path) if os.path.exists(path) else weights


def _show_plan(cells: Sequence[Cell], matrix: Matrix, data: str, explain: bool) -> None:
    for cell in cells:
        click.echo(cell.label)
    click.echo()
    echo_fields(
        [
            ("cells", len(cells)),
            ("points", f"{len({(c.family, c.point) for c in cells}):,} whose encodings their cells share"),
            ("families", f"{len({c.family for c in cells}):,} whose models and scores their cells share"),
            ("data", data),
            ("skipped", f"{len(matrix.skips):,} combinations{'' if explain else ', see --explain-skips'}"),
        ]
    )
    if explain and matrix.skips:
        click.echo()
        echo_table(["skipped", "why"], [(skip.spec, skip.reason) for skip in matrix.skips])


def _show_skips(matrix: Matrix) -> None:
    for skip in matrix.skips:
        click.echo(f"skipped {skip.spec}: {skip.reason}", err=True)


def _pool(executor: str, settings: Settings, timeout: float, address: str | None) -> Pool:
    if executor == "ray":
        from semcodec.bench.ray_pool import OnRay

        return OnRay(settings, timeout, address)
    from semcodec.bench.runner import Local

    return Local(settings, timeout)


def _run(
    cells: Sequence[Cell],
    matrix: Matrix,
    settings: Settings,
    header: dict[str, Any],
    out: Path,
    retry: bool,
    form: str,
    make_pool: Callable[[], Pool],
    *,
    resume: bool,
    jobs: int,
    remeasure: bool,
) -> list[dict[str, Any]]:
    """The records of the cells, in their order: those that were there and those that are made now."""
    from dataclasses import asdict

    from semcodec.bench import resume as resumed
    from semcodec.bench.progress import Line
    from semcodec.bench.runner import run
    from semcodec.evaluation.record_form import lacking
    from semcodec.evaluation.records import Folder

    notes: list[str] = []
    with Folder(out, header, resume=resume, notes=notes) as folder:
        for note in notes:
            click.echo(f"warning: {note}", err=True)
        folder.write_skips(map(asdict, matrix.skips))
        shown = ("ratio_uint8",)
        known = {cell: r for cell, r in folder.known.items() if (not retry if "failed" in r else not lacking(r, shown))}
        tell = partial(click.echo, err=True)
        if known:
            for digest in resumed.changed(cells, known, settings, out, remeasure=remeasure, tell=tell):
                del known[digest]
        left = [cell for cell in cells if cell.digest not in known]
        if form == "json":
            for cell in cells:
                if cell.digest in known:
                    click.echo(to_json(known[cell.digest]))
        if left:
            line = Line(left, jobs)
            try:
                for done in run(left, make_pool(), min(jobs, len(left))):
                    assert done.record is not None
                    folder.append(done.record)
                    line.done(done)
                    if form == "json":
                        click.echo(to_json(done.record))
            finally:
                line.close()
        return [folder.known[cell.digest] for cell in cells]


def _show(records: Sequence[dict[str, Any]], out: Path, max_share: float | None) -> None:
    """A table for each score that was measured."""
    from semcodec.bench.results import within
    from semcodec.tasks.table import metric_of, metrics

    measured: Sequence[Mapping[str, Any]] = [record for record in records if "failed" not in record]
    notes: list[str] = []
    if measured and max_share is not None:
        measured = within(measured, max_share, notes)
    for key in dict.fromkeys(metric_of(record) or "" for record in measured):
        rows: list[list[Any]] = []
        metric = metrics()[key]
        for r in (record for record in measured if metric_of(record) == key):
            bounds = r.get(f"{key}_interval")
            between = " - ".join(f"{metric.shown(bound):.1f}" for bound in bounds) if bounds else "-"
            size, took = float(r["bytes_total"]), float(sum(r["stages_ms"].values()))
            share = "-" if r.get("device_share") is None else f"{r['device_share']:.3f}"
            rows.append([r["spec"], metric.shown(r[key]), between, size, r["ratio_uint8"], share, took])
        echo_table(["spec", metric.head, "95 % interval", "bytes", "x 8-bit", "share", "ms"], rows)
        click.echo()
    if measured:
        first = measured[0]
        split = first["split"] or "all"
        left = [("left out", note.partition(": ")[2]) for note in notes]
        echo_fields([("data", f"{first['data']}, {split}, {first['samples']:,} samples"), *left, ("results", out)])
    for record in records:
        if "failed" in record:
            named = f" --task {record['task']}" if record.get("task") else ""
            click.echo(f"failed {record['spec']}{named}: {record['failed']}", err=True)
