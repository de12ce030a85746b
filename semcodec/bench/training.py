"""What the cells of a file need trained before they can be measured."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product

from semcodec.bench.sweeps import Grid, at, check_free
from semcodec.composition.composition import compose_spec


def to_train(cells: Iterable[tuple[str, Grid]]) -> dict[str, str]:
    """Specs of those whose encoder learns, by the name of their run's folder: one for each set of weights.

    What is chosen packet by packet is left out of the grids: one set of weights serves all of it.
    """
    specs: dict[tuple[str, ...], str] = {}
    for spec, grid in cells:
        composition = compose_spec(spec)
        if composition.encoder.component.recipe is None:
            continue
        for name in grid:
            check_free(composition, name)
        built = {name: values for name, values in grid.items() if name.rpartition(".")[2] not in composition.call}
        for values in product(*built.values()):
            point = at(composition, dict(zip(built, values, strict=True)))
            keys = tuple(point.weights_key(slot) for slot in ("encoder", "recoverer", *point.slots))
            specs.setdefault(keys, point.spec)
    return {re.sub(r"[^\w.,=@-]+", "-", spec): spec for spec in specs.values()}
