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
    import torch

    before = random.getstate(), repr(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    yield
    require(random.getstate() == before[0], "draws from Python's global random generator")
    require(repr(np.random.get_state()) == before[1], "draws from numpy's global random generator")  # noqa: NPY002
    require(torch.equal(torch.get_rng_state(), before[2]), "draws from torch's global random generator")
