"""Each selection rule keeps what its definition says, row by row, the same on every run and in every batch."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import semcodec
from semcodec.composition.binding import Binder
from semcodec.composition.composition import compose_spec
from semcodec.composition.grammar import parse_item
from semcodec.composition.registry import Registry
from semcodec.container.sinks import PacketSource
from semcodec.data.datasets import open_dataset
from semcodec.errors import SemcodecError, UsageError
from semcodec_plugins.selectors import semcodec_components
from semcodec_plugins.selectors.rules import AttentionSum, AttentionThreshold, RandomSubset, TopK

quick = settings(derandomize=True, deadline=None, max_examples=60)
rows = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 6), min_size=n, max_size=n), min_size=1, max_size=4)
)


def test_records_build_the_classes_with_their_build_parameters():
    registry = Registry.of(semcodec_components())
    scores = torch.rand(2, 10)
    for text in ("top-k", "random:seed=3", "attention-threshold:0.2", "attention-sum"):
        item = parse_item(text)
        bound = Binder(registry, text).bind(registry.find(item.name), item)
        selector = registry.load(bound.component)(**bound.build)
        mask = selector.keep(scores, 4 if bound.component.traits.get("budget") else None, [0, 1])
        assert mask.shape == scores.shape
        assert mask.dtype == torch.bool
        assert selector.uses_scores == (item.name != "random")


@quick
@given(rows, st.integers(1, 14))
def test_top_k_keeps_the_best_and_the_lower_index_of_equals(scores, count):
    mask = TopK().keep(torch.tensor(scores).float(), count, range(len(scores)))
    for row, kept in zip(scores, mask.tolist(), strict=True):
        best = sorted(range(len(row)), key=lambda i: (-row[i], i))[:count]
        assert [i for i, k in enumerate(kept) if k] == sorted(best)


def test_a_long_row_of_equals_keeps_its_beginning():
    mask = TopK().keep((torch.arange(20000) % 2).float()[None], 3000, [0])  # short sorts are stable anyhow
    assert mask[0].nonzero().flatten().tolist() == list(range(1, 6000, 2))


@pytest.mark.parametrize(
    ("budget", "units", "kept"),
    [(0.4, 10, 4), (0.35, 10, 4), (0.3, 9, 3), (0.01, 9, 1), (1.0, 7, 7), (1, 7, 1), (9, 7, 7), (0.5, 5, 3), (3, 0, 0)],
)
@pytest.mark.parametrize("rule", [TopK, RandomSubset])
def test_budgets_count_units_or_are_a_fraction(rule, budget, units, kept):
    scores = torch.rand(2, 3, units)
    mask = rule().keep(scores, budget, [5, 6])
    assert mask.shape == scores.shape
    assert (mask.sum(-1) == kept).all()
    assert torch.equal(rule(budget).keep(scores, None, [5, 6]), mask)


@pytest.mark.parametrize("rule", [TopK, RandomSubset])
@pytest.mark.parametrize("budget", [0, -1, 0.0, 1.5, float("nan"), None])
def test_a_budget_of_nothing_is_refused(rule, budget):
    with pytest.raises(UsageError, match="budget"):
        rule().keep(torch.rand(1, 4), budget, [0])


def test_random_is_the_same_in_any_batch_and_new_for_every_sample_and_seed():
    scores = torch.rand(6, 4, 50)
    together = RandomSubset(seed=1).keep(scores, 0.3, range(6))
    for i in (0, 3, 5):
        assert torch.equal(RandomSubset(seed=1).keep(scores[i : i + 1] * 0, 0.3, [i])[0], together[i])
    assert torch.equal(RandomSubset(seed=1).keep(scores.flip(0), 0.3, [5, 4, 3, 2, 1, 0]).flip(0), together)
    assert len({tuple(row) for row in together.reshape(24, 50).tolist()}) == 24
    assert not torch.equal(RandomSubset(seed=2).keep(scores, 0.3, range(6)), together)
    with pytest.raises(ValueError, match="zip"):
        RandomSubset().keep(scores, 0.3, [1])


def test_random_is_uniform():
    """Each of 8 units is kept in half of 4,000 draws; the bound is five standard deviations of such a count."""
    mask = RandomSubset().keep(torch.zeros(4000, 8), 4, range(4000))
    assert (mask.sum(0) - 2000).abs().max() < 5 * 1000**0.5
    pairs = (mask[:, :1] & mask[:, 1:]).sum(0)  # two given units: 4/8 * 3/7
    assert (pairs - 4000 * 3 / 14).abs().max() < 5 * (4000 * 3 / 14 * 11 / 14) ** 0.5


@quick
@given(rows, st.integers(-1, 7))
def test_threshold_keeps_what_reaches_it_and_at_least_the_best(scores, threshold):
    mask = AttentionThreshold(threshold).keep(torch.tensor(scores).float(), None, range(len(scores)))
    for row, kept in zip(scores, mask.tolist(), strict=True):
        reach = [score >= threshold for score in row]
        assert kept == (reach if any(reach) else [i == row.index(max(row)) for i in range(len(row))])


@quick
@given(rows, st.integers(0, 20))
def test_sum_is_the_smallest_set_of_highest_scores_that_reaches_the_share(scores, twentieths):
    mask = AttentionSum(twentieths / 20).keep(torch.tensor(scores).float(), None, range(len(scores)))
    for row, kept in zip(scores, mask.tolist(), strict=True):
        mass = row if any(row) else [1] * len(row)
        order = sorted(range(len(row)), key=lambda i: (-row[i], i))
        share = Fraction(twentieths, 20) * sum(mass)
        need = next(k for k in range(1, len(row) + 1) if sum(mass[i] for i in order[:k]) >= share)
        assert [i for i, k in enumerate(kept) if k] == sorted(order[:need])


def test_sum_of_equal_scores_in_float32_and_of_one_that_dominates():
    assert AttentionSum(0.9).keep(torch.full((1, 10), 0.1), None, [0]).sum() == 9
    assert AttentionSum(0.97).keep(torch.tensor([[0.001, 0.998, 0.001]]), None, [0]).tolist() == [[False, True, False]]


@pytest.mark.parametrize("rule", [TopK(2), AttentionThreshold(0.1), AttentionSum(0.9)])
def test_nan_scores_are_refused(rule):
    with pytest.raises(SemcodecError, match="not numbers"):
        rule.keep(torch.tensor([[0.1, float("nan"), 0.3]]), None, [0])
    assert rule.keep(torch.zeros(0, 5), None, []).shape == (0, 5)


@pytest.mark.parametrize("bad", [-0.1, float("inf")])
def test_sum_refuses_scores_that_have_no_share(bad):
    with pytest.raises(SemcodecError, match="finite scores of at least 0"):
        AttentionSum(0.9).keep(torch.tensor([[0.5, bad]]), None, [0])


def test_each_frame_of_a_clip_is_a_row_of_its_own():
    scores = torch.rand(2, 16, 64 * 64)
    for rule in (TopK(0.4), RandomSubset(0.4)):
        assert (rule.keep(scores, None, [0, 1]).sum(-1) == 1638).all()


# -- frames and pixels of clips ----------------------------------------------------------------------------------------

OF_FRAMES = ("top-k@frames:3", "attention-threshold@frames:0.5", "attention-sum@frames:0.6")
OF_PIXELS = ("top-k@pixels:0.25", "attention-threshold@pixels:0.95", "attention-sum@pixels:0.3")
LEAST_FRAMES = ("top-k@frames:1", "attention-threshold@frames:2", "attention-sum@frames:0")
LEAST_PIXELS = {"top-k@pixels:0.01": 41, "attention-threshold@pixels:2": 1, "attention-sum@pixels:0": 1}


@pytest.fixture(scope="module")
def stae():
    return semcodec.compose("stae+rans+vit-nano")


@pytest.fixture(scope="module")
def clips(stae):
    return open_dataset("digits-motion", "test", stae.request).batch([3, 7, 11])[0]


def sent(stae, selectors, clips):
    """By clip, which frames travelled and which pixels of those: (T,) and (k, H, W), as read from the bytes."""
    pipeline = stae.replace(composition=compose_spec(f"stae+{selectors}+rans+vit-nano"))
    encoded = pipeline.encode_batch(clips, range(len(clips)))
    assert all(np.isfinite(p.logits).all() for p in pipeline.decode_batch(pipeline.records(encoded)))
    found = []
    for packet in pipeline.records(encoded):
        source = PacketSource(packet, pipeline.stages.entropy, packet.params)
        latent = pipeline.stages.encoder.read(source)
        source.finish()
        found.append((latent.symbols["kept"], latent.symbols["mask"]))
    return found


def scores_of(stae, clips, kept=None):
    """STAE's scores of frames (B, T), or of the pixels of the frames ``kept`` (B, k, H * W)."""
    with torch.inference_mode():
        analysis = stae.stages.encoder.analyse(stae.stages.backbone.head(stae.features(clips), "input"))
        if kept is None:
            return stae.stages.encoder.scores(analysis, "frames", {})
        return stae.stages.encoder.scores(analysis, "pixels", {"frames": kept})


@pytest.mark.parametrize("of_frames", OF_FRAMES)
@pytest.mark.parametrize("of_pixels", OF_PIXELS)
def test_the_rules_serve_the_frames_and_pixels_of_stae(stae, clips, of_frames, of_pixels):
    for clip in clips[:, None]:
        [(kept, mask)] = sent(stae, f"{of_frames}+{of_pixels}", clip)
        frames = rule(of_frames).keep(scores_of(stae, clip), 3, [0])
        assert 0 < kept.sum() < 16
        assert kept.tolist() == frames[0].tolist()
        pixels = rule(of_pixels).keep(scores_of(stae, clip, frames), None, [0])
        assert 0 < mask.sum() < mask.size
        assert mask.reshape(len(mask), -1).tolist() == pixels[0].tolist()


@pytest.mark.parametrize("frames", LEAST_FRAMES)
@pytest.mark.parametrize(("pixels", "count"), LEAST_PIXELS.items())
def test_at_least_one_frame_and_one_pixel_of_it_are_sent(stae, clips, frames, pixels, count):
    for kept, mask in sent(stae, f"{frames}+{pixels}", clips):
        assert kept.sum() == 1
        assert mask.sum() == count


def test_clips_of_a_batch_may_keep_different_numbers_of_frames(stae, clips):
    selectors = "attention-sum@frames:0.5+attention-sum@pixels:0.2"
    together = sent(stae, selectors, clips)
    alone = [sent(stae, selectors, clip)[0] for clip in clips[:, None]]
    for (kept, mask), (kept_alone, mask_alone) in zip(together, alone, strict=True):
        assert (kept == kept_alone).all()
        assert (mask == mask_alone).all()


def rule(text):
    item = parse_item(text)
    registry = Registry.of(semcodec_components())
    built = Binder(registry, text).bind(registry.find(item.name), item).build
    return registry.load(registry.find(item.name))(**built)
