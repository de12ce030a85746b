"""Records of toys that pass every check: no tests."""

from __future__ import annotations

from dataclasses import replace

from semcodec.component import Component, Param
from semcodec.testing.stand_ins import STAND_INS


def home(kind):
    return f"conformance.{'encoders' if kind == 'encoder' else 'toys'}"


def record(kind, target, **more):
    return Component(kind, f"toy-{kind}", f"{home(kind)}:{target}", "a toy", **more)


ENCODER = record(
    "encoder", "Rows", spec="conformance.specs:image_spec",
    params=(
        Param("rows", float, 0.5, "a share of rows", low=0.5, high=1.0),
        Param("step", int, 2, "quantisation step", low=2, high=8),
    ),
    traits={"targets": ("rows",), "recoverer": "none", "tasks": ("classification",)},
)  # fmt: skip
BOUNDS = {"error": "conformance.specs:step_and_a_bit", "max_bytes": 3 * 32 * 48 * 5}
BOUNDED = replace(ENCODER, name="toy-bounded", traits={**ENCODER.traits, **BOUNDS})
IN_NUMPY = "conformance.in_numpy:RowsInNumpy"
AWAY = replace(ENCODER, name="toy-away", traits={**ENCODER.traits, "device": IN_NUMPY})
NARROW = replace(record("encoder", "TwoOfSix", spec="conformance.specs:two_of_six"), name="toy-narrow")
LEARNED = replace(ENCODER, name="toy-learned", target="conformance.encoders:Scaled")
ENTROPY = record("entropy", "Words", traits={"excess": (32, 0)})
RECOVERER = record("recoverer", "Grey", spec="conformance.specs:same_spec")
BUDGET = Param("budget", float, None, "how many", when="build")
SELECTOR = record("selector", "Best", params=(BUDGET,), traits={"abilities": ("keep",), "budget": True})
UNBOUNDED = record("selector", "WhatIsPositive", traits={"abilities": ("keep",)})
GATE = record("selector", "Sure", traits={"abilities": ("gate",)})
POINT = record("selector", "Half", traits={"abilities": ("point",), "example": "stae+rans+vit-nano"})
BACKBONE = record("backbone", "Clips", spec="semcodec.testing.stand_ins:clips")
LINEAR = record("backbone", "Linear", spec="conformance.specs:halves_of_images")
ATTENTIVE = record("backbone", "Patches", spec="semcodec.testing.stand_ins:patches")
DETECTOR = record("backbone", "Finds", spec="conformance.specs:boxes")
TONED = replace(RECOVERER, name="toy-toned", target="conformance.toys:Toned")
TOYS = (
    *(ENCODER, AWAY, BOUNDED, NARROW, LEARNED, ENTROPY, RECOVERER, TONED, SELECTOR, GATE, POINT),
    *(replace(BACKBONE, target=STAND_INS[0].target), replace(ATTENTIVE, target=STAND_INS[2].target), LINEAR, DETECTOR),
)
