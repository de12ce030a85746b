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
@options.weights
@options.as_json
def command(spec: str, output: Path, given: tuple[str, ...], offline: bool, form: str) -> None:
    """Write the device's half of SPEC as one file for where there is no torch.

    It stands in the place of SPEC in 'semcodec encode' and in Device.load, and needs 'semcodec[device]' alone; a server
    decodes what it sends as ever. 'semcodec inspect' tells what is in it.
    """
    from semcodec.composition.composition import compose_spec
    from semcodec.pipeline.exported import SUFFIX, describe_exported, is_exported

    if not is_exported(output):
        raise UsageError(f"-o {output}: a device's file ends in {SUFFIX}, by which commands know it from a spec")
    check_output(output)
    composition, request = compose_spec(spec), options.request(given, offline)
    spare([output], weights=given)

    from semcodec.pipeline.export import export_device

    export_device(composition, output, request)
    found = describe_exported(output)
    if form == "json":
        echo_json(found)
        return
    show_device(found)
