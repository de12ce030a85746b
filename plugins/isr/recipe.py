"""How the super-resolution network learns: L1, on small images of which most went through a picture codec.

The codec, as the encoder is, is drawn at random, so that one set of weights serves every coding and quality.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from semcodec.coding.pictures import decode_picture, encode_picture
from semcodec.errors import UsageError
from semcodec.tensors import eight_bits, from_eight_bits
from semcodec.training.loop import Batch, Job, Step
from semcodec_plugins.isr.encoder import shrink
from semcodec_plugins.isr.super_resolution import SuperResolution, bicubic

CODINGS = ("webp", "jpeg", "avif", "png")
CLEAN = 0.25
"""Share of batches that no codec touched."""


def encode_and_decode(image: Tensor, rng: np.random.Generator) -> Tensor:
    """A batch as it arrives from a codec and quality that are drawn once."""
    if rng.random() < CLEAN:
        return from_eight_bits(eight_bits(image)).to(image.device)
    coding, quality = str(rng.choice(CODINGS)), int(rng.integers(30, 96))
    sent = [encode_picture(one, coding, quality) for one in eight_bits(image)]
    pixels = image.shape[-2] * image.shape[-1]
    found = [from_eight_bits(decode_picture(one, pixels, (coding,))) for one in sent]
    return torch.stack(found).to(image.device)


def recipe(job: Job) -> list[Step]:
    """The backbone's own recipe where it has no weights, then ``sr``. Raises UsageError for another recoverer."""
    network = job.modules.get("recoverer")
    if not isinstance(network, SuperResolution):
        raise UsageError("isr trains sr: leave out any other recoverer")
    scale = network.scale

    def enlarge(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        small = encode_and_decode(shrink(batch.pixels, scale), batch.rng)
        error = F.l1_loss(network(small), batch.pixels)
        plain = F.l1_loss(bicubic(small, scale), batch.pixels)
        return error, {"l1": error.item(), "bicubic": plain.item()}

    steps = [] if "backbone" in job.ready or job.backbone_recipe is None else job.backbone_recipe(job)
    samples = min(100_000, 4 * len(job.dataset))
    return [*steps, Step("super-resolution", [network], enlarge, samples, 1e-3, 16, weight_decay=0.0)]
