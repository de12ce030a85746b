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

from torch import Tensor

from semcodec.interfaces import Features
from semcodec.pipeline.selection import Keep, covers
from semcodec.training.frame_steps import Exploring, draw_for, frame_step, grade, learned_targets
from semcodec.training.loop import Batch, Job, Step
from semcodec_plugins.stae.encoder import STAE

RECONSTRUCTION = 0.5
"""Weight of the L1 loss on missing pixels, beside cross-entropy."""


def recipe(job: Job) -> list[Step]:
    """The steps that the module names, less those whose budgets the spec sets to everything."""
    stae, backbone = job.modules["encoder"], job.modules["backbone"]
    assert isinstance(stae, STAE)
    recoverer = job.modules.get("recoverer")
    learned = learned_targets(job, stae.units)

    def draw(batch: Batch) -> Keep:
        return draw_for(job, batch, "pixels", stae.units["pixels"])

    def score(features: Features, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        return grade(job, features, batch)

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
