import numpy as np
import pytest
import torch
from semcodec.specs import TensorSpec
from semcodec.testing import parametrize_with_checks

from semcodec_dct import semcodec_components
from semcodec_dct.encoder import Dct, basis
from semcodec_dct.tables import RATIOS, table, tables

FEATURES = {"maps": TensorSpec((6, 19, 30))}  # sides that no block divides


@parametrize_with_checks(semcodec_components())
def test_promises(check):
    check()


def smooth():
    y, x = torch.meshgrid(torch.arange(19.0), torch.arange(30.0), indexing="ij")
    channels = torch.arange(6.0)[:, None, None]
    return {"maps": (torch.sin(x / 5 + channels) * torch.cos(y / 4 - channels) + channels / 3)[None]}


@pytest.mark.parametrize("side", [4, 8])
def test_the_transform_is_orthonormal(side):
    assert np.allclose(basis(side) @ basis(side).T, np.eye(side))


def test_the_error_is_that_of_the_quantiser():
    """Of each coefficient below two thirds of a step, and so, in root mean square, that of the maps."""
    maps, encoder = smooth(), Dct(FEATURES, 8)
    size = maps["maps"].square().mean().sqrt()
    for step in (0.05, 0.5):
        (latent,) = encoder.encode(maps, None, {}, {"step": step})
        restored = encoder.restore(latent).features["maps"]
        # Blocks at the edges have padding, whose errors are not counted here but whose coefficients are quantised.
        assert (restored - maps["maps"]).square().mean().sqrt() < 0.7 * step * size * (24 * 32 / (19 * 30)) ** 0.5


def test_smooth_maps_have_few_coefficients():
    (latent,) = Dct(FEATURES, 8).encode(smooth(), None, {}, {"step": 0.25})
    q = latent.symbols["maps"]
    assert np.count_nonzero(q) < 0.1 * q.size


def test_tables_are_those_of_exact_integers():
    assert len(tables()) == len(RATIOS)
    halved = table(128)  # p(q) = p(0) / 2^|q|
    assert halved.offset == -127
    assert len(halved.freqs) == 2 * 127 + 1 + 1  # with the escape
    assert np.allclose(halved.freqs[127:137] / halved.freqs[127], 0.5 ** np.arange(10), rtol=1e-3)
