"""``semcodec report``."""

from __future__ import annotations

from pathlib import Path

import click

from semcodec.cli.output import tamed

FORMS = ("html", "csv", "md", "latex", "json", "compressai")


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to write.  [default: report.html in the folder]"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    default="html",
    show_default=True,
    help="One self-contained page, or text on stdout; compressai is the JSON that CompressAI's plots read.",
)
@click.option(
    "--plots", type=click.Path(path_type=Path), metavar="DIR", help="Also write plots there: PNG, SVG, PDF and PGF."
)
@click.option(
    "--bd",
    "anchor",
    metavar="CURVE",
    help="Bjøntegaard deltas of every curve against this one: BD-rate and BD-accuracy.",
)
@click.option(
    "--max-device-share",
    type=float,
    help="Only points whose device computes no more than this part of what both ends compute, as in 0.35.",
)
@click.option(
    "--pictures",
    is_flag=True,
    help="Also send the first sample through each followed point anew, and show in the page what arrives.",
)
@click.option(
    "--weights", "given", multiple=True, metavar="[SLOT=]PATH", help="Of --pictures, as of 'semcodec eval'. Repeatable."
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="TASK[=FLOAT],...",
    help="Of records of several tasks: this one. With weights, as in classification=1,detection=2, also the weighted "
    "mean of their scores. Repeatable.  [default: each]",
)
@click.option("--curve", "curves", multiple=True, metavar="CURVE", help="Only this curve. Repeatable.")
def command(
    results: Path,
    output: Path | None,
    form: str,
    plots: Path | None,
    anchor: str | None,
    max_device_share: float | None,
    pictures: bool,
    given: tuple[str, ...],
    tasks: tuple[str, ...],
    curves: tuple[str, ...],
) -> None:
    """Show what 'semcodec bench' found in the folder RESULTS, or the records of 'semcodec eval' in a file.

    The page has accuracy against bytes with the Pareto front, completion time against link rate, time by stage, every
    point, what was not measured and why, and how to reproduce it. It needs no network.

    Each task has tables and plots of its own. The interval of a weighted mean draws the same samples for all tasks.

    A curve is the records of one "name", or of one spec without its call parameters: stae+rans+vit-nano for
    stae:frames=2+rans+vit-nano.
    """
    from semcodec._files import refuse_overwrite, whole_file
    from semcodec.bench import deltas, export
    from semcodec.bench.results import load
    from semcodec.cli.streams import check_output
    from semcodec.errors import UsageError
    from semcodec.evaluation.records import PLAN, RECORDS, SKIPS
    from semcodec.tasks.weighted import Asked

    if anchor and form == "compressai":
        raise UsageError("--bd has no place in CompressAI's form; use --format html, md, csv or json")
    if form == "html" and output is None and results.exists():  # else there is nothing to show
        output = results / "report.html" if results.is_dir() else results.with_suffix(".html")
    if (pictures or given) and (form != "html" or not pictures):
        raise UsageError("--pictures are of the page alone, and --weights of --pictures")
    if output is not None:
        check_output(output, stdout=False)
        refuse_overwrite(output, [results, *(results / name for name in (PLAN, RECORDS, SKIPS))])
    only = tuple(dict.fromkeys([*curves, anchor])) if curves and anchor else curves
    found = load(results, only, max_device_share, Asked.parse(tasks))
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    against = deltas.against(found, anchor) if anchor else {}
    if plots:
        from semcodec.bench.plots import write

        for path in write(found, plots):
            click.echo(f"wrote {path}", err=True)
    if form == "html":
        from semcodec.bench.page import render

        arrived = {}
        for group in found.groups if pictures else ():
            from semcodec.bench.pictures import received

            arrived[group.key], notes = received(group, anchor, weights=given)
            for note in notes:
                click.echo(f"warning: {note}", err=True)
        text = render(found, anchor, against, arrived)
    elif form == "csv":
        text = export.as_csv(found, anchor, against)
    elif form == "latex":
        from semcodec.bench.latex import as_latex

        text = as_latex(found, anchor, against)
    elif form == "md":
        text = export.as_markdown(found, anchor, against)
    elif form == "json":
        text = export.as_json(found, anchor, against)
    else:
        text = export.as_compressai(found)
    if output is None:
        click.echo(tamed(text), nl=False)
        return
    with whole_file(output) as file:
        file.write(text.encode())
    click.echo(f"wrote {output}", err=True)
