"""Selection rules that serve frames, pixels, channels and patches alike, gates, and the choice by a deadline."""

from __future__ import annotations

from collections.abc import Iterator

from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl

DEADLINE = (
    Param("ms", float, 100.0, "completion time that a sample may take", when="build", low=1e-3),
    Param("rate", float, 10.0, "of the link, in Mbit/s; of no account beside a trace", when="build", low=1e-3),
    Param("rtt", float, 0.0, "round-trip time of the link in ms", when="build", low=0),
    Param("loss", float, 0.0, "share of packets that are lost and sent again", when="build", low=0, high=0.99),
    Param("trace", str, None, "file of 'time_s, mbps' lines: the link varies", when="build"),
    Param("period", float, None, "with a trace: ms from sample to sample; else the deadline", when="build", low=1e-3),
    Param(
        "headroom", float, 0.0, "share of the deadline to leave for a rate that falls", when="build", low=0, high=0.9
    ),
    Param("profile", str, "stae", "operating points: a profile's name or file, or a results folder", when="build"),
    Param(
        "task",
        str,
        None,
        "of a results folder of several: whose score counts, or 'NAME=WEIGHT,NAME=WEIGHT'",
        when="build",
    ),
)
SEED = Param("seed", int, 0, "of the draw, beside the sample's number", when="build", low=0, high=10**18 - 1)
"""Up to the largest number that a spec can hold."""
BUDGET = Param("budget", float, None, "units kept: an integer counts them, a fraction is of all", when="build", low=0)


@hookimpl
def semcodec_components() -> Iterator[Component]:
    """The records of this package's components."""
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
        params=(BUDGET, SEED),
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
    for name, target, summary, threshold in (
        (
            "min-entropy",
            "MinEntropy",
            "sends where the device's likeliest class is a surprise of so many bits",
            Param(
                "threshold",
                float,
                0.8,
                "least -log2 of the largest probability, in bits, of a sample that is sent",
                (1.0, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1),
                when="build",
                open=True,
                low=0,
            ),
        ),
        (
            "shannon-entropy",
            "ShannonEntropy",
            "sends where the Shannon entropy of the device's answer is high",
            Param(
                "threshold",
                float,
                1.0,
                "least Shannon entropy, in bits, of a sample that is sent",
                (3.0, 2.0, 1.5, 1.0, 0.7, 0.4, 0.2),
                when="build",
                open=True,
                low=0,
            ),
        ),
        (
            "margin",
            "Margin",
            "sends where the device's two likeliest classes are close",
            Param(
                "threshold",
                float,
                0.4,
                "a sample is sent if its two largest probabilities differ by less",
                (0.2, 0.4, 0.6, 0.8, 0.9),
                when="build",
                open=True,
                low=0,
                high=1,
            ),
        ),
    ):
        yield Component(
            kind="selector",
            name=name,
            target=f"semcodec_plugins.selectors.gates:{target}",
            summary=summary,
            params=(threshold,),
            positional="threshold",
            traits={"abilities": ("gate",)},
        )
    yield Component(
        kind="selector",
        name="deadline",
        target="semcodec_plugins.selectors.deadline:Deadline",
        summary="sets the encoder's most accurate operating point that fits a link and a deadline",
        params=DEADLINE,
        positional="ms",
        traits={"abilities": ("point",), "example": "stae+rans+vit-nano"},
    )
    for name, summary in (
        ("always", "sends every sample, whatever the device answers"),
        ("never", "sends no sample: the device's own model alone"),
    ):
        yield Component(
            kind="selector",
            name=name,
            target=f"semcodec_plugins.selectors.gates:{name.capitalize()}",
            summary=summary,
            traits={"abilities": ("gate",)},
        )
