"""Selectors run without torch: rules by one numpy form that chooses what torch chose, gates by a form for each."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from semcodec.errors import SemcodecError
from semcodec_plugins.selectors.gates import Always, Margin, MinEntropy, Never, ShannonEntropy
from semcodec_plugins.selectors.rules import AttentionSum, AttentionThreshold, RandomSubset, TopK

quick = settings(derandomize=True, deadline=None, max_examples=150)
NUMBERS = [7, 0, 1 << 40]


def floats(low, **more):
    """Some of few levels, so that there are ties, others of any."""
    levels = st.integers(0, 4).map(lambda level: level / 8)
    return levels | st.floats(low, width=32, allow_infinity=False, **more)


def scores(low=0.0):
    shapes = st.tuples(st.just(3), st.integers(1, 24)) | st.tuples(st.just(3), st.just(2), st.integers(1, 9))
    return shapes.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=floats(low)))


def ranked(values):
    return values.argsort(dim=-1, descending=True, stable=True)


def first(order, count):
    return torch.zeros_like(order, dtype=torch.bool).scatter_(-1, order[..., :count], True)


def drawn(shape, seed):
    out = torch.empty(shape, dtype=torch.float64)
    for row, number in zip(out, NUMBERS, strict=True):
        stream = np.random.Philox(key=np.array([seed, number], np.uint64), counter=[0, 0, 0, shape[-1]])
        row.copy_(torch.from_numpy(np.random.Generator(stream).random(tuple(row.shape))))
    return out


def share(values, threshold):
    order = ranked(values)
    mass = values.double().gather(-1, order)
    mass = torch.where(mass.sum(-1, keepdim=True) > 0, mass, 1.0)
    held = mass.cumsum(-1)
    needed = held - mass < (threshold - 1e-12) * held[..., -1:]
    needed[..., 0] = True
    return torch.zeros_like(needed).scatter_(-1, order, needed)


@quick
@given(scores(-8.0), st.integers(1, 12), st.integers(0, 5))
def test_ranks_and_draws_are_those_of_torch(values, count, seed):
    given_ = torch.from_numpy(values)
    kept = min(count, values.shape[-1])
    assert torch.equal(TopK().keep(given_, count, NUMBERS), first(ranked(given_), kept))
    wanted = first(ranked(drawn(values.shape, seed)), kept)
    assert torch.equal(RandomSubset(seed=seed).keep(given_, count, NUMBERS), wanted)


@quick
@given(scores(), st.floats(0, 1), st.booleans())
def test_thresholds_and_shares_are_those_of_torch(values, threshold, reached):
    given_ = torch.from_numpy(values)
    threshold = float(values.flat[0]) if reached else threshold
    wanted = first(ranked(given_), 1) | (given_ >= threshold)
    assert torch.equal(AttentionThreshold(threshold).keep(given_, None, NUMBERS), wanted)
    if threshold <= 1:
        assert torch.equal(AttentionSum(threshold).keep(given_, None, NUMBERS), share(given_, threshold))


@pytest.mark.parametrize("threshold", [0.001, 0.002, 0.005, 0.01, 0.02, 0.1])
def test_a_score_of_the_threshold_itself_is_decided_as_by_torch(threshold):
    near = np.nextafter(np.float32(threshold), np.float32([0, 1]))
    values = torch.tensor([[threshold, *near.tolist(), 0.9]])
    wanted = first(ranked(values), 1) | (values >= threshold)
    assert torch.equal(AttentionThreshold(threshold).keep(values, None, [0]), wanted)


def test_infinite_scores_are_ranked_as_by_torch():
    values = torch.tensor([[0.0, math.inf, -0.0, -math.inf, math.inf, 1.0]])
    for count in range(1, 7):
        assert torch.equal(TopK().keep(values, count, [0]), first(ranked(values), count))


logits = st.tuples(st.just(4), st.integers(1, 12)).flatmap(
    lambda shape: arrays.arrays(np.float32, shape, elements=floats(-3e4, max_value=3e4) | st.just(-math.inf))
)
thresholds = st.sampled_from([0.1, 0.2, 0.4, 0.8, 1.0, 1.5, 2.0, 3.0]) | st.floats(0, 3)


@quick
@given(logits, thresholds)
def test_both_forms_of_a_gate_choose_alike(prediction, threshold):
    assume(np.isfinite(prediction).any(1).all())
    answer = torch.from_numpy(prediction)
    for gate in (MinEntropy(threshold), ShannonEntropy(threshold), Margin(threshold)):
        differ = gate.gate(answer).numpy() != gate.gate_array(prediction)
        for row in np.flatnonzero(differ):
            near = [type(gate)(threshold + by).gate_array(prediction[row : row + 1])[0] for by in (-1e-12, 1e-12)]
            assert near[0] != near[1]  # but for a doubt that is the threshold to within rounding
    for gate in (Always(), Never()):
        assert gate.gate(answer).tolist() == gate.gate_array(prediction).tolist()


@pytest.mark.parametrize("classes", [2, 4, 8])
def test_both_forms_send_what_is_at_the_threshold_itself(classes):
    even = np.zeros((1, classes), np.float32)
    gate = MinEntropy(math.log2(classes))
    assert gate.gate_array(even).tolist() == gate.gate(torch.from_numpy(even)).tolist() == [True]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("gate", [MinEntropy(0.8), ShannonEntropy(1.0), Margin(0.4), Never()], ids=lambda g: type(g))
def test_the_numpy_form_refuses_an_answer_that_is_none(gate, bad):
    for row in ([0.0, bad, 1.0], [-math.inf] * 3):
        with pytest.raises(SemcodecError, match="NaN or infinity"):
            gate.gate_array(np.array([[0.0, 1.0, 2.0], row], np.float32))


def test_selectors_run_where_there_is_no_torch():
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from semcodec.composition.composition import compose_spec
from semcodec.composition.registry import get_registry
from semcodec_plugins.selectors import semcodec_components
for c in semcodec_components():
    selector = get_registry().load(c)(**{p.name: p.default for p in c.params if p.when == "build"})
    [ability] = c.traits["abilities"]
    if ability == "keep":
        mask = selector.keep_array(np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 12), 4, [3])
        assert mask.dtype == bool and mask.any()
    elif ability == "gate":
        assert selector.gate_array(np.zeros((2, 5), np.float32)).shape == (2,)
    else:
        [knobs] = selector.point(compose_spec(c.traits["example"]), [0])
        assert knobs
    print(c.name)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 10
