"""Values to try: what a grid is, where it comes from, and compositions at its points. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from semcodec._files import read_regular
from semcodec._typed import read_toml
from semcodec.component import Component
from semcodec.composition.composition import Composition
from semcodec.composition.grammar import Value
from semcodec.errors import DataError, UsageError, first_line

Grid = Mapping[str, Sequence[Value]]
"""By "item.key", the values to try."""

Knobs = Literal["usual", "all"]


LARGEST = 1 << 26
"""Bytes of a file of cells that is read."""


class CellRow(msgspec.Struct, forbid_unknown_fields=True):
    """A ``[[cell]]``."""

    spec: str
    sweep: dict[str, Any] = {}


class CellsFile(msgspec.Struct, forbid_unknown_fields=True):
    """A file of cells."""

    cell: list[CellRow] = []


def read_cells(path: Path) -> list[tuple[str, dict[str, list[Value]]]]:
    """Specs with their grids from a TOML file of ``[[cell]]`` tables. Raises DataError.

    A table has ``spec`` and may have ``sweep``, as in ``sweep = {stae.frames = [1, 2, 4]}``.
    """
    try:
        cells = read_toml(read_regular(path, LARGEST).decode(), CellsFile).cell
        if not cells:
            raise ValueError("has no [[cell]]")
        return [(cell.spec, dict(_flat(f"cell {i}", cell.sweep))) for i, cell in enumerate(cells, 1)]
    except RecursionError:
        raise DataError(f"{path}: is nested too deeply") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is no readable TOML file: it is no UTF-8 text") from None
    except OSError as error:
        raise DataError(f"{path} is no readable TOML file: {first_line(error)}") from error
    except ValueError as error:
        form = 'expects [[cell]] tables and nothing else, each with spec = "..." and, if anything, sweep'
        raise DataError(f"{path} is no readable TOML file of cells: {error}; {form} = {{item.key = [...]}}") from error


def _flat(where: str, tree: Any, name: str = "") -> Iterator[tuple[str, list[Value]]]:
    """ "item.key" and values of a table, whose keys may be quoted or dotted. Raises ValueError."""
    if isinstance(tree, dict) and (tree or not name):
        for key, branch in tree.items():
            yield from _flat(where, branch, f"{name}.{key}" if name else key)
    elif isinstance(tree, list) and tree and all(isinstance(v, bool | int | float | str) for v in tree) and "." in name:
        yield name, tree
    else:
        raise ValueError(f"{where}: sweep of {name or 'nothing'}: expects item.key = [value, ...]")


def at(composition: Composition, values: Mapping[str, Value]) -> Composition:
    """The composition at values by "item.key", checked anew. Raises UsageError."""
    for name, value in values.items():
        item, _, key = name.rpartition(".")
        composition = composition.with_args(item, **{key: value})
    return composition


def knobs(composition: Composition, which: Knobs | None) -> dict[str, Sequence[Value]]:
    """The sweep that the components of a composition declare.

    "usual": budgets of the encoder's targets, or the parameter of a selector that decides by itself; an encoder
    without targets is swept by its positional or first call parameter. "all": every call parameter beside these.
    """
    if which is None:
        return {}
    encoder = composition.encoder.component
    found: dict[str, Sequence[Value]] = {}
    obeying = {target for target, (_, budget) in composition.keep.items() if budget is not None}
    for target, (bound, _) in composition.keep.items():
        param = bound.component.param(bound.component.positional or "")
        if target in obeying:
            found[f"{encoder.name}.{target}"] = _values(encoder, target)
        elif param is not None and param.values:
            found[f"{bound.name}@{target}.{param.name}"] = param.values
    gate = composition.gate
    if gate is not None and (param := gate.component.param(gate.component.positional or "")) and param.values:
        found[f"{gate.name}.{param.name}"] = param.values
    own = [p.name for p in encoder.params if p.when == "call" and p.values and p.name not in composition.keep]
    if which == "usual":
        first = encoder.positional if encoder.positional in own else next(iter(own), None)
        own = [first] if first and not composition.keep else []
    found.update({f"{encoder.name}.{name}": _values(encoder, name) for name in own})
    return {name: values for name, values in found.items() if values}


def _values(component: Component, name: str) -> Sequence[Value]:
    param = component.param(name)
    return param.values if param else ()


def part_of(composition: Composition, sweep: Grid) -> dict[str, Sequence[Value]]:
    """The part of a sweep that is about components of the composition."""
    names = {n for b in composition.bounds for n in (b.name, f"{b.name}@{b.item.target}")}
    return {name: values for name, values in sweep.items() if name.rpartition(".")[0] in names}


def check_used(sweep: Grid, compositions: Iterable[Composition]) -> None:
    """Raises UsageError for a sweep that is about no component of any composition."""
    made = list(compositions)
    for name in sweep:
        if made and not any(part_of(composition, {name: ()}) for composition in made):
            raise UsageError(f"--sweep {name}: no cell has a component {name.rpartition('.')[0]!r}")


def check_free(composition: Composition, name: str) -> None:
    """Raises UsageError where a knob that is swept is also set by the spec."""
    item, _, key = name.rpartition(".")
    for bound in composition.bounds:
        if item in (bound.name, f"{bound.name}@{bound.item.target}"):
            keys = {arg.key or bound.component.positional for arg in bound.item.args}
            if key in (composition.given if bound is composition.encoder else keys):
                raise UsageError(f"{key} of {bound.name} is set in {composition.spec} and swept; leave out one")


def with_seed(composition: Composition, seed: int) -> Composition:
    """The composition with ``seed`` for every component that has one and is not given one by the spec."""
    for bound in composition.bounds:
        keys = {arg.key or bound.component.positional for arg in bound.item.args}
        if bound.component.param("seed") and "seed" not in keys:
            target = f"@{bound.item.target}" if bound.item.target else ""
            composition = composition.with_args(f"{bound.name}{target}", seed=seed)
    return composition


def shown(grid: Grid, values: Sequence[Value]) -> str:
    """One point of a grid as a line of text."""
    return ", ".join(f"{name}={value}" for name, value in zip(grid, values, strict=True))
