"""``semcodec cut``."""

from __future__ import annotations

from pathlib import Path

import click

from semcodec._files import refuse_overwrite, whole_file
from semcodec.cli import options
from semcodec.cli.output import echo_fields, echo_json


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--layers", required=True, type=int, help="How many layers of each packet to keep, from the first on.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write.  [default: FILE.LAYERS.sem]")
@options.as_json
def command(file: Path, layers: int, output: Path | None, form: str) -> None:
    """Drop layers from every packet of FILE without encoding it anew, for receivers that want fewer.

    Needs no plugin and no weights. What is left decodes as if the other layers had not arrived; 'inspect' shows how
    many there are. The mark that tells of the cut takes 6 bytes a packet.
    """
    from dataclasses import asdict

    from semcodec.container.truncation import cut_stream

    output = output or file.with_name(f"{file.stem}.{layers}.sem")
    with file.open("rb") as source:
        refuse_overwrite(output, [file])
        with whole_file(output) as target:
            done = cut_stream(source, target, layers)
    if form == "json":
        echo_json({"output": str(output), "layers": layers, **asdict(done)})
        return
    share = f"{100 * done.after / done.before:.1f} %"
    echo_fields(
        [
            ("file", str(output)),
            ("records", f"{done.records:,}, of which {done.cut:,} were cut to {layers} layer{'s' * (layers > 1)}"),
            ("bytes", f"{done.after:,} of {done.before:,}, {share}"),
        ]
    )
