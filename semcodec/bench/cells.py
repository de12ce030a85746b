"""Cells: what is measured one by one, in an order in which neighbours share the most work."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from semcodec.composition.composition import Composition
from semcodec.composition.stored import restate
from semcodec.errors import UsageError


@dataclass(frozen=True)
class Cell:
    """One operating point to measure.

    digest: names it: canonical spec, data, split, limit, seed, and the classes that count where these are not all.
    task: of a spec for several tasks, the one that is measured, which is in the digest then; None of a spec for one.
    family: equal where Backbone, cut and Encoder are the same models, so that head pass and scores are shared.
    point: equal where Selectors and knobs are the same too, so that encodings are shared.
    """

    spec: str
    digest: str
    family: str
    point: str
    task: str | None = None

    @property
    def label(self) -> str:
        """As it is shown to a reader."""
        return self.spec if self.task is None else f"{self.spec} --task {self.task}"


def cell_of(
    composition: Composition,
    data: str,
    split: str,
    limit: int | None,
    seed: int,
    classes: Sequence[str] | None = None,
) -> Cell:
    """The cell of a composition on some samples. classes: those that count, where these are not all.

    A composition for several tasks is seen with one of them (``Composition.alone``).
    """
    c = composition
    named = [c.spec, data, split, str(limit), str(seed), *(["classes", *classes] if classes else [])]
    task = (c.task or c.seen) if len(c.tails) > 1 else None
    if task is not None:
        named += ["task", task]
    now = restate(c.spec, {}, c.registry)
    if now.spec != c.spec:  # another point than earlier versions meant by it
        named += [f"{name} {version}" for name, version in now.versions.items()]
    digest = hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]
    models = [c.weights_key(name) for name in c.models]
    family = "+".join([c.encoder.weights_item, *models, *(f"{c.weights_key(slot)}@{c.cut}" for slot in c.slots)])
    return Cell(c.spec, digest, family, repr(tuple(point_of(c))), task)


class EncodingPoint(NamedTuple):
    """What an encoding depends on beside models: the gate, by target the Selector and budget, call parameters."""

    gate: str
    keep: tuple[tuple[str, str, str], ...]
    call: tuple[tuple[str, str], ...]


def point_of(composition: Composition) -> EncodingPoint:
    """What the encodings of a composition depend on beside its models."""
    c = composition
    return EncodingPoint(
        gate=str(c.gate.item) if c.gate else "",
        keep=tuple((target, str(bound.item), repr(budget)) for target, (bound, budget) in c.keep.items()),
        call=tuple((name, repr(value)) for name, value in c.call.items()),
    )


def ordered(cells: Iterable[Cell]) -> list[Cell]:
    """Each once, families together and in these points together, otherwise as given."""
    unique = list({cell.digest: cell for cell in cells}.values())
    families, points = ({key: i for i, key in enumerate(dict.fromkeys(keys))} for keys in (
        (cell.family for cell in unique), ((cell.family, cell.point) for cell in unique)
    ))  # fmt: skip
    return sorted(unique, key=lambda cell: (families[cell.family], points[cell.family, cell.point]))


def parts(text: str) -> int:
    """Into how many parts ``i/n`` divides a plan. Raises UsageError."""
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--shard {text}: expects I/N with I from 1 to N, as in 2/8")
    return int(count)


def shard(cells: Sequence[Cell], text: str) -> list[Cell]:
    """The cells of part ``i/n``, counted from 1, the same in every run. Cells that share an encoding stay together.

    Raises UsageError.
    """
    count, number = parts(text), text.partition("/")[0]
    points = [list(group) for _, group in groupby(cells, key=lambda cell: (cell.family, cell.point))]
    return [cell for point in points[int(number) - 1 :: count] for cell in point]


class Queue:
    """Hands out cells so that a worker finds in its memory what it needs.

    A worker gets the rest of its point, then the next point of its family, then a family that nobody works on, then
    the last point of the longest.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._families: dict[str, deque[deque[Cell]]] = {}
        for (family, _), group in groupby(cells, key=lambda cell: (cell.family, cell.point)):
            self._families.setdefault(family, deque()).append(deque(group))
        self._at: dict[int, tuple[str, deque[Cell]]] = {}
        self._again: deque[Cell] = deque()

    def take(self, worker: int) -> Cell | None:
        if self._again:
            return self._again.popleft()
        family, point = self._at.get(worker, ("", deque()))
        if not point:
            family, point = self._next(family)
            self._at[worker] = family, point
        return point.popleft() if point else None

    def put_back(self, cell: Cell) -> None:
        """To be handed out again, first."""
        self._again.append(cell)

    def _next(self, family: str) -> tuple[str, deque[Cell]]:
        if self._families.get(family):
            return family, self._families[family].popleft()
        taken = {name for name, _ in self._at.values()}
        free = [name for name, points in self._families.items() if points and name not in taken]
        if free:
            return free[0], self._families[free[0]].popleft()
        longest = max(self._families, key=lambda name: len(self._families[name]), default="")
        return (longest, self._families[longest].pop()) if self._families.get(longest) else ("", deque())
