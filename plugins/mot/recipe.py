"""How the masked autoencoder learns: mean squared error of pixels on what was dropped.

MAE's targets are normalised within each patch, which suits pretraining; a server that must see the picture would
lack each patch's mean and contrast, so plain pixels are learned here. The share that is kept is drawn for each batch,
so that one set of weights serves them all.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from semcodec.errors import UsageError
from semcodec.tensors import beside
from semcodec.training.loop import Batch, Job, Step
from semcodec_plugins.mot.autoencoder import MaskedAutoencoder, smooth

KEPT = (0.25, 0.9)
"""Share of the patches that the autoencoder sees in training."""


def recipe(job: Job) -> list[Step]:
    """The backbone's own recipe where it has no weights, then ``mae``. Raises UsageError for another recoverer."""
    network = job.modules.get("recoverer")
    if not isinstance(network, MaskedAutoencoder):
        raise UsageError("mot and a-mot train mae: leave out any other recoverer")
    count = network.rows * network.columns

    def rebuild(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        keep = max(1, round(batch.rng.uniform(*KEPT) * count))
        drawn = beside(batch.rng.random((len(batch.pixels), count)), batch.pixels).argsort(1)
        mask = (drawn < keep).float().view(-1, 1, network.rows, network.columns)
        present = F.interpolate(mask, scale_factor=network.side, mode="nearest")
        missing = (1 - present).expand_as(batch.pixels)

        def error(image: Tensor) -> Tensor:
            return ((image.float() - batch.pixels).square() * missing).sum() / missing.sum()

        loss = error(network(batch.pixels, present))
        return 10 * loss, {"mse": loss.item(), "smooth fill": error(smooth(batch.pixels, present)).item()}

    steps = [] if "backbone" in job.ready or job.backbone_recipe is None else job.backbone_recipe(job)
    samples = min(200_000, 10 * len(job.dataset))
    return [*steps, Step("masked autoencoder", [network], rebuild, samples, 1e-3, 32)]
