"""STAE's training, Algorithm 1, step by step.

1. The backbone, if it comes without weights, by its own recipe.
2. Frame attention, with the ViT frozen (lines 2-4).
3. Spatial attention on the kept frames, with ViT and frame attention frozen (lines 6-8).
4. Feature recovery and fine-tuning of the ViT, with both attentions frozen (lines 9-10); on small data sets recovery
   learns alone first.

The paper trains one model for each (frames, pixels); a spec that names both budgets does the same. Budgets
that the spec leaves open are drawn at random for every batch, and one set of weights serves them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.errors import UsageError
from semcodec.interfaces import Features, Selector
from semcodec.pipeline.selection import Keep, covers
from semcodec.training.loop import Batch, Job, Step, top1
from semcodec_plugins.stae.attention import FrameAttention, keep_frames

EPS = 1e-6  # keeps logits of saturated attention finite
RECONSTRUCTION = 0.5  # weight of the L1 loss on missing pixels, beside cross-entropy


class Exploring(Selector):
    """Draws a selection with odds M / (1 - M) instead of taking the best: Gumbel noise on the logits of M.

    Hard top-k alone would keep what it happens to keep at first, and learn nothing of the rest. ``order`` are the
    units (B, ..., N) as they were last drawn, the kept ones first.
    """

    order: Tensor

    def __init__(self, selector: Selector, rng: np.random.Generator) -> None:
        self.selector, self.rng = selector, rng

    def keep(self, scores: Tensor, budget: float | int | None, sequence: Sequence[int]) -> Tensor:
        noise = torch.from_numpy(self.rng.gumbel(size=tuple(scores.shape))).float().to(scores.device)
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


def graded(job: Job, features: Features, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy (B,) and accuracy of the backbone's answers."""
    logits = job.modules["backbone"].tail(features, job.cut)
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
        losses, metrics = graded(job, {"frames": frames, "index": index}, b)
        log_probability = explore.log_probability(scores, index.shape[1])
        advantage = (losses - losses.mean()).detach()
        return losses.mean() + (advantage * log_probability).mean(), metrics

    return Step("frame attention", [attention], attend, samples, 1e-2, batch)


def recipe(job: Job) -> list[Step]:
    stae, backbone = job.modules["encoder"], job.modules["backbone"]
    recoverer = job.modules.get("recoverer")
    learned = learned_targets(job, stae.units)

    def draw(batch: Batch) -> Keep:
        return draw_for(job, batch, "pixels", stae.units["pixels"])

    def score(features: Features, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return graded(job, features, batch)

    def attend_pixels(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        keep = dict(draw(batch))
        keep["pixels"] = (Exploring(keep["pixels"][0], batch.rng), keep["pixels"][1])
        partial, _ = stae(batch.pixels, keep, batch.sequence, fill=True)
        losses, metrics = score(partial.features, batch)
        return losses.mean(), metrics

    def fill(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Recovery where there is something to recover."""
        return recover(batch, draw(batch))

    def recover(batch: Batch, keep: Keep | None = None) -> tuple[Tensor, dict[str, float]]:
        partial, complete = stae(batch.pixels, keep or job.draw(batch.rng), batch.sequence)
        mask = partial.present.get("frames")
        if recoverer is None or mask is None:
            losses, metrics = score(partial.features, batch)
            return losses.mean(), metrics
        frames = recoverer(partial.features["frames"], mask)
        losses, metrics = score({**partial.features, "frames": frames}, batch)
        error = ((frames - complete).abs() * (1 - mask)).sum() / (3 * (1 - mask).sum()).clamp(min=1)
        return losses.mean() + RECONSTRUCTION * error, {**metrics, "l1": error.item()}

    few = len(job.dataset) < 2000
    attention, tuning = (6, 12) if few else (0.25, 0.75)  # passes over the data
    size, fine = int(attention * len(job.dataset)), int(tuning * len(job.dataset))
    batch, lr = (8, 5e-5) if few else (32, 5e-4)
    steps = [] if "backbone" in job.ready or job.backbone_recipe is None else job.backbone_recipe(job)
    if learned["frames"]:
        steps.append(frame_step(job, stae.frame_attention, size, batch))
    if learned["pixels"]:
        steps.append(Step("spatial attention", [stae.spatial_attention], attend_pixels, size, 1e-2, batch))
    # What a selector without attention saves is spent here: variants are trained equally long.
    fine += size * (2 - sum(learned.values()))
    dropped = "pixels" in job.free or not covers(job.keep["pixels"][1], stae.units["pixels"])
    if few and recoverer is not None and dropped:
        # A ViT that is tuned on so few clips bears only a small learning rate, at which recovery would not begin.
        steps.append(Step("recovery alone", [recoverer], fill, fine, 2e-3, batch))
    tuned = [module for module in (recoverer, backbone) if module is not None]
    steps.append(Step("recovery", tuned, recover, fine, lr, batch, statistics=False))
    return steps
