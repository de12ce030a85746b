"""The command line. A command's module is imported when that command runs or shows its own help.

Data goes to stdout, everything else to stderr. Exit codes: 0, 1 for the input's or the environment's fault,
2 for a wrong request, 3 where part of the work failed ('bench'), 130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, NoReturn

import click

from semcodec._progress import Terminated, terminable
from semcodec._version import __version__
from semcodec.cli.output import tamed
from semcodec.errors import SemcodecError, UsageError, cure, did_you_mean

COMMANDS = {
    "compose": "Show a pipeline as a table; with --input, run it.",
    "encode": "Compress clips or images into a .sem file.",
    "decode": "Recognise what a .sem file holds.",
    "inspect": "Show what a .sem file is made of, without decoding it.",
    "export": "Write a pipeline's device as one file that needs no torch.",
    "serve": "Answer streams of devices over the network.",
    "send": "Send inputs to a server over the network, as they come.",
    "split": "Write a pipeline's weights in two files, one for each end.",
    "cut": "Drop layers from a .sem file, without decoding it.",
    "eval": "Measure accuracy, bytes and times over a data set.",
    "bench": "Measure many pipelines alike, into a folder of results.",
    "train": "Train a pipeline or a backbone by its recipe.",
    "zoo": "List the weights that ship and that were fetched.",
    "pull": "Fetch weights from the hub.",
    "push": "Publish trained weights on the hub.",
    "play": "Try specs on pictures, clips and the webcam, in a browser.",
    "report": "Show what was measured as one page, or as CSV, Markdown or JSON.",
    "plan": "Choose the operating point for a link and a deadline.",
    "plugins": "List, describe, check and begin components.",
    "data": "List and describe data sets.",
    "env": "Show versions, threads and plugin packages.",
}
"""Every command with its short help: ``cli/<name>.py`` holds it under the name ``command``."""
COMPLETED = "_SEMCODEC_COMPLETE"
"""Set where a shell asks for its completion or for completions."""
if COMPLETED in os.environ:
    import_module("semcodec.cli.completion")


class LazyGroup(click.Group):
    """Lists commands without importing them, and turns known errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"semcodec.cli.{cmd_name}").command
        if COMPLETED in os.environ:
            from semcodec.cli.completion import typed

            typed(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS)
            ctx.fail(f"there is no command {args[0]!r}" + (f"; {hint}" if hint else ""))
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.ClickException as error:
            _refuse(ctx, error)

    def invoke(self, ctx: click.Context) -> Any:
        _reopen()
        try:
            with terminable(), _notes_as_lines():
                return super().invoke(ctx)
        except click.ClickException as error:
            _refuse(ctx, error)
        except (SemcodecError, OSError, KeyboardInterrupt) as error:
            if ctx.params["debug"] and not isinstance(error, Terminated):
                raise
            _leave(ctx, error)
        except ImportError as error:
            if ctx.params["debug"] or (remedy := cure(error)) is None:
                raise
            _leave(ctx, SemcodecError(remedy))


@contextmanager
def _notes_as_lines() -> Iterator[None]:
    """Write each ``DataNote`` as one line on stderr, once, without the place in our code that warned."""
    shown, said = warnings.showwarning, set()

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if category.__name__ == "DataNote":  # by name: its module is not imported where no data are read
            if str(message) not in said:
                click.echo(f"note: {tamed(str(message))}", err=True)
            said.add(str(message))
        else:
            shown(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown


def _refuse(ctx: click.Context, error: click.ClickException) -> NoReturn:
    """Tell an error of click's as ours are told: in one line."""
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        raise error
    text = " ".join(error.format_message().split()).rstrip(".")
    told = type(error) is click.BadParameter or text.endswith("?")
    if isinstance(error, click.UsageError) and error.ctx and not told:
        text = f"{text}; see {error.ctx.command_path} --help"
    kind = UsageError if isinstance(error, click.UsageError) else SemcodecError
    _leave(ctx, kind(text[:1].lower() + text[1:]))


def _leave(ctx: click.Context, error: BaseException) -> NoReturn:
    if isinstance(error, BrokenPipeError):  # the reader has seen enough, as in ``| head``
        _silence()
        ctx.exit(141)
    if isinstance(error, KeyboardInterrupt):
        click.echo("stopped", err=True)
        ctx.exit(143 if isinstance(error, Terminated) else 130)
    text = str(error)
    if isinstance(error, OSError):
        _silence()  # what could not be written to a full disk shall not be tried again at exit
        where = f"{error.filename}: " if error.filename is not None else ""
        text = f"{where}{error.strerror or error}"
    click.echo(f"error: {tamed(text)}", err=True)
    ctx.exit(error.exit_code if isinstance(error, SemcodecError) else 1)


def _reopen() -> None:
    """Where stdout or stderr was closed, as by ``>&-``, let what is written there go nowhere."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            with suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                if nowhere != number:  # else a file that is opened later would be taken for it
                    os.dup2(nowhere, number)
                    os.close(nowhere)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def _silence() -> None:
    """Send the rest of stdout, that would fail again, nowhere."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="A SPEC names a whole pipeline, as in stae:frames=4,pixels=0.4+rans+vit-base. "
    "'semcodec plugins list' has the names, 'semcodec COMMAND --help' the options.",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def main(debug: bool) -> None:
    """Task-oriented compression for split inference: compose, run and measure pipelines."""
