"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

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
        "run's folder, a folder of several runs, or 'random' for an untrained model. Repeatable. Without it: what "
        "ships, the user's cache, the hub.",
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
    help="Of data with boxes: only these classes are there to be found, and only these count when found.",
)


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


def request(given: tuple[str, ...], offline: bool) -> WeightsRequest:
    """Raises UsageError where two files are named for one slot."""
    from semcodec.pipeline.weights import WeightsRequest

    return WeightsRequest.parse(given, offline)
