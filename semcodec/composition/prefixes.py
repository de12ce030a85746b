"""How many layers each task of a stream needs: a shorter prefix of a packet serves some of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from semcodec.composition.binding import Binder, Bound
from semcodec.composition.grammar import Arg

SERVES = "serves"
"""The trait of an Encoder that names its parameter for it, and the call parameter that says how many are sent."""
MOST = 64
"""Layers of a packet."""


def settle(binder: Binder, encoder: Bound, tails: Mapping[str, str | None]) -> tuple[Bound, dict[str, int]]:
    """The Encoder with its parameter in canonical form, and by tail the layers that it needs; 1 where nothing is said.

    tails: by name, their tasks where these are known. Raises SpecError.
    """
    needs = dict.fromkeys(tails, 1)
    name, _ = encoder.component.traits.get(SERVES, ("", ""))
    text = encoder.build.get(name, "")
    arg = next((arg for arg in encoder.item.args if arg.key == name), None)
    if not text or arg is None:
        return encoder, needs
    by_task = {task: tail for tail, task in tails.items()}
    said: dict[str, int] = {}
    for part in str(text).split("-"):
        task, _, count = part.rpartition(".")
        if not (task and count.isdecimal() and 1 <= int(count) <= MOST):
            binder.fail(f"{name} is a row of TASK.LAYERS, as in detection.1-classification.2, not {text!r}", arg.span)
        if task not in by_task:
            there = ", ".join(str(one) for one in by_task)
            binder.fail(f"{name} names the task {task}, and this stream is for {there}", arg.span)
        if task in said:
            binder.fail(f"{name} names {task} twice", arg.span)
        said[task] = int(count)
        needs[by_task[task]] = int(count)
    canonical = "-".join(f"{task}.{count}" for task, count in sorted(said.items(), key=lambda one: (one[1], one[0])))
    args = tuple(Arg(one.key, canonical, one.span) if one is arg else one for one in encoder.item.args)
    item = replace(encoder.item, args=args)
    return replace(encoder, item=item, build={**encoder.build, name: canonical}), needs
