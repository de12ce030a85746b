"""``semcodec zoo``."""

from __future__ import annotations

from typing import Any

import click

from semcodec.cli import options
from semcodec.cli.output import echo_json, echo_table, tamed


@click.command()
@options.as_json
def command(form: str) -> None:
    """List weights that are here: those that ship, those in the user's cache, and what was fetched of the hub.

    Figures are of the last step of training, as its card tells them; what was measured is in the results' pages and on
    the hub's model cards. Asks nobody.
    """
    from semcodec.pipeline.zoo import rows

    found = rows()
    if form == "json":
        echo_json(found)
        return
    headers = ("weights", "where", "spec", "task", "data", "figures", "bytes", "licence")
    echo_table(headers, [_cells(row) for row in found], expendable=("data", "where", "licence", "figures"))
    for row in found:
        if row["problem"]:
            click.echo(tamed(f"{row['name']}: {row['problem']}"))


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    figures = ", ".join(f"{name} {value:g}" for name, value in row["figures"].items()) or None
    name = row["name"].removesuffix(".safetensors")
    return name, row["where"], row["spec"], row["task"], row["data"], figures, row["bytes"], row["license"]
