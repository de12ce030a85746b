"""Writes docs/commands.md, the help of every command: ``python docs/commands.py``. A test tells when it is stale."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from semcodec.cli import main

PAGE = Path(__file__).with_suffix(".md")
WIDTH = 100
HEAD = """# Every command

What `--help` says, written by `docs/commands.py`. Every command takes `--debug` before its name, for the traceback of
an error. Exit codes: 0, 1 for the input's or the environment's fault, 2 for a wrong request, 130 after Ctrl-C, 143
after SIGTERM. Data go to stdout, everything else to stderr.
"""


def sections(command: click.Command, context: click.Context) -> Iterator[str]:
    """A command and those below it."""
    yield f"## {context.command_path}\n\n```text\n{context.get_help()}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from sections(below, click.Context(below, context, name, terminal_width=WIDTH))


def page() -> str:
    whole = click.Context(main, info_name="semcodec", terminal_width=WIDTH, **main.context_settings)
    return "\n".join([HEAD, *sections(main, whole)])


if __name__ == "__main__":
    PAGE.write_text(page())
