"""``semcodec export``."""

from __future__ import annotations

from pathlib import Path

import click

from semcodec.cli import options
from semcodec.cli.inspect import show_device
from semcodec.cli.output import echo_json
from semcodec.cli.reads import spare
from semcodec.cli.streams import check_output
from semcodec.errors import UsageError


@click.command()
@click.argument("spec")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write; it ends in .semdev."
)
@click.option("--int8", is_flag=True, help="Networks compute in 8-bit integers; what that costs is shown.")
@click.option(
    "--calibrate",
    metavar="DATA",
    help="With --int8: the data set whose training split gives ranges, and whose test split it is measured on.",
)
@click.option("--samples", type=click.IntRange(1), help="With --int8: so many samples of each split.  [default: 200]")
@options.weights
@options.as_json
def command(
    spec: str,
    output: Path,
    int8: bool,
    calibrate: str | None,
    samples: int | None,
    given: tuple[str, ...],
    offline: bool,
    form: str,
) -> None:
    """Write the device's half of SPEC as one file for where there is no torch.

    It stands in the place of SPEC in 'semcodec encode', 'semcodec send' and Device.load, and needs 'semcodec[device]'
    alone; a server decodes what it sends as ever. 'semcodec inspect' tells what is in it.
    """
    from semcodec.composition.composition import compose_spec
    from semcodec.pipeline.exported import describe_exported, is_exported
    from semcodec.specs import EXPORTED

    if not is_exported(output):
        raise UsageError(f"-o {output}: a device's file ends in {EXPORTED}, by which commands know it from a spec")
    if int8 != (calibrate is not None) or (samples is not None and not int8):
        raise UsageError("--int8 goes with --calibrate DATA, a data set to take ranges from, as digits-scenes")
    check_output(output)
    composition, request = compose_spec(spec), options.request(given, offline)
    spare([output], weights=given, data=[calibrate] if calibrate else ())
    if calibrate is None:
        from semcodec.pipeline.export import export_device

        export_device(composition, output, request)
    else:
        from semcodec.evaluation.exported import SAMPLES, export_eight_bits

        export_eight_bits(composition, output, request, calibrate, samples or SAMPLES)
    found = describe_exported(output)
    if form == "json":
        echo_json(found)
        return
    show_device(found)
