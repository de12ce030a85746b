"""Cells of feature maps: calibration, both ends, fewer bits, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from semcodec.errors import CorruptStream, UsageError
from semcodec.priors import Table
from semcodec.training.channel_quantiser import ChannelQuantiser
from semcodec_plugins.entropy.arithmetic import Rans


def calibrated(x: torch.Tensor, unit: bool = False) -> ChannelQuantiser:
    quantiser = ChannelQuantiser(x.shape[1], unit)
    for see, finish in ((quantiser.see_range, quantiser.finish_ranges), (quantiser.see, quantiser.finish)):
        for batch in x.split(4):
            see(batch)
        finish()
    return quantiser


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    """Three channels: as after a ReLU, of both signs, and one that never changes."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(16, 3, 12, 10, generator=rng)
    x[:, 0] = 5 * x[:, 0].relu()
    x[:, 2] = 3.25
    return x


@pytest.mark.parametrize("bits", range(1, 9))
def test_values_are_within_a_cell(features, bits):
    quantiser = calibrated(features)
    symbols = quantiser.symbols(features, bits)
    assert symbols.dtype == np.int32
    assert 0 <= symbols.min() <= symbols.max() < 2**bits
    restored = torch.stack([quantiser.values(s, bits) for s in symbols])
    width = (quantiser.high - quantiser.low).view(-1, 1, 1) / 2**bits
    inside = (features >= quantiser.low.view(-1, 1, 1)) & (features <= quantiser.high.view(-1, 1, 1))
    assert inside.float().mean() > 0.995
    # Centroids are kept at half precision, as in files.
    assert ((restored - features).abs() <= 1.002 * width + 2e-3)[inside].all()


def test_centroids_beat_middles_at_few_bits(features):
    """A centroid is the value of a cell with the least squared error: ReLU's zeros come back as nearly zero."""
    quantiser = calibrated(features)
    symbols = quantiser.symbols(features, 2)
    restored = torch.stack([quantiser.values(s, 2) for s in symbols])[:, 0]
    middles = (torch.from_numpy(symbols[:, 0]) + 0.5) * (quantiser.high[0] - quantiser.low[0]) / 4 + quantiser.low[0]
    assert (restored - features[:, 0]).square().mean() < 0.6 * (middles - features[:, 0]).square().mean()


def test_training_sees_what_is_received(features):
    quantiser = calibrated(features)
    received = torch.stack([quantiser.values(s, 3) for s in quantiser.symbols(features, 3)])
    assert torch.allclose(quantiser.soft(features, 3), received, atol=1e-6)


def test_fewer_bits_are_the_upper_bits(features):
    quantiser = calibrated(features)
    assert (quantiser.symbols(features, 3) == quantiser.symbols(features, 8) >> 5).all()


def test_the_same_cells_in_any_batch(features):
    quantiser = calibrated(features)
    whole = quantiser.symbols(features, 8)
    assert all((quantiser.symbols(features[i : i + 1], 8)[0] == whole[i]).all() for i in range(len(features)))


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_static_tables_code_near_the_entropy_of_what_was_counted(features, bits):
    quantiser = calibrated(features)
    symbols = quantiser.symbols(features, bits)
    prior = quantiser.prior(bits, 120)
    assert all(isinstance(table, Table) and (table.freqs > 0).all() for table in prior.tables)  # no cell is impossible
    entropy = 0.0
    for channel in range(3):
        p = np.bincount(symbols[:, channel].ravel(), minlength=2**bits) / symbols[:, channel].size
        entropy += symbols[:, channel].size * -(p[p > 0] * np.log2(p[p > 0])).sum()
    coded = [Rans().encode(s.ravel(), prior) for s in symbols]
    for data, s in zip(coded, symbols, strict=True):
        assert (Rans().decode(data, prior, s.size) == s.ravel()).all()
    assert 8 * sum(map(len, coded)) < 1.06 * entropy + 64 * len(coded)


def test_a_unit_range_stays_as_it_is():
    quantiser = calibrated(torch.rand(8, 2, 6, 6, generator=torch.Generator().manual_seed(1)) / 2, unit=True)
    assert quantiser.low.tolist() == [0, 0]
    assert quantiser.high.tolist() == [1, 1]
    assert (quantiser.counts[:, 200:] == 1).all()


def test_gradients_pass_within_the_range_alone():
    quantiser = ChannelQuantiser(1, unit=True)  # uncalibrated: every cell is worth its middle
    x = torch.tensor([0.3, 0.7, 1.5, -2.0]).view(1, 1, 2, 2).requires_grad_()
    soft = quantiser.soft(x, 4)
    soft.sum().backward()
    assert x.grad.flatten().tolist() == [1, 1, 0, 0]
    assert ((soft.detach() - x.detach().clamp(0, 1)).abs() <= 1 / 32 + 1e-6).all()


def test_halved_weights_are_the_same_weights(features):
    """Files keep half precision; what was calibrated is what a file holds."""
    state = calibrated(features).state_dict()
    assert all(torch.equal(t.half().float(), t) for t in state.values() if t.is_floating_point())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(features, bad):
    broken = features.clone()
    broken[3, 1, 2, 2] = bad
    with pytest.raises(UsageError, match="NaN or infinity"):
        calibrated(features).symbols(broken)


def test_cells_that_are_not_there_are_refused(features):
    with pytest.raises(CorruptStream, match="none of 16 levels"):
        calibrated(features).values(np.array([[[16]], [[0]], [[0]]], np.int32), 4)


def test_no_images_to_calibrate_on():
    with pytest.raises(UsageError, match="no images to calibrate on"):
        ChannelQuantiser(2).finish_ranges()
