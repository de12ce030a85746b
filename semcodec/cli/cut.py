"""``semcodec cut``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from semcodec._files import refuse_overwrite
from semcodec.cli import options
from semcodec.cli.inspect import serving
from semcodec.cli.output import echo_fields, echo_json
from semcodec.cli.streams import DASH, check_output, reading, telling, writing
from semcodec.errors import UsageError

if TYPE_CHECKING:
    from semcodec.container.truncation import Cut


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--layers", required=True, type=int, help="How many layers of each packet to keep, from the first on.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where to write; - for stdout.  [default: FILE.LAYERS.sem]"
)
@options.as_json
def command(file: Path, layers: int, output: Path | None, form: str) -> None:
    """Drop layers from every packet of FILE (- is stdin) without encoding it anew, for receivers that want fewer.

    Needs no plugin and no weights. What is left decodes as if the other layers had not arrived; 'inspect' shows how
    many there are. The mark that tells of the cut takes 6 bytes a packet.
    """
    from semcodec.container.truncation import cut_stream

    if output is None and file == DASH:
        raise UsageError("stdin has no name to write beside: say where with -o")
    output = output or file.with_name(f"{file.stem}.{layers}.sem")
    from semcodec.container.packets import read_header

    with reading(file) as source:
        if DASH not in (file, output):
            refuse_overwrite(output, [file])
        check_output(output)
        with writing(output) as target:
            done = cut_stream(source, target, layers)
        source.seek(0)
        header = read_header(source)
    serves = serving(header.spec, header.components)
    with telling(output):
        _show(done, output, layers, None if serves is None else serves(layers), form)


def _show(done: Cut, output: Path, layers: int, serves: list[str] | None, form: str) -> None:
    from dataclasses import asdict

    if form == "json":
        told = {} if serves is None else {"serves": serves}
        echo_json({"output": str(output), "layers": layers, **asdict(done), **told})
        return
    share = f"{100 * done.after / done.before:.1f} %"
    echo_fields(
        [
            ("file", str(output)),
            ("records", f"{done.records:,}, of which {done.cut:,} were cut to {layers} layer{'s' * (layers > 1)}"),
            ("bytes", f"{done.after:,} of {done.before:,}, {share}"),
            *([] if serves is None else [("serves", ", ".join(serves) or "no task")]),
        ]
    )
