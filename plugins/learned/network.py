"""CompressAI's models, made so that they code on our tape and nothing of them is resized."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.errors import PluginError, UsageError, first_line
from semcodec.training.integer_layers import to_fixed
from semcodec_plugins.learned import spec
from semcodec_plugins.learned.coder_bridge import GAUSSIAN, LARGEST, STATIC, TAPE
from semcodec_plugins.learned.coding import REACH, scales

COUNTED = 1 << 20
"""What a static table's counts sum to, about."""
WEIGHTS, VALUES = 14, 10
"""Fraction bits of the exact networks' weights and activations."""
_EXACT = float(1 << 52)


class Received(Exception):
    """Carries y out of CompressAI's ``decompress``, before the synthesis."""

    def __init__(self, y: Tensor) -> None:
        super().__init__()
        self.y = y


def _through(layers: nn.Sequential, x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


class Analysis(nn.Sequential):
    """g_a. What is coded is finite and exact in float32, or refused: NaN would become some integer."""

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, 3, H, W) to y (B, M, h, w). Raises UsageError, on a tape, for what cannot be coded."""
        y = _through(self, x)
        if TAPE.get() is not None and not bool((y.abs() < LARGEST).all()):
            raise UsageError("the latent has NaN, infinity or values too large to code: look at the input or weights")
        return y


class Synthesis(nn.Sequential):
    """g_s, where a tape ends: what CompressAI does before it is reading."""

    def forward(self, y: Tensor) -> Tensor:
        """y to the image; on a tape it raises Received instead."""
        if TAPE.get() is not None:
            raise Received(y)
        return _through(self, y)


class Exact(nn.Sequential):
    """h_s. Where integers depend on it, it runs in integers itself, so that every machine gets the same result.

    Convolutions, transposed ones and ReLU, leaky or not, on a fixed-point grid held in float64, where sums of integers
    below 2 ** 53 are exact in any order. Inputs that would make them larger are clamped. Always on the CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """z to what tells the scales of y; in integers on a tape."""
        if TAPE.get() is None:
            return _through(self, x)
        whole = to_fixed(x.cpu(), VALUES)
        for layer in self:
            whole = _exact(layer, whole)
        return (whole * 2.0**-VALUES).float().to(x.device)


def _exact(layer: nn.Module, x: Tensor) -> Tensor:
    if isinstance(layer, nn.LeakyReLU):
        slope = round(layer.negative_slope * 2**WEIGHTS)
        return x.clamp_min(0) + torch.floor(x.clamp_max(0) * slope * 2.0**-WEIGHTS)
    if isinstance(layer, nn.ReLU):
        return x.clamp_min(0)
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None
    weight, bias = to_fixed(layer.weight.cpu(), WEIGHTS), to_fixed(layer.bias.cpu(), WEIGHTS + VALUES)
    limit = (_EXACT - float(bias.abs().max())) / max(1.0, _most(layer, weight))
    x = x.nan_to_num(0.0, limit, -limit).clamp(-limit, limit).floor()
    kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
    assert not isinstance(padding, str)
    # Unfolded, as a library's own convolution may go through transforms that are not exact.
    if isinstance(layer, nn.Conv2d):
        sums = weight.flatten(1) @ F.unfold(x, kernel, padding=padding, stride=stride)
        height, width = (
            (side + 2 * p - k) // s + 1 for side, k, s, p in zip(x.shape[-2:], kernel, stride, padding, strict=True)
        )
        sums = sums.view(len(x), -1, height, width)
    else:
        height, width = (
            (side - 1) * s - 2 * p + k + o
            for side, k, s, p, o in zip(x.shape[-2:], kernel, stride, padding, layer.output_padding, strict=True)
        )
        columns = weight.flatten(1).T @ x.flatten(2)
        sums = F.fold(columns, (height, width), kernel, padding=padding, stride=stride)
    return torch.floor((sums + bias[:, None, None]) * 2.0**-WEIGHTS + 0.5)


def _most(layer: nn.Module, weight: Tensor) -> float:
    """Largest sum of magnitudes that one output is made of."""
    return float(weight.abs().sum((0, 2, 3) if isinstance(layer, nn.ConvTranspose2d) else (1, 2, 3)).max())


def build(name: str, n: int, m: int) -> Any:
    """CompressAI's model, untrained, with all of its tensors of one size for good."""
    known = spec.MODELS[name]
    compressai()
    from compressai.entropy_models import EntropyBottleneck, GaussianConditional
    from compressai.registry import MODELS

    if known.one:
        net = MODELS[name](n)
    elif known.context == spec.CHECKERBOARD and m <= 128:
        net = MODELS[name](n, m, [m // 16, m // 16, m // 8, m // 4, m - m // 16 * 2 - m // 8 - m // 4])
    else:
        net = MODELS[name](n, m)
    net.g_a, net.g_s = Analysis(*net.g_a), Synthesis(*net.g_s)
    if known.context == spec.HYPER:
        net.h_s = Exact(*net.h_s)
    table = torch.from_numpy(scales()).float()
    for module in net.modules():
        if isinstance(module, EntropyBottleneck | GaussianConditional):
            # Their coder's tables: not used, but asked for.
            rows = module.channels if isinstance(module, EntropyBottleneck) else 1
            for buffer, shape in (("_quantized_cdf", (rows, 1)), ("_cdf_length", (rows,)), ("_offset", (rows,))):
                module.register_buffer(buffer, torch.zeros(shape, dtype=torch.int32), persistent=False)
        if isinstance(module, EntropyBottleneck):
            # Found from the density after training, not learned.
            quantiles = module.quantiles.detach()
            del module.quantiles
            module.register_buffer("quantiles", quantiles)
        if isinstance(module, GaussianConditional):
            module.register_buffer("scale_table", table.clone(), persistent=False)
    return net.eval()


def prepare(net: nn.Module) -> None:
    """Our coder for CompressAI's, which copies of a model do not carry over."""
    from compressai.entropy_models import EntropyBottleneck, GaussianConditional

    for module in net.modules():
        if isinstance(module, EntropyBottleneck):
            module.entropy_coder = STATIC
        elif isinstance(module, GaussianConditional):
            module.entropy_coder = GAUSSIAN


@contextmanager
def rounding(net: nn.Module) -> Iterator[None]:
    """Latents that a decoder would have, with the gradient of what was rounded; likelihoods stay those of noise."""
    from compressai.entropy_models import EntropyBottleneck, GaussianConditional

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: tuple[Tensor, Tensor]) -> Any:
        x, likelihood = args[0], out[1]
        if isinstance(module, EntropyBottleneck):
            middle = module.quantiles[:, 0, 1].view(1, -1, *[1] * (x.ndim - 2))
        else:
            middle = kwargs.get("means", args[2] if len(args) > 2 else None)
            middle = x.new_zeros(()) if middle is None else middle
        return x + (torch.round(x - middle) + middle - x).detach(), likelihood

    hooks = [
        module.register_forward_hook(hook, with_kwargs=True)
        for module in net.modules()
        if isinstance(module, EntropyBottleneck | GaussianConditional)
    ]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


def bottleneck(net: nn.Module) -> Any:
    """The model's one EntropyBottleneck."""
    from compressai.entropy_models import EntropyBottleneck

    [found] = [module for module in net.modules() if isinstance(module, EntropyBottleneck)]
    return found


@torch.no_grad()
def counts_of(density: Any) -> Tensor:
    """Integer counts, int32 (C, 2 REACH + 1), of an EntropyBottleneck's density around its medians."""
    grid = torch.arange(-REACH, REACH + 1.0, device=density.quantiles.device) + density.quantiles[:, :, 1:2]
    likelihood = density._likelihood(grid, stop_gradient=True)[0][:, 0]
    counts: Tensor = (likelihood / likelihood.sum(1, keepdim=True).clamp_min(1e-9) * COUNTED).round().int()
    counts[:, REACH] += 1  # so that every table has something
    return counts


def counts_from(cdf: Tensor, lengths: Tensor, offsets: Tensor) -> Tensor:
    """The same from tables that a checkpoint of CompressAI holds, without any float in between."""
    counts = torch.zeros(len(cdf), 2 * REACH + 1, dtype=torch.int32)
    for row, (table, length, offset) in enumerate(zip(cdf, lengths.tolist(), offsets.tolist(), strict=True)):
        frequencies = table[:length].diff()[:-1]  # the last is of what lies beyond
        places = torch.arange(len(frequencies)) + offset + REACH
        inside = (places >= 0) & (places <= 2 * REACH)
        counts[row, places[inside]] = frequencies[inside].int().clamp_min(0)
        counts[row, REACH] += counts[row].sum() == 0
    return counts


def convert(net: nn.Module, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """A checkpoint in CompressAI's form as tensors of ``net``, and the counts of its static tables."""
    from compressai.entropy_models import EntropyBottleneck
    from compressai.models.utils import remap_old_keys
    from compressai.zoo.pretrained import load_pretrained

    state = dict(load_pretrained(tensors))
    name = next(n for n, module in net.named_modules() if isinstance(module, EntropyBottleneck))
    state = dict(remap_old_keys(name, state))
    tables = [state.pop(f"{name}.{part}", torch.zeros(0)) for part in ("_quantized_cdf", "_cdf_length", "_offset")]
    known = net.state_dict()
    dropped = ("_quantized_cdf", "_cdf_length", "_offset", "scale_table")
    state = {n: t for n, t in state.items() if n in known or not n.endswith(dropped)}
    for n, buffer in net.named_buffers():
        if n in known:
            state.setdefault(n, buffer)
    if tables[0].numel():
        return state, counts_from(*tables)
    density = copy.deepcopy(bottleneck(net))
    for n, tensor in density.state_dict().items():
        given = state.get(f"{name}.{n}")
        if given is not None and given.shape == tensor.shape:  # what does not fit is refused by whoever loads it
            tensor.copy_(given)
    return state, counts_of(density)


def compressai() -> None:
    """Import CompressAI. Raises PluginError where it is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module("compressai.models")
    except ImportError as error:
        raise PluginError(
            f"learned codecs need CompressAI ({first_line(error)}): pip install 'semcodec[learned]'"
        ) from error
