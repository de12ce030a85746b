"""``semcodec compose``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from semcodec._files import whole_file
from semcodec.cli import options
from semcodec.cli.output import ABSENT, echo_fields, echo_json, echo_table
from semcodec.cli.reads import spare
from semcodec.cli.sample_output import KEYS, Sample, document, open_samples, run, show
from semcodec.cli.streams import check_output
from semcodec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from semcodec.component import Component
    from semcodec.composition.composition import Composition
    from semcodec.data.parts import Part
    from semcodec.evaluation.stage_table import Port, StageRow
    from semcodec.pipeline.pipeline import Pipeline
    from semcodec.pipeline.weights import Weights, WeightsRequest


@click.command(
    epilog=KEYS + " In front of these: stages, licenses and paper (the rate by the paper's own formula), which are "
    "all there is without --input, beside spec, task and weights."
)
@click.argument("spec")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only what the components declare: builds nothing, imports no torch; refuses what cannot exist here.",
)
@click.option("--input", "named", metavar="FILE|DATASET:INDEX", help="Also run a clip or an image through it.")
@click.option(
    "--save-plot",
    "plot",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="With --input: draw the source, what was chosen and what the server has, as PNG, JPEG, WebP, PDF or SVG.",
)
@options.task
@options.part
@options.accelerator
@options.weights
@options.as_json
def command(
    spec: str,
    dry_run: bool,
    named: str | None,
    plot: Path | None,
    task: str | None,
    part: Part | None,
    device: str,
    half: bool,
    given: tuple[str, ...],
    offline: bool,
    form: str,
) -> None:
    """Show the pipeline that SPEC names: per stage where it runs, what goes in and out, and what it costs.

    Parameters are those that take part, multiply-accumulates (MACs) those of one sample, bytes those of what the
    stage gives at the spec's knobs before it is coded; the link's are measured with --input.
    """
    from semcodec.composition.binding import check_possible
    from semcodec.composition.composition import compose_spec
    from semcodec.data.inputs import check_input
    from semcodec.evaluation.stage_table import explain, outline

    if dry_run and named:
        raise UsageError("--dry-run builds nothing that --input could run through; leave out one")
    if part and not named:
        raise UsageError("--start, --duration and --window are of a video file: add --input FILE")
    if plot:
        _plottable(plot, named)
        spare([plot], data=[named or ""], weights=given)
        check_output(plot)
    if plot and part and part.window:
        raise UsageError("--save-plot draws one clip, and --window gives several; leave out one")
    composition, request = compose_spec(spec), options.request(given, offline)
    if task is not None:
        composition = composition.alone(task)
    if named:
        composition.check_one()
        check_input(named, composition.request, part)
    if dry_run:
        check_possible(composition.bounds)
        sources = _sources(composition, _declared(composition, request), {}, offline)
        _show(composition, outline(composition), sources, form)
        return

    from semcodec.data.inputs import classes_of
    from semcodec.pipeline.pipeline import Pipeline

    classes = classes_of(named, composition.task) if named else None
    pipeline = Pipeline.load(composition, request, classes=classes, partial=not named, device=device, half=half)
    composition = pipeline.composition
    rows, found = [] if named else explain(pipeline), None
    if named:
        records: list[dict[str, Any]] = []
        for sample in open_samples(named, pipeline, part):
            if not records:
                rows = explain(pipeline, sample.pixels)
                run(pipeline, sample)  # so that the times are not those of a first run
            records.append(run(pipeline, sample, len(records))[1])
        found = document(pipeline, records)
        if plot:
            _plot(pipeline, sample, found, plot)
    _show(composition, rows, _sources(composition, pipeline.sources, pipeline.digests, offline), form, found)


def _plottable(plot: Path, named: str | None) -> None:
    """Refuse at once what could only fail after everything has run."""
    from semcodec.evaluation import drawing

    if not named:
        raise UsageError("--save-plot draws what becomes of an input: add --input FILE or --input DATASET:INDEX")
    drawing.check(plot.suffix)


def _plot(pipeline: Pipeline, sample: Sample, found: Mapping[str, Any], plot: Path) -> None:
    from semcodec.evaluation import drawing
    from semcodec.evaluation.sample_panels import make_panels
    from semcodec.tasks.table import get_task

    first, *others = get_task(found["task"]).headline(found)
    told = [f"{sample.name}: {first}", *others]
    local = found["prediction"]["where"] == "device"
    told.append("by the device itself; shown is what would be sent" if local else f"{found['bytes_total']:,} bytes")
    with whole_file(plot) as file:
        title = f"{found['spec']}\n{', '.join(told)}"
        drawing.draw(make_panels(pipeline, sample.pixels, sample.size), title, file, plot.suffix)


def _declared(composition: Composition, request: WeightsRequest) -> dict[str, Weights | None]:
    """Weights of the components that say they have some; which ones do is only certain once they are built."""
    from semcodec.pipeline import weights

    return {
        slot: weights.find(composition, slot, request, hub=False)
        for slot, component in _slots(composition).items()
        if component.weights or component.recipe or component.traits.get("hub")
    }


def _slots(composition: Composition) -> dict[str, Component]:
    c = composition
    own = {"encoder": c.encoder.component, "recoverer": c.recoverer.component}
    tails = {slot: bound.component for slot, bound in c.slots.items()}
    return {**own, **tails, **{name: bound.component for name, bound in c.models.items()}}


def _sources(
    composition: Composition, found: Mapping[str, Weights | None], digests: Mapping[str, str], offline: bool
) -> dict[str, dict[str, str | None]]:
    """By slot, where its weights come from and the digest that names them."""
    sources: dict[str, dict[str, str | None]] = {}
    for slot, weights in found.items():
        hub = _slots(composition)[slot].traits.get("hub")
        place = "what the model's name says" if hub and ":" in hub else hub  # asking the plugin would import it
        elsewhere = f"hub: {place}" if hub and not offline else "none"
        sources[slot] = {"source": weights.origin if weights else elsewhere, "digest": digests.get(slot)}
        if weights is None:
            sources[slot]["digest"] = None  # of initial values, which name nothing
    return sources


def _show(
    composition: Composition,
    rows: list[StageRow],
    sources: Mapping[str, Mapping[str, str | None]],
    form: str,
    found: dict[str, Any] | None = None,
) -> None:
    if form == "json":
        explained = {
            "spec": composition.spec,
            "task": composition.task,
            **({"layers": composition.layered_tasks} if composition.layered_tasks else {}),
            "stages": [asdict(row) for row in rows],
            "licenses": composition.licenses(),
            "paper": dict(composition.stages.figures),
            "weights": sources,
        }
        echo_json({**explained, **(found or {})})
        return
    click.echo(f"{composition.spec}\n")
    headers = ("stage", "where", "component", "in", "out", "parameters", "MACs", "bytes", "licence")
    sent = {"link": found["bytes_total"]} if found and "records" not in found else {}
    echo_table(headers, [_cells(row, sent) for row in rows], expendable=("licence", "in", "component", "where"))
    click.echo()
    if sources:
        table = [(slot, composition.weights_key(slot), _origin(slot, s), s["digest"]) for slot, s in sources.items()]
        echo_table(("weights", "of", "from", "digest"), table)
        click.echo()
    echo_fields(_notes(composition, rows, measured=found is not None))
    if found:
        click.echo()
        show(found, form)


def _cells(row: StageRow, sent: Mapping[str, int]) -> tuple[Any, ...]:
    size = sent.get(row.stage, row.bytes)
    component, license_ = row.component or ABSENT, row.license or ABSENT
    return row.stage, row.where, component, _port(row.takes), _port(row.gives), row.parameters, row.macs, size, license_


def _port(port: Port) -> str:
    if port is None:
        return "?"
    return "\n".join(f"{name} {spec}" for name, spec in port.items()) or ABSENT


def _origin(slot: str, source: Mapping[str, str | None]) -> str:
    origin = source["source"] or ABSENT
    if origin == "none":
        return f"none: give --weights {slot}=PATH or train"
    return f"{origin}, fetched when run" if origin.startswith("hub:") else origin


def _notes(composition: Composition, rows: list[StageRow], measured: bool) -> list[tuple[str, str]]:
    notes = []
    for where in ("device", "server"):
        counts = [row.macs for row in rows if row.where == where]
        if None not in counts:
            notes.append((where, f"{sum(count or 0 for count in counts):,} MACs"))
    needed = sorted(set(composition.layered_tasks.values()))
    notes += [("layers", f"{layers} or more serve {', '.join(composition.served(layers))}") for layers in needed]
    notes += [("paper", f"{name} = {value:,.0f}") for name, value in composition.stages.figures.items()]
    owners: dict[str, list[str]] = {}
    for name, license_ in composition.licenses().items():
        owners.setdefault(license_, []).append(name)
    notes.append(("licences", "; ".join(f"{license_}: {', '.join(names)}" for license_, names in owners.items())))
    for license_, names in owners.items():
        if license_.startswith("AGPL"):
            terms = "what uses it must offer its source, also as a service over a network"
            notes.append(("note", f"{', '.join(names)} is under {license_}: {terms}"))
    if not measured:
        notes.append(("link", "bytes are measured with --input FILE or --input DATASET:INDEX"))
    return notes
