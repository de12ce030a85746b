"""Each gate sends by its definition, in bits where it is an entropy, whatever the size of the logits."""

from __future__ import annotations

import math

import cli_toys
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import semcodec
import semcodec.composition.composition
from semcodec.composition.binding import Binder
from semcodec.composition.composition import compose_spec
from semcodec.composition.grammar import parse_item
from semcodec.composition.registry import Registry, get_registry
from semcodec.errors import SemcodecError, SpecError
from semcodec_plugins.selectors import semcodec_components
from semcodec_plugins.selectors.gates import Always, Margin, MinEntropy, Never, ShannonEntropy

quick = settings(derandomize=True, deadline=None, max_examples=60)
answers = st.integers(1, 6).flatmap(
    lambda n: st.lists(st.lists(st.integers(1, 50), min_size=n, max_size=n), min_size=1, max_size=4)
)
NAMES = ("min-entropy", "shannon-entropy", "margin", "always", "never")
SURE, HALF, FLAT = [0.97, 0.02, 0.01, 0.0], [0.5, 0.5, 0.0, 0.0], [0.25] * 4


def bound(text):
    item = parse_item(text)
    registry = Registry.of(semcodec_components())
    found = Binder(registry, text).bind(registry.find(item.name), item)
    return registry.load(found.component)(**found.build)


def logits(*probabilities, shift=0.0):
    return torch.tensor(probabilities, dtype=torch.float64).log() + shift


@pytest.mark.parametrize("name", NAMES)
def test_records_build_the_gates(name):
    sent = bound(name).gate(logits(SURE, FLAT).float())
    assert sent.tolist() == {"always": [True, True], "never": [False, False]}.get(name, [False, True])


def test_min_entropy_defaults_to_the_papers_threshold_and_has_its_sweep():
    threshold = Registry.of(semcodec_components()).find("min-entropy").param("threshold")
    assert threshold.default == 0.8
    assert threshold.values == (1, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1)
    assert bound("min-entropy").threshold == 0.8
    assert bound("min-entropy:0.3").threshold == 0.3
    with pytest.raises(SpecError, match="threshold"):
        bound("min-entropy:-1")


@quick
@given(answers, st.sampled_from([0.1, 0.4, 0.8, 1.0, 1.7]))
def test_gates_follow_their_definitions(weights, threshold):
    p = [[w / sum(row) for w in row] for row in weights]
    prediction = logits(*p, shift=3.0)
    for gate, measure in (
        (MinEntropy, lambda row: -math.log2(max(row))),
        (ShannonEntropy, lambda row: -sum(x * math.log2(x) for x in row)),
    ):
        expected = [measure(row) for row in p]
        if all(abs(bits - threshold) > 1e-9 for bits in expected):
            assert gate(threshold).gate(prediction).tolist() == [bits >= threshold for bits in expected]
    margins = [max(row) - (sorted(row)[-2] if len(row) > 1 else 0) for row in p]
    if all(abs(margin - threshold) > 1e-9 for margin in margins):
        assert Margin(threshold).gate(prediction).tolist() == [margin < threshold for margin in margins]


def test_entropies_are_in_bits_and_the_threshold_itself_is_sent():
    table = logits(HALF, FLAT)
    assert MinEntropy(0).bits(table).tolist() == pytest.approx([1, 2])
    assert ShannonEntropy(0).bits(table).tolist() == pytest.approx([1, 2])
    assert MinEntropy(0).bits(logits(SURE)).item() == pytest.approx(-math.log2(0.97))
    even = torch.zeros(1, 2)
    assert MinEntropy(1.0).gate(even).item()
    assert ShannonEntropy(1.0).gate(even).item()
    assert not MinEntropy(math.nextafter(1, 2)).gate(even).item()


def test_the_two_entropies_differ_where_one_class_leads_a_long_tail():
    tail = logits([0.6] + [0.4 / 99] * 99)
    assert not MinEntropy(0.8).gate(tail).item()
    assert ShannonEntropy(0.8).gate(tail).item()


@pytest.mark.parametrize("gate", [MinEntropy(1e-6), ShannonEntropy(1e-6), Margin(0.999)])
def test_huge_logits_are_measured_right(gate):
    huge = torch.tensor([[1e30, 0.0, -1e30], [1e30, 1e30, 0.0], [-3e38, 3e38, 0.0], [5.0, -math.inf, 5.0]])
    assert gate.gate(huge).tolist() == [False, True, False, True]


def test_doubt_below_float32_is_still_seen():
    nearly = torch.tensor([[20.0, 0.0]])  # p = 1 - 2e-9, which is 1 in float32
    assert MinEntropy(1e-9).gate(nearly).item()
    assert not MinEntropy(1e-8).gate(nearly).item()


@pytest.mark.parametrize("gate", [MinEntropy(0.1), ShannonEntropy(0.1), Margin(0.9), Never()])
def test_an_answer_that_is_none_is_refused(gate):
    for bad in ([0.0, math.nan], [math.inf, 0.0], [-math.inf, -math.inf]):
        with pytest.raises(SemcodecError, match="holds NaN or infinity") as error:
            gate.gate(torch.tensor([[1.0, 2.0], bad]))
        assert "\n" not in str(error.value)
    assert Always().gate(torch.tensor([[0.0, math.nan]])).tolist() == [True]


def test_one_class_leaves_no_doubt():
    one = torch.tensor([[4.0], [-1e9]])
    for gate in (MinEntropy(0.1), ShannonEntropy(0.1), Margin(1.0)):
        assert gate.gate(one).tolist() == [False, False]
    assert MinEntropy(0.0).gate(one).tolist() == [True, True]


@pytest.mark.parametrize("gate", [MinEntropy(0.1), ShannonEntropy(0.1), Margin(0.9), Always(), Never()])
def test_no_sample_gives_no_decision(gate):
    sent = gate.gate(torch.zeros(0, 3))
    assert sent.shape == (0,)
    assert sent.dtype == torch.bool


# -- in a pipeline -----------------------------------------------------------------------------------------------------


@pytest.fixture
def answering(monkeypatch):
    """A device that is the surer of "bright", the brighter the brightest pixel, and knows nothing of a black image."""
    registry = Registry.of([*get_registry(), *cli_toys.COMPONENTS])
    monkeypatch.setattr(semcodec.composition.composition, "get_registry", lambda: registry)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_sure_stays_on_the_device(answering, name):
    made = semcodec.compose(f"nibbles+{name}+pack+brightness")
    images = np.stack([np.full((24, 24, 3), value, np.uint8) for value in (128, 0, 255)])
    encoded = made.encode_batch(images, range(3))
    sent = {"always": [True] * 3, "never": [False] * 3}.get(name, [False, True, False])
    assert [e.bytes_total > 0 for e in encoded] == sent
    answers = made.decode_batch(made.records(encoded))
    assert [a.where for a in answers] == ["server" if was else "device" for was in sent]
    assert [answers[0].name, answers[2].name] == ["bright", "bright"]


def test_one_gate_is_enough_and_it_needs_an_answer(answering):
    with pytest.raises(SpecError, match="min-entropy already decides what is sent"):
        compose_spec("nibbles+min-entropy+margin+pack+brightness")
    with pytest.raises(SpecError, match="stae makes none"):
        compose_spec("stae+min-entropy+rans+vit-nano")
