"""Every component keeps what its interface promises, and every check can fail: by a toy that breaks it and no other."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from semcodec.component import Component, Param
from semcodec.registry import get_registry
from semcodec.testing import CheckFailed, check_component, checks_for, parametrize_with_checks
from semcodec.testing.stand_ins import STAND_INS


@parametrize_with_checks(get_registry())
def test_registered_components(check):
    check()


@parametrize_with_checks(STAND_INS)
def test_stand_ins(check):
    check()


def home(kind):
    return f"conformance.{'encoders' if kind == 'encoder' else 'toys'}"


def record(kind, target, **more):
    return Component(kind, f"toy-{kind}", f"{home(kind)}:{target}", "a toy", **more)


ENCODER = record(
    "encoder", "Rows", spec="conformance.specs:image_spec",
    params=(
        Param("rows", float, 0.5, "a share of rows", low=0.1, high=1.0),
        Param("step", int, 2, "quantisation step", low=1, high=8),
    ),
    traits={"targets": ("rows",), "recoverer": "none", "tasks": ("classification",)},
)  # fmt: skip
ENTROPY = record("entropy", "Words")
RECOVERER = record("recoverer", "Grey", spec="conformance.specs:same_spec")
BUDGET = Param("budget", float, None, "how many", when="build")
SELECTOR = record("selector", "Best", params=(BUDGET,), traits={"abilities": ("keep",), "budget": True})
GATE = record("selector", "Sure", traits={"abilities": ("gate",)})
POINT = record("selector", "Half", traits={"abilities": ("point",), "example": "stae+rans+vit-nano"})
BACKBONE = record("backbone", "Clips", spec="semcodec.testing.stand_ins:clips")
TOYS = (ENCODER, ENTROPY, RECOVERER, SELECTOR, GATE, POINT, replace(BACKBONE, target=STAND_INS[0].target))


@parametrize_with_checks(TOYS)
def test_toys_that_keep_every_promise(check):
    check()


def knob(**more):
    return (Param(**({"name": "n", "type": int, "default": 1, "help": "a knob"} | more)),)


WRONG = [
    ("check_record", ENTROPY, {"target": "conformance.toys.Words"}, "target is"),
    ("check_record", ENTROPY, {"name": "Words!"}, "no name"),
    ("check_record", ENTROPY, {"summary": "two\nlines"}, "summary is one line"),
    ("check_record", ENTROPY, {"stream_version": 2}, "reads only"),
    ("check_record", ENTROPY, {"params": knob(default=9, high=8)}, "outside None to 8"),
    ("check_record", ENTROPY, {"params": knob(default=1.0)}, "not of type int"),
    ("check_record", ENTROPY, {"params": knob(default=3, values=(1, 2))}, "not among its values"),
    ("check_record", ENTROPY, {"params": knob(default=None)}, "call parameter without a default"),
    ("check_record", ENTROPY, {"params": knob() * 2}, "two parameters of one name"),
    ("check_traits", ENTROPY, {"traits": {"alphabet": object()}}, "not plain data"),
    ("check_traits", ENCODER, {"traits": {"recoverer": "no-such-thing"}}, "default recoverer"),
    ("check_traits", ENCODER, {"traits": {"targets": ("columns",)}}, "target 'columns'"),
    ("check_traits", SELECTOR, {"traits": {}}, "abilities"),
    ("check_traits", POINT, {"traits": {"abilities": ("point",)}}, "trait example"),
    ("check_light_imports", RECOVERER, {"spec": "semcodec.testing.tensors:close"}, "torch"),
    ("check_target", ENTROPY, {"target": "conformance.toys:Grey"}, "no subclass of EntropyStage"),
    ("check_target", ENTROPY, {"target": "semcodec.interfaces:EntropyStage"}, "lacks decode, encode"),
    ("check_target", ENTROPY, {"target": "conformance.toys:Missing"}, "PluginError"),
    ("check_target", SELECTOR, {"target": "conformance.toys:Sure"}, "lacks keep"),
    ("check_composes", ENCODER, {"spec": "conformance.specs:refusing_spec"}, "no backbone takes it"),
    ("check_spec", ENCODER, "RestoresDoubles", "declared is image float32"),
    ("check_spec", ENCODER, "MiscountsUnits", "units says 33"),
    ("check_spec", ENCODER, "DeclaresOtherLatents", "q is int32"),
    ("check_round_trip", ENCODER, "ReadsOtherwise", "not those before it"),
    ("check_repeatable", ENCODER, "Dithers", "the second time"),
    ("check_repeatable", ENCODER, "DrawsInVain", "random generator of torch"),
    ("check_repeatable", ENCODER, "OverwritesItsInput", "alters its input"),
    ("check_repeatable", ENCODER, "SwitchesMode", "between training and evaluation"),
    ("check_batch", ENCODER, "ScalesByTheBatch", "differs from that in a batch"),
    ("check_batch", ENCODER, "MixesUpTheBatch", "differs from that in a batch"),
    ("check_not_finite", ENCODER, "HidesNaN", "neither refused"),
    ("check_damage", ENCODER, "NeedsBothLayers", "IndexError"),
    ("check_forgery", ENCODER, "TrustsTheMask", "chunk 'rows'"),
    ("check_forgery", ENCODER, "TrustsTheSymbols", "IndexError"),
    ("check_round_trip", ENTROPY, "Shorts", "does not come back"),
    ("check_round_trip", ENTROPY, "RefusesEmpty", "nothing under .* is refused"),
    ("check_repeatable", ENTROPY, "Counts", "same bytes again"),
    ("check_repeatable", ENTROPY, "SortsInPlace", "alters the symbols"),
    ("check_side_bytes", ENTROPY, "AllTables", "said to be tables"),
    ("check_damage", ENTROPY, "Unchecked", "ValueError, not CorruptStream"),
    ("check_damage", ENTROPY, "TakesWhatComes", "is decoded to int32"),
    ("check_spec", RECOVERER, "FillsWithNaN", "NaN"),
    ("check_present_passes", RECOVERER, "Brightens", "that were received"),
    ("check_complete_unchanged", RECOVERER, "HalvesTheUnmarked", "without masks"),
    ("check_batch", RECOVERER, "AddsABatchMean", "depends on the samples"),
    ("check_repeatable", RECOVERER, "FillsInPlace", "alters its input"),
    ("check_mask", SELECTOR, "NothingAtAll", "keeps nothing"),
    ("check_budget", SELECTOR, "OneMore", "a budget of 1 of 12 units keeps 2"),
    ("check_order", SELECTOR, "Worst", "higher score"),
    ("check_batch", SELECTOR, "BatchOrder", "otherwise than in a batch"),
    ("check_repeatable", SELECTOR, "Shuffles", "random generator of torch"),
    ("check_not_finite", SELECTOR, "TakesNaN", "scores that are NaN"),
    ("check_gate", GATE, "SurerThanTheRest", "samples beside it"),
    ("check_gate", GATE, "Tentative", "not 6 bools"),
    ("check_gate_extremes", GATE, "TakesNaNForSure", "an answer of NaN"),
    ("check_gate_extremes", GATE, "NaiveSoftmax", "more than the softmax"),
    ("check_point", POINT, "SetsWhatIsNotThere", "no call parameter 'frame'"),
    ("check_point", POINT, "SetsTheFirstOnly", "1 settings for 3 samples"),
    ("check_point_of_each", POINT, "SetsByPlace", "otherwise than among others"),
    ("check_point_given", POINT, "SetsRegardless", "sets frames to 2 where the spec says 1"),
    ("check_spec", BACKBONE, "Doubles", "float64"),
    ("check_spec", BACKBONE, "SwapsSides", "16x3x48x32"),
    ("check_cuts_agree", BACKBONE, {"target": "conformance.toys:OtherWhenCut", "spec": "conformance.specs:halves"},
     "cut at late"),
    ("check_batch", BACKBONE, "BatchNormed", "samples beside it"),
    ("check_part_of_the_input", BACKBONE, "WholeClips", "RuntimeError"),
    ("check_repeatable", BACKBONE, "Drops", "random generator of torch"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "right", "wrong", "says"), [pytest.param(*row, id=f"{row[0]}-{row[2]}") for row in WRONG]
)
def test_each_check_can_fail(check, right, wrong, says):
    component = replace(right, **({"target": f"{home(right.kind)}:{wrong}"} if isinstance(wrong, str) else wrong))
    found = {c.name: c for c in checks_for(component)}
    with pytest.raises(CheckFailed, match=rf"(?s)^{component.kind} {component.name}: {check}: .*{says}"):
        found[check]()


def test_no_check_is_without_a_toy_that_fails_it():
    all_checks = {(toy.kind, check.name) for toy in TOYS for check in checks_for(toy)}
    failed = {(right.kind, check) for check, right, _, _ in WRONG}
    of_any_kind = {"check_record", "check_traits", "check_light_imports", "check_target"}
    assert {name for _, name in failed} >= of_any_kind
    assert {(kind, name) for kind, name in all_checks if name not in of_any_kind} <= failed


def test_check_component_stops_at_the_first_failure_and_knows_expected_ones():
    with pytest.raises(CheckFailed, match="entropy toy-entropy: check_round_trip"):
        check_component(replace(ENTROPY, target="conformance.toys:Shorts"))
    side = replace(ENTROPY, target="conformance.toys:AllTables")
    check_component(side, expected_failures={"check_side_bytes": "counts one byte too many"})
    with pytest.raises(CheckFailed, match="passes, and is expected to fail: it was so once"):
        check_component(ENTROPY, expected_failures={"check_damage": "it was so once"})
    with pytest.raises(ValueError, match="no check is called 'check_dmg'"):
        check_component(ENTROPY, expected_failures={"check_dmg": "misspelt"})


def test_the_kit_needs_neither_pytest_nor_torch_until_it_checks():
    code = (
        "import sys; sys.modules['pytest'] = None; import semcodec.testing as t; "
        "from semcodec.registry import get_registry; assert 'torch' not in sys.modules; "
        "[check() for check in t.checks_for(get_registry().find('pack'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_dependency_is_skipped_with_its_cure():
    needy = replace(ENTROPY, requires=("no_such_package",), extra="learned")
    marks = parametrize_with_checks([needy]).args[1][0].marks
    assert marks[0].name == "skip"
    assert marks[0].kwargs["reason"] == "pip install 'semcodec[learned]'"
