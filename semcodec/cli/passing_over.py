"""Inputs that cannot be read: each is passed over with a line on stderr where that is wanted, else the end."""

from __future__ import annotations

from dataclasses import dataclass, field

import click

from semcodec.cli.output import tamed
from semcodec.errors import first_line

option = click.option(
    "--keep-going", is_flag=True, help="Pass over inputs that cannot be read; the exit code is then 1."
)


@dataclass
class PassingOver:
    """wanted: whether others go on. names: what was passed over."""

    wanted: bool
    names: list[str] = field(default_factory=list)

    def __call__(self, name: str, error: Exception) -> None:
        """Say what is wrong with an input; raises the error where the others are not wanted without it."""
        if not self.wanted:
            raise error
        self.names.append(name)
        told = error.strerror or error if isinstance(error, OSError) else first_line(error)
        click.echo(tamed(f"passed over {name}: {told}"), err=True)
