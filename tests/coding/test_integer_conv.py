"""Integer networks give the same integers whatever computes them, and Gaussian tables are what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from semcodec.coding import gaussian_tables
from semcodec.coding.integer_conv import ACTIVATION_BITS, WEIGHT_BITS, Network
from semcodec.errors import UsageError
from semcodec.training.integer_layers import Conv3d, IntegerConv, IntegerConv3d, IntegerNet, integer_net, to_fixed


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def reference(conv: IntegerConv, x: np.ndarray) -> np.ndarray:
    """The convolution in Python's own integers, with the shift that rounds half up."""
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    padded = np.pad(x.astype(object), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
    weight, bias = conv.whole_weight.numpy().astype(object), conv.whole_bias.numpy().astype(object)
    sums = np.einsum("bchwij,ocij->bohw", windows, weight, optimize=False) + bias[:, None, None]
    return (sums + (1 << conv.shift >> 1)) >> conv.shift


@pytest.mark.parametrize("kind", [Conv3d, IntegerConv3d])
def test_three_axes_are_computed_in_full_precision(kind):
    """Half of it gives NaN at this shape, on processors with AMX."""
    conv, x = kind(12, 256, 3, padding=1), torch.randn(32, 12, 1, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv(x.bfloat16())
    assert found.dtype == torch.float32
    assert torch.equal(found, conv(x.bfloat16().float()))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (4, 2), (5, 3)])
def test_sums_are_those_of_whole_numbers_up_to_the_limit(kernel, stride):
    conv = IntegerConv(3, 4, kernel, stride, inside=6, out=2)
    for size in (100, conv.limit):
        x = np.random.default_rng(1).integers(-size, size, (2, 3, 9, 7), endpoint=True)
        x.flat[0], x.flat[-1] = size, -size
        got = conv.exact(torch.from_numpy(x).double())
        assert (got.numpy().astype(object) == reference(conv, x)).all()
    assert conv.limit > 1 << 30


def test_what_is_beyond_the_limit_is_refused_and_not_clipped():
    conv = IntegerConv(1, 1, 3)
    x = torch.full((1, 1, 4, 4), float(conv.limit + 1), dtype=torch.float64)
    for bad in (x, -x, torch.full_like(x, math.nan), torch.full_like(x, math.inf)):
        with pytest.raises(UsageError, match="too large to code"):
            conv.exact(bad)
    conv.weight.data.fill_(1e6)
    with pytest.raises(UsageError, match="too large for integers"):
        conv.freeze()
    conv.weight.data.fill_(math.nan)
    with pytest.raises(UsageError, match="too large for integers"):
        conv.freeze()


def test_the_float_view_is_next_to_the_integers():
    net = integer_net((4, 16, 6), up=2)
    x = torch.randint(-20, 20, (2, 4, 5, 6))
    assert net.exact(x).shape == (2, 6, 20, 24)
    apart = (net(x.float()) - net.exact(x)).abs()
    # Half a unit of rounding, and the two grids: of weights in the first sum, of activations in the second.
    fan = 16 * 9
    assert apart.max() < 0.5 + fan * (2.0 ** -(ACTIVATION_BITS + 1) + 20 * 36 * 2.0 ** -(WEIGHT_BITS + 1))
    assert net.exact(x).float().std() > 0.3


def test_integers_do_not_depend_on_threads_batch_layout_or_the_dtype_of_the_model():
    net = integer_net((4, 16, 6), stride=2)
    x = torch.randint(-(1 << 31), 1 << 31, (5, 4, 13, 11))
    expected = net.exact(x)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(net.exact(x), expected)
            assert torch.equal(torch.cat([net.exact(row) for row in x.split(1)]), expected)
            assert torch.equal(net.exact(x.to(memory_format=torch.channels_last)), expected)
    finally:
        torch.set_num_threads(threads)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert torch.equal(net.exact(x), expected)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert torch.equal(net.to(dtype).exact(x), expected)
    if torch.cuda.is_available():
        assert torch.equal(net.cuda().exact(x.cuda()).cpu(), expected)
    before = net.cpu().float().exact(x)
    net.freeze()  # from weights that have been through half precision: other integers
    assert not torch.equal(net.exact(x), before)


def in_torch(net: IntegerNet, x: Tensor) -> Tensor:
    """What the network computes, in torch: an unfolded convolution, a shift that rounds half up, sub-pixels."""
    x = x.double()
    for i, conv in enumerate(net.layers):
        x = (F.relu(x) if i else x).clamp(-conv.limit, conv.limit)
        columns = F.unfold(x, conv.kernel_size, padding=conv.padding, stride=conv.stride)
        sums = conv.whole_weight.flatten(1).double() @ columns + conv.whole_bias.double()[:, None]
        sides = [(side + 2 * conv.padding[0] - conv.kernel_size[0]) // conv.stride[0] + 1 for side in x.shape[2:]]
        x = F.pixel_shuffle(torch.floor(sums * 2.0**-conv.shift + 0.5).unflatten(2, sides), net.up)
    return x.long()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_numpy_and_torch_give_the_same_integers_over_thread_counts(data):
    """Of any weights, sizes and inputs, by the modules and by a state dict alone."""
    channels = data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))
    kernel, stride, up = data.draw(st.sampled_from([(1, 1, 1), (3, 1, 2), (3, 2, 1), (5, 1, 1), (3, 1, 3)]))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    net = integer_net(channels, kernel, stride, up)
    scale = data.draw(st.sampled_from([0.01, 1.0, 300.0]))
    for conv in net.layers:
        conv.weight.data.mul_(scale)
    net.freeze()
    peak = 1 << data.draw(st.integers(0, 40))
    side = data.draw(st.tuples(st.integers(5, 12), st.integers(5, 12)))
    x = torch.randint(-peak, peak + 1, (data.draw(st.integers(1, 3)), channels[0], *side))
    state = {f"a.{name}": t.numpy() for name, t in net.state_dict().items() if "whole" in name}
    alone = Network.from_state(state, "a.", len(channels) - 1, stride, up)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            expected = in_torch(net, x)
            assert torch.equal(net.exact(x), expected)
            assert (alone.exact(x.numpy()) == expected.numpy()).all()
    finally:
        torch.set_num_threads(threads)


def test_integers_travel_with_the_weights():
    net, other = integer_net((2, 8, 2)), integer_net((2, 8, 2))
    x = torch.randint(-50, 50, (1, 2, 6, 6))
    assert not torch.equal(net.exact(x), other.exact(x))
    other.load_state_dict({n: t.half() if t.is_floating_point() else t for n, t in net.state_dict().items()})
    assert torch.equal(net.exact(x), other.exact(x))


def test_fixed_point_is_the_nearest_step():
    x = torch.tensor([0.0, 0.5, -0.5, 1.24, 1.26, -1.26, 1e6])
    assert to_fixed(x, 1).tolist() == [0, 1, -1, 2, 3, -3, 2e6]
    assert to_fixed(x, 1).dtype == torch.float64


# -- Gaussian tables --------------------------------------------------------------------------------------------------


def normal(k: np.ndarray, scale: float) -> np.ndarray:
    upper, lower = ((k + half) / scale / math.sqrt(2) for half in (0.5, -0.5))
    return np.array([0.5 * (math.erf(a) - math.erf(b)) for a, b in zip(upper, lower, strict=True)])


def test_tables_are_gaussians_at_logarithmic_scales():
    tables = gaussian_tables.tables()
    assert len(tables) == gaussian_tables.SCALES == 64
    for i, table in enumerate(tables):
        scale = gaussian_tables.LOWEST * math.exp(gaussian_tables.STEP * i)
        freqs = table.freqs.astype(np.float64) / (1 << table.precision)
        assert table.escape
        assert freqs[-1] > 0  # any other int32 can be coded
        assert (freqs[:-1] == freqs[-2::-1]).all() or np.abs(np.diff(freqs[:-1] - freqs[-2::-1])).max() < 2e-6
        values = np.arange(len(freqs) - 1) + table.offset
        assert np.abs(freqs[:-1] - normal(values, scale)).max() < 2e-6
        assert values[-1] >= 4.5 * scale - 1


def test_tables_are_the_same_integers_everywhere():
    """Pinned: streams depend on them."""
    digest = sum(
        (i + 1) * int((t.freqs.astype(np.int64) * np.arange(1, len(t.freqs) + 1)).sum() % 1_000_003)
        for i, t in enumerate(gaussian_tables.tables())
    )
    assert digest == 1_117_370_066
    assert gaussian_tables.tables() is gaussian_tables.tables()
