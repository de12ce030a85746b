"""Every component keeps what its interface promises, and every check can fail: by a toy that breaks it and no other."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from types import MappingProxyType

import fake_accelerator  # noqa: F401 - before anything learns
import pytest
from conformance.records import (
    ATTENTIVE,
    AWAY,
    BACKBONE,
    BOUNDED,
    BUDGET,
    DETECTOR,
    ENCODER,
    ENTROPY,
    GATE,
    LEARNED,
    LINEAR,
    POINT,
    RECOVERER,
    SELECTOR,
    TONED,
    TOYS,
    UNBOUNDED,
    home,
)

from semcodec.component import Param
from semcodec.composition.registry import get_registry
from semcodec.pipeline.accelerator import Accelerator
from semcodec.testing import accelerators, checks_for, outcomes, parametrize_with_checks, records
from semcodec.testing.stand_ins import FRAMES, STAND_INS

LARGE = {
    "deit-base",
    "deit-small",
    "resnet34",
    "resnet50",
    "resnet50-caffe",
    "vit-base",
    "yolov5l",
    "yolov5m",
    "yolov5x",
}
"""Models of which a smaller one, of the same class, is checked in their place where time is short."""


@parametrize_with_checks(c for c in get_registry() if c.name not in LARGE)
def test_registered_components(check):
    check()


@pytest.mark.slow
@parametrize_with_checks(c for c in get_registry() if c.name in LARGE)
def test_large_components(check):
    check()


@pytest.mark.parametrize("component", [c for c in get_registry() if c.name in LARGE], ids=lambda c: c.name)
def test_records_of_large_components(component):
    rests_on = {check.__name__ for check in records.checks(component)}
    for check in checks_for(component):
        if check.name in rests_on:
            check()


@parametrize_with_checks(STAND_INS)
def test_stand_ins(check):
    check()


@parametrize_with_checks(TOYS)
def test_toys_that_keep_every_promise(check):
    check()


def knob(**more):
    return (Param(**({"name": "n", "type": int, "default": 1, "help": "a knob"} | more)),)


SIZE = knob(name="size", values=(1, 9), when="build")
SHARE = Param("share", float, 0.1, "at most", low=0.1, high=0.9, when="build")
TEXT = Param("text", str, "", "a word", values=("", "two\nlines"))


def in_numpy(name):
    return {"traits": {**AWAY.traits, "device": f"conformance.in_numpy:{name}"}}


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
    ("check_record", ENTROPY, {"traits": MappingProxyType({"alphabet": 3})}, "no plain data: TypeError"),
    ("check_config", ENTROPY, {"params": knob(default=10**30)}, "too large"),
    ("check_config", ENTROPY, {"params": knob(name="N")}, "SpecError"),
    ("check_config", ENTROPY, {"params": (TEXT,)}, "cannot be written"),
    ("check_bounds", ENTROPY, {"params": knob(when="build")}, "the build parameter n is an integer without an upper"),
    ("check_bounds", ENCODER, {"params": (*ENCODER.params, *knob(when="build", values=(1, 2), open=True))}, "a high"),
    ("check_traits", ENTROPY, {"traits": {"excess": [3]}}, "not plain data"),
    ("check_traits", ENTROPY, {"traits": {"alphabet": 3}}, "no entropy has a trait 'alphabet'"),
    ("check_traits", ENCODER, {"traits": {"selector": ("random",)}}, "did you mean selectors?"),
    ("check_traits", BACKBONE, {"traits": {"edges": "vit-nano"}}, "did you mean edge?"),
    ("check_traits", ENTROPY, {"traits": {"excess": 3}}, "bits a symbol, bytes"),
    ("check_traits", ENTROPY, {"traits": {"expected_failures": {"check_damage": ""}}}, "gives a reason"),
    ("check_traits", ENCODER, {"traits": {"recoverer": "none", "error": "half a level"}}, "is a number or"),
    ("check_traits", ENCODER, {"traits": {"recoverer": "no-such-thing"}}, "default recoverer"),
    ("check_traits", ENCODER, {"traits": {"targets": ("columns",)}}, "target 'columns'"),
    ("check_traits", SELECTOR, {"traits": {}}, "abilities"),
    ("check_traits", POINT, {"traits": {"abilities": ("point",)}}, "trait example"),
    ("check_light_imports", RECOVERER, {"spec": "conformance.encoders:replace"}, "torch"),
    ("check_light_imports", RECOVERER, {"spec": "conformance.specs:spec_that_imports_torch"}, "imports torch"),
    ("check_target", ENTROPY, {"target": "conformance.toys:Grey"}, "no subclass of EntropyStage"),
    ("check_target", ENTROPY, {"target": "semcodec.interfaces:EntropyStage"}, "lacks decode, encode"),
    ("check_target", ENTROPY, {"target": "conformance.toys:Missing"}, "PluginError"),
    ("check_target", SELECTOR, {"target": "conformance.toys:Sure"}, "lacks keep"),
    ("check_target", BOUNDED, {"traits": {**BOUNDED.traits, "error": "conformance.specs:missing"}}, "PluginError"),
    ("check_builds", ENCODER, {"spec": "conformance.specs:refusing_spec"}, "no backbone takes it"),
    ("check_builds", ENTROPY, {"target": "conformance.toys:WordsOfSize", "params": SIZE}, "no word is as long"),
    ("check_builds", RECOVERER, {"spec": "conformance.specs:refusing_spec"}, "no backbone's features fit it"),
    ("check_builds", SELECTOR, {"target": "conformance.toys:BestOfFew", "params": (BUDGET, SHARE)}, "not few"),
    ("check_builds", BACKBONE, "OwnClasses", "class names it was given"),
    ("check_spec", ENCODER, "RestoresDoubles", "declared is image float32"),
    ("check_spec", ENCODER, "MiscountsUnits", "units says 33"),
    ("check_spec", ENCODER, "DeclaresOtherLatents", "q is int32"),
    ("check_spec", ENCODER, "FiguresOfTheBatch", "the figure 'mean' of one sample"),
    ("check_round_trip", ENCODER, "ForgetsToWrite", "not those before it"),
    ("check_error", BOUNDED, {"traits": {**BOUNDED.traits, "error": "conformance.specs:half_a_level"}}, "is off by"),
    ("check_error", BOUNDED, {"traits": {**BOUNDED.traits, "error": 0}}, "is off by 0.00392, more than 0"),
    ("check_size", BOUNDED, {"traits": {**BOUNDED.traits, "max_bytes": 3000}}, "more than 3000"),
    ("check_repeatable", ENCODER, "Dithers", "the second time"),
    ("check_repeatable", ENCODER, "DrawsInVain", "random generator of torch"),
    ("check_repeatable", ENCODER, "OverwritesItsInput", "alters its input"),
    ("check_repeatable", ENCODER, "SwitchesMode", "between training and evaluation"),
    ("check_batch", ENCODER, "ScalesByTheBatch", "differs from that in a batch"),
    ("check_batch", ENCODER, "MixesUpTheBatch", "differs from that in a batch"),
    ("check_batch", ENCODER, "EncodesIntoItsOwn", "changes when others are encoded"),
    ("check_masks", ENCODER, "SendsTheFirstRows", "the first rows are chosen, then the last, and the same is sent"),
    ("check_masks", ENCODER, "SendsTheOthers", "more of image is received than of twice as many"),
    ("check_restore", ENCODER, "MixesUpWhatArrives", "sample 0 is restored otherwise with others"),
    ("check_restore", ENCODER, "RestoresIntoItsOwn", "change when others are restored"),
    ("check_spec", ENCODER, "MarksInBool", "its feature torch.float32"),
    ("check_states", LEARNED, "NamesNoWeights", "that server_state\\(\\) does not name"),
    ("check_states", LEARNED, "TiesStreamsToNothing", "streams are tied to nothing"),
    ("check_not_finite", ENCODER, "HidesNaN", "neither refused"),
    ("check_damage", ENCODER, "NeedsBothLayers", "IndexError"),
    ("check_forgery", ENCODER, "TrustsTheMask", "chunk 'rows'"),
    ("check_forgery", ENCODER, "TrustsTheSymbols", "IndexError"),
    ("check_forgery", ENCODER, "ReadsWithoutARange", "was sent and read as"),
    ("check_forgery", ENCODER, "KeepsWhatItReads", "encode gives uint8"),
    ("check_gradient", LEARNED, "TrainsHalf", "no gradient reaches idle"),
    ("check_gradient", LEARNED, "CutsTheGradient", "no gradient at all"),
    ("check_gradient", LEARNED, "OneNumberOfBits", "bits a sample"),
    ("check_device_half", AWAY, in_numpy("ScoresTheLast"), "scores rows otherwise"),
    ("check_device_half", AWAY, in_numpy("SendsMore"), "'q' holds other integers"),
    ("check_device_half", AWAY, in_numpy("ForgetsTheMask"), "sends \\['q'\\]"),
    ("check_light_imports", AWAY, {"traits": {**AWAY.traits, "device": "conformance.in_torch:RowsInNumpy"}}, "torch"),
    ("check_quiet", ENCODER, "Greets", "prints 'encoding ...' to stdout"),
    ("check_quiet", ENCODER, "GreetsFromC", "prints 'a library of C says hello' to stderr"),
    ("check_quiet", ENCODER, "PhonesHome", "asks the network for '198.51.100.7'"),
    ("check_quiet", ENCODER, "StepsAside", "changes how the process is scheduled"),
    ("check_copies", ENCODER, "HoldsALambda", "cannot be pickled"),
    ("check_copies", ENCODER, "ForgetsItself", "a deep copy gives something else"),
    ("check_threads", ENCODER, "RemembersTheLatest", "2 threads use it at once"),
    ("check_processes", ENCODER, "RowsByProcess", "another process comes to other bytes"),
    ("check_accelerator", ENCODER, "ScoresOnTheCPU", "Expected all tensors to be on the same device"),
    ("check_accelerator", RECOVERER, "GreyOfTheCPU", "Expected all tensors to be on the same device"),
    ("check_accelerator", SELECTOR, "BestOnTheCPU", "given back on cpu, not where it was asked"),
    ("check_accelerator", GATE, "SureOnTheCPU", "given back on cpu, not where it was asked"),
    ("check_accelerator", BACKBONE, "ClipsOfTheCPU", "Expected all tensors to be on the same device"),
    ("check_round_trip", ENTROPY, "Shorts", "does not come back"),
    ("check_round_trip", ENTROPY, "RefusesEmpty", "nothing under .* is refused"),
    ("check_repeatable", ENTROPY, "Counts", "same bytes again"),
    ("check_repeatable", ENTROPY, "SortsInPlace", "alters the symbols"),
    ("check_repeatable", ENTROPY, "DecodesIntoItsOwn", "what was decoded changes when more is"),
    ("check_repeatable", ENTROPY, "AltersThePrior", "alters the prior"),
    ("check_long", ENTROPY, {"target": "conformance.toys:InflatesAll", "traits": {}}, "bytes of memory"),
    ("check_side_bytes", ENTROPY, "AllTables", "said to be tables"),
    ("check_damage", ENTROPY, "BlamesItself", "ValueError, not CorruptStream"),
    ("check_damage", ENTROPY, "Unchecked", "ValueError, not CorruptStream"),
    ("check_damage", ENTROPY, "TakesWhatComes", "is decoded to int32"),
    ("check_size", ENTROPY, {"traits": {"excess": (1, 8)}}, "beside its tables, more than"),
    ("check_quiet", ENTROPY, "WordsAloud", "prints 'decoding"),
    ("check_copies", ENTROPY, "WordsUnderLock", "cannot be deep-copied"),
    ("check_threads", ENTROPY, "WordsOfTheLatest", "threads use it at once"),
    ("check_processes", ENTROPY, "WordsByProcess", "another process"),
    ("check_spec", RECOVERER, "FillsWithNaN", "NaN"),
    ("check_spec", RECOVERER, "AddsAName", "confidence float32"),
    ("check_present_passes", RECOVERER, "Brightens", "that were received"),
    ("check_present_passes", RECOVERER, "BrightensWhatIsBesideGaps", "that were received"),
    ("check_complete_unchanged", RECOVERER, "HalvesTheUnmarked", "without masks"),
    ("check_batch", RECOVERER, "AddsABatchMean", "depends on the samples"),
    ("check_repeatable", RECOVERER, "FillsInPlace", "alters its input"),
    ("check_repeatable", RECOVERER, "RecoversIntoItsOwn", "what was recovered changes when more is"),
    ("check_gradient", TONED, "TonedByNothing", "no gradient at all"),
    ("check_quiet", RECOVERER, "GreyAloud", "prints 'recovering"),
    ("check_copies", RECOVERER, "GreyUnderLock", "cannot be deep-copied"),
    ("check_threads", RECOVERER, "GreyOfTheLatest", "threads use it at once"),
    ("check_mask", SELECTOR, "NothingAtAll", "keeps nothing"),
    ("check_mask", UNBOUNDED, {"target": "conformance.toys:WhatIsPositive"}, "keeps nothing"),
    ("check_budget", SELECTOR, "OneMore", "a budget of 1 of 12 units keeps 2"),
    ("check_order", SELECTOR, "Worst", "higher score"),
    ("check_batch", SELECTOR, "BatchOrder", "otherwise than in a batch"),
    ("check_repeatable", SELECTOR, "Shuffles", "random generator of torch"),
    ("check_repeatable", SELECTOR, "DrawsBeside", "random generator of torch"),
    ("check_not_finite", SELECTOR, "TakesNaN", "scores that are NaN"),
    ("check_quiet", SELECTOR, "BestAloud", "prints 'choosing"),
    ("check_copies", SELECTOR, "BestUnderLock", "cannot be deep-copied"),
    ("check_threads", SELECTOR, "BestOfTheLatest", "threads use it at once"),
    ("check_processes", SELECTOR, "BestByProcess", "another process"),
    ("check_threads", GATE, "SureOfTheLatest", "threads use it at once"),
    ("check_threads", POINT, "SetsByTheLatest", "threads use it at once"),
    ("check_gate", GATE, "SurerThanTheRest", "samples beside it"),
    ("check_gate", GATE, "Tentative", "not 6 bools"),
    ("check_gate", GATE, "SureByChance", "random generator of numpy"),
    ("check_gate_extremes", GATE, "TakesNaNForSure", "an answer of NaN"),
    ("check_gate_extremes", GATE, "NaiveSoftmax", "more than the softmax"),
    ("check_point", POINT, "SetsWhatIsNotThere", "no call parameter 'frame'"),
    ("check_point", POINT, "SetsTheFirstOnly", "1 settings for 3 samples"),
    ("check_point_of_each", POINT, "HalfByChance", "random generator of numpy"),
    ("check_point_of_each", POINT, "SetsByPlace", "otherwise than among others"),
    ("check_point_given", POINT, "SetsRegardless", "sets frames to 2 where the spec says 1"),
    ("check_spec", BACKBONE, "Doubles", "float64"),
    ("check_spec", BACKBONE, "SwapsSides", f"{FRAMES}x3x48x32"),
    ("check_cuts_agree", BACKBONE, {"target": "conformance.toys:OtherWhenCut", "spec": "conformance.specs:halves"},
     "cut at late"),
    ("check_batch", BACKBONE, "BatchNormed", "samples beside it"),
    ("check_part_of_the_input", BACKBONE, "WholeClips", "RuntimeError"),
    ("check_repeatable", BACKBONE, "Drops", "random generator of torch"),
    ("check_repeatable", BACKBONE, "DrawsAnyway", "random generator of torch"),
    ("check_spec", DETECTOR, "FindsMoreThanAll", "outside 0 to 1"),
    ("check_advance", LINEAR, "AdvancesTooFar", "advance from input to maps"),
    ("check_narrowed", LINEAR, "NarrowsToTheFirst", "not the head's channels"),
    ("check_states", LINEAR, "LinearOfNothing", "that tail_state\\(\\) does not name"),
    ("check_repeatable", LINEAR, "DimsItsInput", "the head to input alters its input"),
    ("check_gradient", LINEAR, "LinearOfOne", "no gradient at all"),
    ("check_quiet", BACKBONE, "ClipsAloud", "prints 'answering"),
    ("check_copies", BACKBONE, "ClipsUnderLock", "cannot be deep-copied"),
    ("check_threads", BACKBONE, "ClipsOfTheLatest", "threads use it at once"),
    ("check_threads", ATTENTIVE, "AttendsToTheLatest", "attend: other bytes or answers where 2 threads"),
]  # fmt: skip


ALSO = {
    "RestoresDoubles": {"check_damage", "check_forgery", "check_threads"},
    "Unchecked": {"check_long"},
    "TakesWhatComes": {"check_long"},
    "RecoversIntoItsOwn": {"check_threads"},
    "DecodesIntoItsOwn": {"check_threads"},
    "MarksInBool": {"check_damage", "check_forgery"},
    "EncodesIntoItsOwn": {"check_threads"},
    "RestoresIntoItsOwn": {"check_threads"},
    "DimsItsInput": {"check_advance", "check_cuts_agree", "check_batch"},
    "Dithers": {"check_batch", "check_copies", "check_threads", "check_processes"},
    "OverwritesItsInput": {"check_batch", "check_not_finite"},
    "SurerThanTheRest": {"check_gate_extremes"},
    "Tentative": {"check_gate_extremes"},
    "RefusesEmpty": {
        *("check_repeatable", "check_side_bytes", "check_size", "check_damage"),
        *("check_quiet", "check_copies", "check_threads", "check_processes"),
    },
    "Counts": {"check_copies", "check_threads", "check_processes"},
    "FillsWithNaN": {"check_batch", "check_repeatable"},
    "Brightens": {"check_complete_unchanged"},
    "NothingAtAll": {"check_budget"},
    "Shuffles": {"check_batch", "check_copies", "check_threads", "check_processes"},
    "SetsTheFirstOnly": {"check_point_of_each"},
    "SetsByPlace": {"check_point_given"},
    "Doubles": {"check_part_of_the_input"},
    "Drops": {"check_batch", "check_copies", "check_threads"},
}
"""By toy, checks that it cannot but fail too."""


@pytest.fixture
def accelerator(fakegpu, monkeypatch):
    """The checks take the make-believe accelerator for one that is here."""
    monkeypatch.setattr(accelerators, "accelerator_here", lambda: Accelerator.find(fakegpu))


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_toys_run_on_an_accelerator(toy):
    for check in checks_for(toy):
        if check.name == "check_accelerator" and "point" not in toy.traits.get("abilities", ()):
            check()


def test_without_an_accelerator_the_check_says_so(monkeypatch):
    monkeypatch.setattr(accelerators, "accelerator_here", lambda: None)
    [outcome] = [one for one in outcomes(ENCODER) if one.check == "check_accelerator"]
    assert (outcome.result, outcome.reason) == ("skipped", "torch finds no accelerator here")


@pytest.fixture
def scheduled_as_before():
    yield
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.mark.usefixtures("scheduled_as_before")
@pytest.mark.parametrize(
    ("check", "right", "wrong", "says"), [pytest.param(*row, id=f"{row[0]}-{row[2]}") for row in WRONG]
)
def test_each_check_fails_its_toy_and_no_other_check_does(check, right, wrong, says, request):
    if check == "check_accelerator":
        request.getfixturevalue("accelerator")
    component = replace(right, **({"target": f"{home(right.kind)}:{wrong}"} if isinstance(wrong, str) else wrong))
    failed = {outcome.check: outcome.reason for outcome in outcomes(component) if outcome.result == "failed"}
    assert re.search(f"(?s){says}", failed[check])
    assert failed.keys() - ALSO.get(str(wrong), set()) == {check}


def test_no_check_is_without_a_toy_that_fails_it_alone():
    all_checks = {(toy.kind, check.name) for toy in TOYS for check in checks_for(toy)}
    alone = {(right.kind, check) for check, right, wrong, _ in WRONG if str(wrong) not in ALSO}
    of_any_kind = {check.__name__ for check in records.checks(ENTROPY)}
    assert {name for _, name in alone} >= of_any_kind
    assert {(kind, name) for kind, name in all_checks if name not in of_any_kind} <= alone
