"""Selection rules that serve frames, pixels, channels and patches alike."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

BUDGET = Param("budget", float, None, "units kept: an integer counts them, a fraction is of all", when="build", low=0)


@hookimpl
def semcodec_components() -> Iterator[Component]:
    yield Component(
        kind="selector",
        name="top-k",
        target="semcodec_plugins.selectors.rules:TopK",
        summary="keeps the units of highest score, as many as the budget says",
        params=(BUDGET,),
        positional="budget",
        traits={"abilities": ("keep",), "budget": True},
    )
    yield Component(
        kind="selector",
        name="random",
        target="semcodec_plugins.selectors.rules:RandomSubset",
        summary="keeps units drawn uniformly at random, as many as the budget says",
        params=(BUDGET, Param("seed", int, 0, "of the draw, beside the sample's number", when="build", low=0)),
        positional="budget",
        traits={"abilities": ("keep",), "budget": True},
    )
    yield Component(
        kind="selector",
        name="attention-threshold",
        target="semcodec_plugins.selectors.rules:AttentionThreshold",
        summary="keeps the units whose score reaches a threshold, at least one",
        params=(
            Param(
                "threshold",
                float,
                0.005,
                "least score of a unit that is kept",
                (0.001, 0.002, 0.005, 0.01, 0.02),
                when="build",
                open=True,
            ),
        ),
        positional="threshold",
        traits={"abilities": ("keep",)},
    )
    yield Component(
        kind="selector",
        name="attention-sum",
        target="semcodec_plugins.selectors.rules:AttentionSum",
        summary="keeps the fewest units of highest score that hold a share of the score of all",
        params=(
            Param(
                "threshold",
                float,
                0.97,
                "share of the total score that is kept",
                (0.99, 0.97, 0.95, 0.9, 0.8),
                when="build",
                open=True,
                low=0,
                high=1,
            ),
        ),
        positional="threshold",
        traits={"abilities": ("keep",)},
    )
