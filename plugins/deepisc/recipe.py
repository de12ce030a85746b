"""How DeepISC learns.

1. The backbone, if it comes without weights, by its own recipe.
2. Frame attention, as STAE's, of clips whose frames are chosen by it.
3. Latent, segmentation and synthesiser together: what is synthesised shall look like the frame. No pixel has a label:
   classes are learned by a straight-through Gumbel softmax.
4. The same, and the backbone, frozen, shall answer right from what is synthesised: what the classes shall tell apart.
5. The symbols of the latent and of the segmentation are counted.
6. Synthesiser and backbone together at budgets drawn for every batch, on as many samples as STAE's last step.

Where the Encoder's weights are given there is nothing but the last step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from semcodec.interfaces import Analysis, Features
from semcodec.pipeline.selection import select
from semcodec.tensors import as_array, beside
from semcodec.training.frame_attention import numbers_of
from semcodec.training.frame_steps import frame_step, learned_targets
from semcodec.training.loop import Batch, Job, Step
from semcodec_plugins.deepisc.networks import one_hot, pad
from semcodec_plugins.deepisc.residual import positions
from semcodec_plugins.deepisc.spec import LATENT_BITS

RECONSTRUCTION = 10.0
"""Weight of the L1 error, values in [0, 1], beside the task's loss."""
LOOKED_AT = 2
"""Frames of a clip that its look is learned from, at random."""
CALIBRATION = 512
"""Samples that symbols are counted on."""
FEW = 2000
"""Samples, below which a data set is small."""


def recipe(job: Job) -> list[Step]:
    """The steps that the module names."""
    encoder: Any = job.modules["encoder"]
    backbone: Any = job.modules["backbone"]
    shapes = encoder.shapes
    learned = learned_targets(job, encoder.units)

    def choose(batch: Batch) -> tuple[Tensor, Tensor]:
        """Kept frames (B, k, 3, H, W) and their numbers (B, k), at a budget drawn for this batch."""
        frames = batch.pixels.view(-1, shapes.total, 3, shapes.height, shapes.width)
        with torch.no_grad():
            masks, _ = select(encoder, Analysis({shapes.name: batch.pixels}), job.draw(batch.rng), batch.sequence)
        mask = masks.get("frames", frames.new_ones(frames.shape[:2], dtype=torch.bool))
        index = numbers_of(mask)
        return frames[torch.arange(len(frames), device=frames.device)[:, None], index], index

    def features(frames: Tensor, index: Tensor) -> Features:
        return {"image": frames[:, 0]} if shapes.name == "image" else {"frames": frames, "index": index}

    def synthesise(frames: Tensor, batch: Batch) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Of frames (B, k, 3, H, W), with a gradient to all three networks, and the L1 error."""
        x = pad(frames.flatten(0, 1))
        logits = encoder.segmentation(x).float()
        soft = (logits + beside(batch.rng.gumbel(size=tuple(logits.shape)).astype(np.float32), logits)).softmax(1)
        classes = one_hot(soft.argmax(1)) + soft - soft.detach()
        made = encoder.synthesiser(encoder.quantiser.soft(encoder.latent_encoder(x), LATENT_BITS), classes).float()
        made = made[..., : shapes.height, : shapes.width].view(frames.shape)
        error = (made - frames).abs().mean()
        used = soft.detach().mean((0, 2, 3))
        return made, error, {"l1": error.item(), "classes": float((-used * used.log()).sum().exp())}

    def look(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        frames = batch.pixels.view(-1, shapes.total, 3, shapes.height, shapes.width)
        some = batch.rng.integers(shapes.total, size=(len(frames), LOOKED_AT if shapes.total > 1 else 1))
        _, error, figures = synthesise(
            frames[torch.arange(len(frames), device=frames.device)[:, None], beside(some, frames)], batch
        )
        return RECONSTRUCTION * error, figures

    def mean(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        frames, index = choose(batch)
        made, error, figures = synthesise(frames, batch)
        task, answers = backbone.task_loss(features(made, index), job.cut, batch.labels)
        return task + RECONSTRUCTION * error, {**answers, **figures}

    def count(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        frames, _ = choose(batch)
        for clip in frames:
            x = pad(clip)
            encoder.quantiser.see(encoder.latent_encoder(x))
            encoder.tables.see(as_array(encoder.segmentation(x).argmax(1).byte()))
        return torch.zeros(()), {}

    def tune(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        frames, index = choose(batch)
        with torch.no_grad():
            x = pad(frames.flatten(0, 1))
            latent = encoder.quantiser.soft(encoder.latent_encoder(x).float(), LATENT_BITS)
            classes = one_hot(encoder.segmentation(x).argmax(1))
        made = encoder.synthesiser(latent, classes).float()[..., : shapes.height, : shapes.width].view(frames.shape)
        error = (made - frames).abs().mean()
        share, step = draw_param(job, batch, "pixels"), draw_param(job, batch, "step") / 255
        places = [positions(row, shapes.height, shapes.width, shapes.residuals(share)) for row in as_array(index)]
        mask = torch.stack([beside(place, frames) for place in places])[:, :, None]
        exact = (made + ((frames - made) / step).round() * step).clamp(0, 1).detach()
        task, figures = backbone.task_loss(features(torch.where(mask, exact, made), index), job.cut, batch.labels)
        return task + RECONSTRUCTION * error, {**figures, "l1": error.item()}

    few, clips, size = len(job.dataset) < FEW, shapes.name == "frames", len(job.dataset)
    networks = [encoder.latent_encoder, encoder.segmentation, encoder.synthesiser]
    steps = [] if "backbone" in job.ready or job.backbone_recipe is None else job.backbone_recipe(job)
    batch, lr = (8, 5e-5) if few else (32, 5e-4)
    if "encoder" not in job.ready:
        if clips and learned["frames"]:
            steps.append(frame_step(job, encoder.frame_attention, int((6 if few else 0.25) * size), batch))
        steps.append(Step("appearance", networks, look, (72 if few else 1 if clips else 3) * size, 3e-3, batch))
        steps.append(Step("meaning", networks, mean, int((6 if few else 0.25 if clips else 1) * size), 1e-3, 8))
        steps.append(Step("histograms", (), count, min(CALIBRATION, size), 0.0, 8, finish=encoder.settle))
    tuned = [encoder.synthesiser, backbone]
    steps.append(Step("tuning", tuned, tune, int((12 if few else 0.75) * size), lr, batch, statistics=False))
    return steps


def draw_param(job: Job, batch: Batch, name: str) -> Any:
    """A call parameter: as the spec sets it, or one of its usual values."""
    return job.call[name] if name in job.call else batch.rng.choice(job.budgets[name]).item()
