"""Which cells there are to measure: every combination that composes, or what was named. No torch here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product

from semcodec.bench.sweeps import Grid, Knobs, at, check_free, check_used, knobs, part_of, shown, with_seed
from semcodec.component import Component, Kind
from semcodec.composition.composition import Composition, compose_spec, resolve_backbone
from semcodec.composition.registry import Registry, get_registry, lacking
from semcodec.data import datasets as data_sets
from semcodec.errors import SemcodecError, UsageError, first_line
from semcodec.pipeline.weights import WeightsRequest, find, published


@dataclass(frozen=True)
class Skip:
    """A combination that is not measured, and why, in one line."""

    spec: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """What narrows or widens the matrix; an empty tuple leaves a kind as it is.

    everything: all selectors and recoverers instead of each encoder's own. knobs: sweep the usual ones of each
    encoder and of its selectors, or all that are declared.
    """

    task: tuple[str, ...] = ()
    encoder: tuple[str, ...] = ()
    entropy: tuple[str, ...] = ()
    recoverer: tuple[str, ...] = ()
    selector: tuple[str, ...] = ()
    backbone: tuple[str, ...] = ()
    everything: bool = False
    knobs: Knobs | None = None

    def named(self) -> list[str]:
        """The options that were given, as they are written."""
        found = [f"--{name}" for name in ("task", "encoder", "entropy", "recoverer", "selector", "backbone")
                 if getattr(self, name)]  # fmt: skip
        return found + (["--all"] if self.everything else [])


@dataclass
class Matrix:
    """Compositions to measure, each once, and what was left out. limit: of their number, None for any."""

    registry: Registry
    limit: int | None = None
    cells: dict[str, Composition] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)

    def add(self, composition: Composition, grid: Grid) -> None:
        """Every point of ``grid``, those that are possible. Raises UsageError where they become more than ``limit``."""
        for values in product(*grid.values()):
            try:
                point = at(composition, dict(zip(grid, values, strict=True)))
            except SemcodecError as error:
                self.skip(f"{composition.spec} with {shown(grid, values)}", error)
            else:
                self.put(point, grid)

    def put(self, point: Composition, grid: Grid) -> None:
        """One point of ``grid``. Raises UsageError for one more than ``limit``, before the others are composed."""
        self.cells.setdefault(f"{point.spec} {point.seen or ''}".strip(), point)
        if self.limit is not None and len(self.cells) > self.limit:
            points = math.prod(map(len, grid.values()))
            sweep = f", and {points:,} points of {point.encoder.name} alone" if points > self.limit else ""
            raise UsageError(f"the plan has more than {self.limit:,} cells{sweep}: narrow it or raise --max-cells")

    def skip(self, spec: str, why: SemcodecError | str) -> None:
        self.skips.append(Skip(spec, why if isinstance(why, str) else first_line(why)))

    def with_seed(self, seed: int) -> list[Composition]:
        """The compositions with ``seed`` wherever a component draws and the spec does not say by which."""
        return list({(c.spec, c.seen): c for c in (with_seed(c, seed) for c in self.cells.values())}.values())


def enumerate_all(
    data: str,
    split: str,
    choice: Choice,
    sweep: Grid,
    weights: WeightsRequest,
    registry: Registry | None = None,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
) -> Matrix:
    """Every combination of what is registered that composes for the data.

    An encoder has its own selectors and its own recoverer, unless others are chosen; where its own recoverer cannot
    be used, all that can. One that codes its bytes itself is one cell, whatever entropy stages there are.
    Raises UsageError for a name that is unknown, a task that the data cannot serve or a sweep of nothing.
    """
    matrix = Matrix(registry or get_registry(), limit)
    one = choice.task[0] if len(choice.task) == 1 else None
    dataset = data_sets.open_dataset(data, split, classes=classes, task=one)
    tasks = dataset.tasks if classes is not None else data_sets.tasks_of(data)

    def classes_for(task: str | None) -> set[str]:
        opened = data_sets.open_quietly(data, split, None, classes, task=task)
        return {opened.classes[label] for label in opened.counted or range(len(opened.classes))}

    _Enumeration(matrix, data, dataset.kind, tasks, classes_for, choice, sweep, weights).fill()
    check_used(sweep, matrix.cells.values())
    return matrix


class _Enumeration:
    """tasks: that the data serve. classes_for: by task, the names of the classes that count there."""

    def __init__(
        self,
        matrix: Matrix,
        data: str,
        kind: str,
        tasks: Sequence[str],
        classes_for: Callable[[str | None], set[str]],
        choice: Choice,
        sweep: Grid,
        weights: WeightsRequest,
    ) -> None:
        self.matrix, self.choice, self.sweep, self.weights = matrix, choice, sweep, weights
        self.data, self.kind, self.classes_for = data, kind, cache(classes_for)
        self.tasks = choice.task or tasks
        for task in self.tasks:
            if task not in tasks:
                known = " and ".join(tasks)
                raise UsageError(f"--task {task}: {data} is of kind {self.kind}, which serves {known}")
        self.recoverers = [r.name for r in self._components("recoverer", choice.recoverer)]

    def fill(self) -> None:
        encoders = self._components("encoder", self.choice.encoder)
        for backbone in self._components("backbone", self.choice.backbone):
            reason = self._unfit(backbone)
            if reason:
                self.matrix.skip(backbone.name, reason)
                continue
            for encoder in encoders:
                for chosen in self._selections(encoder):
                    self._add(encoder, chosen, backbone)

    def _add(self, encoder: Component, chosen: Sequence[str], backbone: Component) -> None:
        own = [] if self.choice.recoverer else [""]
        others = self.recoverers if self.choice.recoverer or self.choice.everything else []
        added = [self._add_one([encoder.name, *chosen], recoverer, backbone) for recoverer in [*own, *others]]
        if own and not any(added):
            for recoverer in self.recoverers:
                self._add_one([encoder.name, *chosen], recoverer, backbone, tell=False)

    def _add_one(self, front: Sequence[str], recoverer: str, backbone: Component, *, tell: bool = True) -> bool:
        """Whether the combination can be measured; with ``tell``, one that cannot is named."""
        front = [*front, recoverer] if recoverer else front
        spec = "+".join([*front, backbone.name])
        try:
            base = compose_spec(spec, self.matrix.registry)
            reason = self._unready(base, named=backbone.name in self.choice.backbone)
        except SemcodecError as error:
            reason = first_line(error)
        if reason:
            if tell:
                self.matrix.skip(spec, reason)
            return False
        grid = {**knobs(base, self.choice.knobs), **part_of(base, self.sweep)}
        stages = [stage.name for stage in self._components("entropy", self.choice.entropy)] if base.entropy else []
        for named in ["+".join([*front, stage, backbone.name]) for stage in stages] or [spec]:
            self.matrix.add(compose_spec(named, self.matrix.registry), grid)
        return True

    def _components(self, kind: Kind, names: Sequence[str]) -> list[Component]:
        """Those that are named, or all of a kind but families, of which only members can be measured."""
        registry = self.matrix.registry
        if names:
            return [registry.find(name, kind) for name in dict.fromkeys(names)]
        return [registry.find(name, kind) for name in registry.names(kind) if not name.endswith("/*")]

    def _selections(self, encoder: Component) -> list[list[str]]:
        """What is written of selectors beside an encoder: none for its own, else one for all targets, and a gate."""
        named, everything = self.choice.selector, self.choice.everything and not self.choice.selector
        chosen = self._components("selector", named) if named or everything else []
        targets = encoder.traits.get("targets", ())
        keeping = [
            [f"{c.name}@{target}" for target in targets] or [c.name]
            for c in chosen
            if "keep" in c.traits.get("abilities", ())
        ]
        gating = [[c.name] for c in chosen if "gate" in c.traits.get("abilities", ())]
        if everything:  # what nobody asked for and cannot be is not worth a line
            keeping = [[], *(keeping if targets else [])]
            gating = [[], *(gating if encoder.traits.get("predicts") else [])]
        return [keep + gate for keep, gate in product(keeping or [[]], gating or [[]])]

    def _unfit(self, backbone: Component) -> str:
        """Why a Backbone is not for the data, or ""."""
        if reason := lacking(backbone):
            return reason
        spec = resolve_backbone(backbone.name, self.matrix.registry).spec
        if spec is not None and spec.task not in self.tasks:
            wanted = " and ".join(self.tasks)
            return f"{backbone.name} does {spec.task}, and {self.data} ({self.kind}) is measured for {wanted}"
        return ""

    def _unready(self, composition: Composition, *, named: bool) -> str:
        """Why a composition cannot run here, or "": an extra that is absent, weights that are not to be had.

        named: the Backbone was asked for, so that what is published of it may be fetched.
        """
        for bound in composition.bounds:
            if reason := lacking(bound.component):
                return reason
        own = {"encoder": composition.encoder, "recoverer": composition.recoverer}
        own = {slot: bound for slot, bound in own.items() if bound.component.weights}
        for slot, bound in {"backbone": composition.backbone, **composition.models, **own}.items():
            found = find(composition, slot, self.weights, hub=False)
            if found is None:
                hub = published(bound)
                if hub and named and not self.weights.offline:
                    continue
                remedy = f"--backbone {bound.name} fetches {hub}; or " if hub and slot == "backbone" else ""
                return (
                    f"no weights of {composition.weights_key(slot)} here; {remedy}give --weights {slot}=PATH or random"
                )
            if slot == "backbone" and found.classes and not self.classes_for(composition.task) <= set(found.classes):
                return f"{found.origin} knows other classes than {self.data}: {', '.join(found.classes[:4])}, ..."
        return ""


def given(
    specs: Iterable[tuple[str, Grid]],
    sweep: Grid,
    registry: Registry | None = None,
    limit: int | None = None,
    tasks: Sequence[str] = (),
) -> Matrix:
    """The specs, each with its own grid and ``sweep``. Raises where one of them cannot be, and for too many.

    tasks: those that are measured of a spec for several, each a cell of its own; left out, all.
    """
    matrix = Matrix(registry or get_registry(), limit)
    for spec, own in specs:
        composition = compose_spec(spec, matrix.registry)
        views = [composition.alone(name) for name in tasks or composition.tails]
        for name in set(own) & set(sweep):
            raise UsageError(f"{name} is swept by the cell {spec} and by --sweep; leave out one of the two")
        grid = {**own, **part_of(composition, sweep)}
        for name in grid:
            check_free(composition, name)
        for values in product(*grid.values()):
            for view in views:
                point = at(view, dict(zip(grid, values, strict=True)))
                if reason := point.lacks_layers():
                    matrix.skip(f"{point.spec} --task {point.task}", reason)
                else:
                    matrix.put(point, grid)
    check_used(sweep, matrix.cells.values())
    return matrix
