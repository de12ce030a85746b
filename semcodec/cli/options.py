"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from semcodec.errors import UsageError

if TYPE_CHECKING:
    from semcodec.pipeline.weights import WeightsRequest

_Command = TypeVar("_Command", bound=Callable[..., Any])

as_json = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How results are printed.",
)


def weights(command: _Command) -> _Command:
    """``--weights`` and ``--offline``; ``request`` makes one value of them."""
    offline = click.option("--offline", is_flag=True, help="Look for no weights on the network.")
    return click.option(
        "--weights",
        "given",
        multiple=True,
        metavar="[SLOT=]PATH",
        help="Weights of encoder, recoverer or backbone, or of all that the file holds: a safetensors file, a "
        "run's folder, a folder of several runs, hf:OWNER/NAME[@REVISION] on the hub, or 'random' for an untrained "
        "model. Repeatable. Without it: what ships, the user's cache, the hub.",
    )(offline(command))


def _names(ctx: click.Context, param: click.Parameter, text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise click.BadParameter(f"{text!r} names no class between two commas; as in person,car,bus")
    return names


classes = click.option(
    "--classes",
    metavar="NAME,NAME,...",
    callback=_names,
    help="Of data with boxes or masks: only these classes are there to be found, and only these count when found.",
)


def part(command: _Command) -> _Command:
    """``--start``, ``--duration``, ``--window`` and ``--stride`` of video files, as one ``Part``; None without them."""

    @wraps(command)
    def run(
        *args: Any,
        start: float | None,
        duration: float | None,
        window: int | None,
        stride: int | None,
        **others: Any,
    ) -> Any:
        from semcodec.data.parts import Part

        chosen = any(value is not None for value in (start, duration, window, stride))
        return command(*args, part=Part(start or 0.0, duration, window, stride) if chosen else None, **others)

    added: Any = run
    for option in (
        click.option("--stride", type=click.IntRange(1), metavar="FRAMES", help="From one window's first frame to the "
                     "next one's.  [default: the window]"),
        click.option("--window", type=click.IntRange(1), metavar="FRAMES", help="Of a video file: a record for each "
                     "window of so many frames, instead of one clip."),
        click.option("--duration", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Of a video file: "
                     "no more than so much of it.  [default: to its end]"),
        click.option("--start", type=click.FloatRange(0), metavar="SECONDS", help="Of a video file: from there on.  "
                     "[default: 0]"),
    ):  # fmt: skip
        added = option(added)
    return added  # type: ignore[no-any-return]


tasks = click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="TASK",
    help="Of a stream for several tasks: this one. Repeatable.  [default: all]",
)
task = click.option("--task", "task", metavar="TASK", help="Of a stream for several tasks: the one to answer.")


def _device(ctx: click.Context, param: click.Parameter, name: str) -> str:
    from semcodec.pipeline.accelerator import kind_of

    kind_of(name)  # whether there is such a device only torch can tell, which is not imported for a wrong word
    return name


device = click.option(
    "--device",
    default="cpu",
    show_default=True,
    metavar="DEVICE",
    callback=_device,
    help="Where networks run: cpu, cuda, cuda:N or mps. What is coded does not depend on it.",
)


def accelerator(command: _Command) -> _Command:
    """``--device`` and ``--half``."""
    half = click.option(
        "--half", is_flag=True, help="Networks compute in bfloat16 where they can; what is coded stays exact."
    )
    return device(half(command))


def pairs(given: tuple[str, ...], form: str, example: str) -> dict[str, str]:
    """By name, of options of this form. Raises UsageError for others, and for a name that comes twice."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{text}: expects {form}, as in {example}")
        if name in found:
            raise UsageError(f"{name} is given twice: {found[name]} and {value}")
        found[name] = value
    return found


def numbers(given: tuple[str, ...], form: str, example: str) -> dict[str, float]:
    """The same of options whose values are finite numbers of at least 0."""
    found: dict[str, float] = {}
    for name, text in pairs(given, form, example).items():
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number < 0:
            raise UsageError(f"{name}={text}: expects {form}, a number of at least 0, as in {example}")
        found[name] = number
    return found


def request(given: tuple[str, ...], offline: bool) -> WeightsRequest:
    """Raises UsageError where two files are named for one slot."""
    from semcodec.pipeline.weights import WeightsRequest

    return WeightsRequest.parse(given, offline)
