"""What a check is given, how it fails, and the settings it goes through."""

from __future__ import annotations

import random
import traceback
import unittest
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from semcodec.component import Component, Param
from semcodec.composition.registry import Registry
from semcodec.errors import first_line

MODULES = {
    "backbone": "backbones",
    "encoder": "encoders",
    "entropy": "entropy",
    "recoverer": "recoverers",
    "selector": "selectors",
}
"""By kind, the module of ``semcodec.testing`` that has its checks."""


SAMPLES = 3
"""Samples that an ``Act`` knows."""


class CheckFailed(AssertionError):
    """A component does not keep a promise; the message names component, check and what was seen."""


class CheckSkipped(unittest.SkipTest):
    """A check has nothing to look at: the component declares no such thing, or fails what comes before it."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A component under test, and the registry that its companions are taken from.

    heard: what loading and building it printed or asked of the network. outcomes: of checks that others rest on, the
    failure or None.
    """

    component: Component
    registry: Registry
    heard: list[str] = field(default_factory=list)
    outcomes: dict[Callable[[Subject], None], CheckFailed | None] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.component.kind} {self.component.name}"

    def make(self, *arguments: Any, **overrides: Any) -> Any:
        """An instance with its build parameters at their defaults but for ``overrides``."""
        build = {p.name: p.default for p in self.component.params if p.when == "build"}
        return self.registry.load(self.component)(*arguments, **{**build, **overrides})


@dataclass(frozen=True, eq=False)
class Act:
    """What a component does, for checks of every kind: ``do(who, number)`` gives the bytes that sample ``number`` comes
    to, whichever copy of the instance ``who`` is asked and wherever."""

    what: str
    who: Any
    do: Callable[[Any, int], bytes]


LONGEST = 400
"""Characters of a reason that are shown."""


def shorten(text: str) -> str:
    """The first ``LONGEST`` characters of a reason, and how many there are."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rstrip()} ... ({len(text):,} characters)"


def describe(error: BaseException) -> str:
    """An exception in one line: its class, the first line of what it says, and the file and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).parent != Path(__file__).parent] or frames
    said = f"{type(error).__name__}: {shorten(first_line(error))}"
    return f"{said} ({'/'.join(Path(own[-1].filename).parts[-2:])}:{own[-1].lineno})" if own else said


def require(condition: object, message: str) -> None:
    """Raise CheckFailed with the message unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def skip_unless(condition: object, reason: str) -> None:
    """Raise CheckSkipped with the reason unless the condition holds."""
    if not condition:
        raise CheckSkipped(reason)


def settings(params: Sequence[Param]) -> list[dict[str, Any]]:
    """Overrides of the defaults: none, then each parameter alone at each of its choices or extremes."""
    return [{}, *({p.name: value} for p in params for value in extremes(p) if value != p.default)]


def extremes(param: Param) -> list[Any]:
    """Every value of a choice; the ends of a range and of its usual sweep."""
    if param.type is bool:
        return [False, True]
    if param.type is str or (param.values and not param.open):
        return list(param.values)
    sweep = [min(param.values), max(param.values)] if param.values else []
    ends = [end for end in (param.low, param.high, *sweep) if end is not None]
    return [param.type(value) for value in dict.fromkeys(ends)]


@contextmanager
def no_draws() -> Iterator[None]:
    """Fails where the global random generators of Python, numpy or torch were used inside."""
    before = _generators()
    yield
    changed = [name for name, state in _generators().items() if state != before[name]]
    require(not changed, f"draws from the global random generator of {' and '.join(changed)}")


def _generators() -> dict[str, Any]:
    import torch

    numpy: Any = np.random.get_state(legacy=False)
    return {
        "Python": random.getstate(),
        "numpy": (numpy["state"]["key"].tobytes(), numpy["state"]["pos"]),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
