"""Measures what docs/results/priors.md shows: what the integers of tokens cost under one prior and another.

    python docs/results/priors.py                 trains what is missing (some minutes each), and the page's table
    python docs/results/priors.py --scale 0.02    a try, whose figures are printed and not kept

Each prior learns with the same transforms, weights of the rate and samples by the step ``match`` of distillation: the
squared error of features beside the rate. Bytes are estimates of a test split, errors are those of rounded integers.
"""

from __future__ import annotations

import itertools
import json
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from pages import read, tell
from torch import Tensor, nn

from semcodec.data.datasets import open_dataset
from semcodec.training.distillation import MATCH, feature_distance
from semcodec.training.loop import Moment
from semcodec.training.train import train
from semcodec_plugins.layered import token_codec
from semcodec_plugins.layered.prior import straight_through
from semcodec_plugins.layered.tokens import CONV, MeanScale, _bits, _column, _deviation, _noisy

HERE = Path(__file__).parent
RECORDS, PAGE = HERE / "priors.jsonl", HERE / "priors.md"
MARKS = "<!-- tables -->", "<!-- end of tables -->"
PLACES = {"layered:channels=32x2+rans+vit-nano-server@block2": "digits-scenes"}
"""By spec, where no codec ships, which would be gone on with."""
SCALE = 0.125
"""Of the 40,000 samples that the step has by itself."""
RATE = 2.0
TESTED = 512
SLICES = 4
"""Of channels, in the context model."""


class Factorised(MeanScale):
    """One Gaussian table for each channel and level; nothing is sent beside y (Balle et al., 2017)."""

    def forward(self, y: Tensor, level: int, noise: torch.Generator | None) -> tuple[Tensor, Tensor]:
        means, scales = _column(self.offsets[level], y).chunk(2, 0)
        rest = y - means
        return means + straight_through(rest), _bits(_noisy(rest, noise), _deviation(scales.expand_as(rest)))


class Scale(MeanScale):
    """Scales from z, means of each channel and level alone (Balle et al., 2018)."""

    def predict(self, y: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
        z: Tensor = self.analysis(y).float()
        found = self.synthesis(straight_through(z))[:, :, *(slice(side) for side in y.shape[2:])].float()
        means, scales = (found + _column(self.offsets[level], found)).chunk(2, 1)
        return z, _column(self.offsets[level], found).chunk(2, 0)[0].expand_as(means), scales

    def forward(self, y: Tensor, level: int, noise: torch.Generator | None) -> tuple[Tensor, Tensor]:
        z, means, scales = self.predict(y, level)
        rest = y - means
        bits = _bits(_noisy(rest, noise), _deviation(scales))
        bits = bits + _bits(_noisy(z, noise), _deviation(_column(self.scales[level], z).expand_as(z)))
        return means + straight_through(rest), bits


class ChannelWise(MeanScale):
    """Means and scales of a part of the channels from z and the parts before it, as they were received (Minnen and
    Singh, 2020): better predictions, for as many networks in a row at both ends.
    """

    def __init__(self, channels: int, axes: int, levels: int) -> None:
        super().__init__(channels, axes, levels)
        bounds = np.linspace(0, channels, SLICES + 1).round().astype(int)
        self.parts = list(itertools.pairwise(bounds))
        self.context = nn.ModuleList(
            nn.Sequential(CONV[axes](2 * channels + a, 64, 3, 1, 1), nn.GELU(), CONV[axes](64, 2 * (b - a), 1))
            for a, b in self.parts
        )
        for net in self.context.children():
            nn.init.zeros_(net[-1].weight)  # type: ignore[index]
            nn.init.zeros_(net[-1].bias)  # type: ignore[index]

    def forward(self, y: Tensor, level: int, noise: torch.Generator | None) -> tuple[Tensor, Tensor]:
        z: Tensor = self.analysis(y).float()
        found = self.synthesis(straight_through(z))[:, :, *(slice(side) for side in y.shape[2:])].float()
        found = found + _column(self.offsets[level], found)
        means, scales = found.chunk(2, 1)
        received: list[Tensor] = []
        bits = _bits(_noisy(z, noise), _deviation(_column(self.scales[level], z).expand_as(z)))
        for (a, b), net in zip(self.parts, self.context.children(), strict=True):
            mean, scale = net(torch.cat([found, *received], 1)).chunk(2, 1)
            mean, scale = mean + means[:, a:b], scale + scales[:, a:b]
            rest = y[:, a:b] - mean
            received.append(mean + straight_through(rest))
            bits = bits + _bits(_noisy(rest, noise), _deviation(scale))
        return torch.cat(received, 1), bits


PRIORS: dict[str, type[MeanScale]] = {
    "factorised": Factorised,
    "scale": Scale,
    "mean and scale": MeanScale,
    "mean and scale, channel-wise": ChannelWise,
}


def learn(name: str, spec: str, data: str, scale: float) -> list[dict[str, Any]]:
    """A record of each level: estimated bytes and the error of features."""
    found: list[dict[str, Any]] = []

    def look(moment: Moment) -> None:
        if moment.finished and moment.step == MATCH and moment.pipeline is not None:
            found.extend(measured(moment.pipeline(), data))

    kept, token_codec.MeanScale = token_codec.MeanScale, PRIORS[name]  # type: ignore[misc, assignment]
    try:
        with TemporaryDirectory() as out:
            train(spec, data, out, objective="distil", rate_weight=RATE, until=MATCH, scale=scale, on_step=look)
    finally:
        token_codec.MeanScale = kept  # type: ignore[misc]
    return [{"prior": name, "spec": spec, "data": data, "scale": scale, **record} for record in found]


@torch.no_grad()
def measured(pipeline: Any, data: str) -> Iterator[dict[str, Any]]:
    """Of the test split's first samples, level by level."""
    encoder, test = pipeline.device.encoder, open_dataset(data, "test", pipeline.request)
    for level in range(encoder.levels):
        bits, errors = [], []
        for start in range(0, TESTED, 32):
            pixels, _ = test.batch(range(start, start + 32))
            features = pipeline.head(pipeline.features(pixels))
            [(partial, cost)] = encoder.forward_train_at(features, np.random.default_rng(start), [level])
            bits.append(cost.double().mean().item())
            errors.append(feature_distance(partial.features, features).item())
        yield {"level": level + 1, "bytes": float(np.mean(bits)) / 8, "error": float(np.mean(errors))}


# -- what the records say ---------------------------------------------------------------------------------------------


def lines(found: list[dict[str, Any]]) -> Iterator[str]:
    yield "| cut | prior | bytes / error, level by level | bytes at equal error, of mean and scale's |"
    yield "| --- | --- | --- | ---: |"
    for spec in PLACES:
        by = {name: [r for r in found if r["spec"] == spec and r["prior"] == name] for name in PRIORS}
        usual = by["mean and scale"]
        for name, points in by.items():
            if points and usual:
                shown = ", ".join(f"{point['bytes']:.0f} / {point['error']:.3f}" for point in points)
                cut = spec.rpartition("+")[2]
                yield f"| `{cut}` | {name} | {shown} | {at_equal_error(points, usual):.2f} |"


def at_equal_error(points: list[dict[str, Any]], others: list[dict[str, Any]]) -> float:
    """Bytes over the others' at the same error, the geometric mean over errors that both reach: lines in logarithms."""
    mine, theirs = (
        np.array(sorted((np.log(p["error"]), np.log(p["bytes"])) for p in rows)).T for rows in (points, others)
    )
    errors = np.linspace(max(mine[0, 0], theirs[0, 0]), min(mine[0, -1], theirs[0, -1]), 101)
    return float(np.exp(np.mean(np.interp(errors, *mine) - np.interp(errors, *theirs))))


def main() -> None:
    parser = ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scale", type=float, default=SCALE)
    options = parser.parse_args()
    found = read(RECORDS) if options.scale == SCALE else []
    for spec, data in PLACES.items():
        for name in PRIORS:
            if not any(r["spec"] == spec and r["prior"] == name for r in found):
                new = learn(name, spec, data, options.scale)
                found += new
                if options.scale == SCALE:
                    with RECORDS.open("a") as file:
                        file.writelines(json.dumps(record) + "\n" for record in new)
    if options.scale == SCALE:
        tell(PAGE, MARKS, lines(found))
    else:
        print("\n".join(lines(found)))


if __name__ == "__main__":
    main()
