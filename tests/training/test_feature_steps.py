"""Steps that codecs at a cut share: they lower what they say they lower, with or without the backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from semcodec.data.base import Dataset
from semcodec.interfaces import Backbone, Partial
from semcodec.training.feature_steps import distance, end_to_end, match, observe
from semcodec.training.loop import Job, fit


class Stripes(Dataset):
    """Images of upright or lying stripes."""

    name, kind, classes = "stripes", "image", ["upright", "lying"]

    def __len__(self):
        return 64

    def batch(self, indices):
        labels = np.array([i % 2 for i in indices], np.int64)
        pixels = np.random.default_rng(0).integers(0, 60, (64, 8, 8, 3), dtype=np.uint8)[list(indices)]
        pixels[labels == 0, :, ::2] += 100
        pixels[labels == 1, ::2] += 100
        return pixels, labels

    def ids(self, indices):
        return [str(i) for i in indices]


class Net(nn.Module, Backbone):
    def __init__(self):
        super().__init__()
        self.classes = Stripes.classes
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, stride=2), nn.ReLU())
        self.last = nn.Linear(8, 2)

    def advance(self, features, cut, to):
        order = ["input", "stem", "middle"]
        x = features.get("image", features.get("map"))
        for name in order[order.index(cut) + 1 : order.index(to) + 1]:
            x = getattr(self, name)(x)
        return {"image" if to == "input" else "map": x}

    def head(self, x, cut):
        return self.advance(x, "input", cut)

    def tail(self, features, cut):
        return self.last(self.advance(features, cut, "middle")["map"].mean((2, 3)))


class Narrow(nn.Module):
    """Eight channels to two and back, at one or at two operating points; its bits are the size of what it sends."""

    def __init__(self, points: int):
        super().__init__()
        self.points = points
        self.down, self.up = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward_train(self, features, rng):
        sent = self.down(features["map"])
        bits = sent.abs().sum((1, 2, 3))
        return [(Partial({"map": self.up(sent * keep)}), bits * keep) for keep in (1.0, 0.5)[: self.points]]


def job(points: int = 1) -> Job:
    torch.manual_seed(0)
    modules = {"encoder": Narrow(points), "backbone": Net()}
    return Job(modules, Stripes(), cut="stem", recover=lambda partial: partial.features)


@pytest.mark.parametrize("points", [1, 2])
@pytest.mark.parametrize("to", [(), ("middle",)])
def test_matching_brings_the_features_back_without_labels(tmp_path, points, to):
    at = job(points)
    before = [p.clone() for p in at.modules["backbone"].parameters()]
    step = match(at, [at.modules["encoder"]], 3000, to=to, lr=1e-2)
    features = at.modules["backbone"].head({"image": torch.rand(4, 3, 8, 8)}, "stem")

    def error():
        with torch.no_grad():
            return distance(at.modules["encoder"].forward_train(features, None)[0][0].features, features).item()

    start = error()
    fit([step], at, tmp_path, half=False)
    assert error() < 0.5 * start
    assert all(torch.equal(a, b) for a, b in zip(before, at.modules["backbone"].parameters(), strict=True))


def test_the_weight_of_the_rate_trades_bits_for_error(tmp_path):
    bits, errors = [], []
    for weight in (0.0, 10.0):
        at = job()
        fit([match(at, [at.modules["encoder"]], 1500, rate=weight, lr=1e-2)], at, tmp_path / str(weight), half=False)
        pixels = torch.from_numpy(at.dataset.batch(range(64))[0]).permute(0, 3, 1, 2) / 255
        with torch.no_grad():
            features = at.modules["backbone"].head({"image": pixels}, "stem")
            [(partial, cost)] = at.modules["encoder"].forward_train(features, None)
        bits.append(cost.mean().item())
        errors.append(distance(partial.features, features).item())
    assert bits[1] < 0.8 * bits[0]
    assert errors[1] > errors[0]


def test_end_to_end_learns_the_task_through_the_codec_and_the_reference_stays(tmp_path):
    at = job()
    learn = [at.modules["encoder"], at.modules["backbone"]]
    step = end_to_end(at, learn, 4000, distil=0.1, lr=1e-2)
    reference = [p.clone() for p in at.auxiliary["reference"].parameters()]
    [summary] = fit([step], at, tmp_path, half=False)
    assert summary["top1"] > 0.9
    assert all(torch.equal(a, b) for a, b in zip(reference, at.auxiliary["reference"].parameters(), strict=True))


def test_a_backbone_has_its_say_in_the_loss_of_its_task(tmp_path):
    at = job()
    asked = []

    def task_loss(features, cut, labels):
        asked.append((cut, sorted(features), len(labels)))
        return features["map"].square().mean(), {"own": 1.0}

    at.modules["backbone"].task_loss = task_loss
    [summary] = fit([end_to_end(at, [at.modules["encoder"]], 64, distil=0)], at, tmp_path, half=False)
    assert asked == [("stem", ["map"], 32)] * 2
    assert summary["own"] == 1.0


def test_observing_shows_each_image_once_and_learns_nothing(tmp_path):
    at, seen, done = job(), [], []
    before = [p.clone() for p in at.modules["encoder"].parameters()]
    fit([observe(at, lambda f: seen.append(f["map"]), lambda: done.append(True), 1000)], at, tmp_path, half=False)
    every = torch.cat(seen)
    assert every.shape == (64, 8, 8, 8)  # no more than there are
    assert len(every.flatten(1).unique(dim=0)) == 64
    assert done == [True]
    assert all(torch.equal(a, b) for a, b in zip(before, at.modules["encoder"].parameters(), strict=True))


def test_distance_is_one_for_the_mean():
    wanted = {"a": torch.randn(4, 3, 5, 5), "b": 10 * torch.randn(4, 2, 3, 3)}
    means = {name: t.mean().expand_as(t) for name, t in wanted.items()}
    assert distance(means, wanted).item() == pytest.approx(2, rel=0.02)
