"""Steps that recipes of Encoders of clips share: attention learns which frames and pixels a frozen backbone needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from semcodec.errors import UsageError
from semcodec.interfaces import Features, Selector
from semcodec.pipeline.selection import Keep, covers
from semcodec.tensors import beside
from semcodec.training.frame_attention import FrameAttention, keep_frames
from semcodec.training.loop import Batch, Job, Step, top1

EPS = 1e-6
"""Keeps logits of saturated attention finite."""


class Exploring(Selector):
    """Draws a selection with odds M / (1 - M) instead of taking the best: Gumbel noise on the logits of M.

    Hard top-k alone would keep what it happens to keep at first, and learn nothing of the rest. ``order`` are the
    units (B, ..., N) as they were last drawn, the kept ones first.
    """

    order: Tensor

    def __init__(self, selector: Selector, rng: np.random.Generator) -> None:
        self.selector, self.rng = selector, rng

    def keep(self, scores: Tensor, budget: float | int | None, sequence: Sequence[int]) -> Tensor:
        noise = beside(self.rng.gumbel(size=tuple(scores.shape)).astype(np.float32), scores)
        drawn = scores.float().logit(eps=EPS) + noise
        self.order = drawn.argsort(dim=-1, descending=True)
        return self.selector.keep(drawn, budget, sequence)

    def log_probability(self, scores: Tensor, kept: int) -> Tensor:
        """(B,) of the first ``kept`` of a draw without replacement (Plackett and Luce)."""
        logits = scores.float().logit(eps=EPS).gather(1, self.order)
        rest = logits.flip(1).logcumsumexp(1).flip(1)
        return (logits - rest)[:, :kept].sum(1)


def draw_for(job: Job, batch: Batch, target: str, units: int) -> Keep:
    """Budgets of which ``target``'s drops something: where nothing is dropped nothing is learned."""
    keep = job.draw(batch.rng)
    return draw_for(job, batch, target, units) if covers(keep[target][1], units) else keep


def grade(job: Job, features: Features, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy (B,) and accuracy of the backbone's answers."""
    backbone: Any = job.modules["backbone"]
    logits: Tensor = backbone.tail(features, job.cut)
    return F.cross_entropy(logits, batch.labels, reduction="none"), {"top1": top1(logits, batch.labels)}


def learned_targets(job: Job, units: Mapping[str, int]) -> dict[str, bool]:
    """By target, whether its attention chooses anything. Raises UsageError for what attention cannot learn from."""
    learned = {
        target: selector.uses_scores and (target in job.free or not covers(budget, units[target]))
        for target, (selector, budget) in job.keep.items()
    }
    if any(learned[target] and budget is None for target, (_, budget) in job.keep.items()):
        raise UsageError("train with top-k: a threshold selects by attention that has been learned already")
    return learned


def frame_step(job: Job, attention: FrameAttention, samples: int, batch: int) -> Step:
    """Lines 2 to 4: frame attention learns which frames a frozen ViT needs, at budgets drawn for every batch.

    By the straight-through gradient, and that of the expected loss over draws: frames are few, and what one that was
    dropped would have brought is not in the loss.
    """

    def attend(b: Batch) -> tuple[Tensor, dict[str, float]]:
        selector, budget = draw_for(job, b, "frames", b.pixels.shape[1])["frames"]
        explore = Exploring(selector, b.rng)
        scores = attention(b.pixels)
        mask = explore.keep(scores.detach(), budget, b.sequence)
        frames, index = keep_frames(b.pixels, mask, scores)
        losses, metrics = grade(job, {"frames": frames, "index": index}, b)
        log_probability = explore.log_probability(scores, index.shape[1])
        advantage = (losses - losses.mean()).detach()
        return losses.mean() + (advantage * log_probability).mean(), metrics

    return Step("frame attention", [attention], attend, samples, 1e-2, batch)
