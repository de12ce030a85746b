"""``semcodec split``."""

from __future__ import annotations

from pathlib import Path

import click

from semcodec.cli import options
from semcodec.cli.output import echo_json, echo_table
from semcodec.cli.reads import spare


@click.command()
@click.argument("spec")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The folder to write into.")
@options.weights
@options.as_json
def command(spec: str, output: Path, given: tuple[str, ...], offline: bool, form: str) -> None:
    """Write the weights of SPEC in two files: device.safetensors and server.safetensors.

    Each has what that end uses and no more, and is then all that it needs: 'semcodec encode SPEC --weights
    device.safetensors' and 'semcodec decode --weights server.safetensors'.
    """
    from semcodec.composition.composition import compose_spec
    from semcodec.pipeline.pipeline import Pipeline
    from semcodec.pipeline.split import halves_in, write_halves

    request = options.request(given, offline)
    pipeline = Pipeline.load(compose_spec(spec), request)
    read = [source.path for source in pipeline.sources.values() if source]
    spare(halves_in(output).values(), weights=given, files=read)
    written = write_halves(pipeline, output)
    rows = [(end, str(path), path.stat().st_size) for end, path in written.items()]
    if form == "json":
        echo_json([{"end": end, "file": path, "bytes": size} for end, path, size in rows])
        return
    echo_table(("end", "file", "bytes"), rows)
