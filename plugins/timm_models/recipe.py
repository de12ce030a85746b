"""How the embedded image ViTs learn: from labels, and from a convolutional teacher at every token.

On a few thousand scenes the class token alone is too weak a signal: a plain ViT stays at chance for many epochs. So a
small convolutional network learns first, and then tells each token what it sees there and how much that matters
(token labelling: Jiang et al., 2021). Most batches lack random patches, so that the model knows what arrives when an
encoder selects.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.tensors import beside
from semcodec.training.augmentation import vary
from semcodec.training.loop import Batch, Job, Step, top1
from semcodec_plugins.timm_models.builtin import ViTNano

FEWEST = 0.3
"""Of the patches, in training."""


class Teacher(nn.Module):
    """(B, 3, H, W) to class logits (B, N, classes) and saliency logits (B, N) at every 8x8 pixels."""

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for channels, stride in ((16, 2), (32, 2), (width, 2), (width, 1), (width, 1), (width, 1)):
            layers += [nn.Conv2d(before, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
        self.net = nn.Sequential(*layers, nn.Conv2d(width, classes + 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See the class: both from one image."""
        logits = self.net(x).flatten(2).transpose(1, 2)
        return logits[..., :-1], logits[..., -1]


def pooled(logits: Tensor, saliency: Tensor) -> Tensor:
    """The image's logits (B, classes): the places', weighed by their saliency."""
    return (logits * saliency.softmax(1)[..., None]).sum(1)


def recipe(job: Job) -> list[Step]:
    """Two steps: the teacher, then the ViT with what reads its tokens."""
    backbone = job.modules["backbone"]
    assert isinstance(backbone, ViTNano)
    classes = len(backbone.classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher = job.auxiliary["teacher"] = Teacher(classes)
        reader = job.auxiliary["reader"] = nn.Linear(backbone.size.dim, classes + 1)

    def teach(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        logits = pooled(*teacher(backbone.normalised(vary(batch.pixels, batch.rng))))
        return F.cross_entropy(logits, batch.labels), {"top1": top1(logits, batch.labels)}

    def learn(batch: Batch) -> tuple[Tensor, dict[str, float]]:
        pixels = vary(batch.pixels, batch.rng)
        with torch.no_grad():
            seen, saliency = teacher(backbone.normalised(pixels))
            answer, weight = pooled(seen, saliency), saliency.softmax(1) * saliency.shape[1]
        places = saliency.shape[1]
        keep = round(places * batch.rng.uniform(FEWEST, 1)) if batch.rng.random() < 0.7 else places
        index = beside(batch.rng.random(saliency.shape), saliency).argsort(1)[:, :keep]
        logits, found = backbone.read(pixels, index)
        here = torch.arange(len(index), device=index.device)[:, None], index
        seen, weight = seen[here], weight[here]
        guess = reader(found)
        told = (weight * -(seen.softmax(-1) * guess[..., :-1].log_softmax(-1)).sum(-1)).mean()
        weighed = (guess[..., -1] - (weight + 1e-3).log().clamp(-3, 3)).square().mean()
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=0.05)
        loss = loss + F.cross_entropy(logits, answer.softmax(1)) + told + 0.3 * weighed
        return loss, {"top1": top1(logits, batch.labels), "tokens": told.item()}

    size = len(job.dataset)
    return [
        Step("teacher", [teacher], teach, min(45_000, 16 * size), 3e-3, 64),
        Step("tokens", [backbone, reader], learn, min(80_000, 16 * size), 2e-3, 64),
    ]
