"""What a check is given, how it fails, and the settings it goes through."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from semcodec.component import Component, Param
from semcodec.registry import Registry


class CheckFailed(AssertionError):
    """A component does not keep a promise; the message names component, check and what was seen."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A component under test, and the registry that its companions are taken from."""

    component: Component
    registry: Registry

    def __str__(self) -> str:
        return f"{self.component.kind} {self.component.name}"

    def make(self, *arguments: Any, **overrides: Any) -> Any:
        """An instance with its build parameters at their defaults but for ``overrides``."""
        build = {p.name: p.default for p in self.component.params if p.when == "build"}
        return self.registry.load(self.component)(*arguments, **{**build, **overrides})


def require(condition: object, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


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
