"""Joint space-time ViT in the form of VideoMAE (Tong et al., 2022) that takes any number of frames.

16 frames are cut into tubelets of 2x16x16 pixels, embedded, given fixed sinusoid positions and run through
pre-norm transformer blocks; the class comes from the mean token. Fewer frames cost less: k kept frames, in
time order, pair into ceil(k / 2) tubelets, a lone one repeated, each at the sinusoid of the mean of its two
frame indices. All 16 frames give VideoMAE's own tubelets and positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semcodec.interfaces import Backbone, Features
from semcodec.specs import TOKENS
from semcodec_plugins.video_vit.checkpoints import from_image_vit, from_videomae
from semcodec_plugins.video_vit.spec import PATCH, SIZES, TUBELET, Size

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INPUT = "input"
EPS = 1e-12  # VideoMAE's; DeiT's 1e-6 makes no difference to its logits' fourth decimal


def sinusoid(position: Tensor, dim: int) -> Tensor:
    """Fixed position embedding, VideoMAE's table at any real position: (...,) float64 to (..., dim) float32."""
    channel = torch.arange(dim, dtype=torch.float64, device=position.device)
    angle = position[..., None] / 10000 ** (2 * (channel // 2) / dim)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


class Attention(nn.Module):
    """Self-attention of tokens (B, N, dim), to the same."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, dim))
        return out


class Mlp(nn.Module):
    """Two linear layers, the inner four times as wide, on tokens (B, N, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Pre-norm transformer block: tokens (B, N, dim) to the same."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def _by_pair(x: Tensor, pairs: Tensor) -> Tensor:
    """What was embedded of pairs (B, n, ...), (B * n, dim, ...), as tokens (B, n, HW / 256, dim)."""
    tokens = x.flatten(2).transpose(1, 2)
    return tokens.reshape(*pairs.shape[:2], *tokens.shape[1:])


class TubeletEmbed(nn.Module):
    """VideoMAE's: one convolution whose kernel and stride are the tubelet.

    VideoMAE adds fixed sinusoids and nothing else. A model that starts from an image ViT also has that one's learned
    positions, ``place`` (HW / 256, dim), beside which the sinusoids are turned down to ``loudness``.
    """

    def __init__(self, dim: int, places: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, dim, (TUBELET, PATCH, PATCH), (TUBELET, PATCH, PATCH))
        self.place = nn.Parameter(torch.zeros(places, dim))
        self.loudness = nn.Parameter(torch.ones(()))

    def forward(self, pairs: Tensor) -> Tensor:
        """(B, n, 2, 3, H, W) to (B, n, HW / 256, dim)."""
        x: Tensor = self.proj(pairs.flatten(0, 1).transpose(1, 2))
        return _by_pair(x, pairs)

    def position(self, sinusoids: Tensor) -> Tensor:
        """What is added to the tokens, (B, n, HW / 256, dim) as ``sinusoids``."""
        return self.loudness * sinusoids + self.place


class TubeletStem(nn.Module):
    """Convolutions of stride two over a tubelet: small ViTs learn little without them (Xiao et al., "Early
    convolutions help transformers see better", 2021).

    They see the mean of the tubelet's two frames, their difference, and the mean less that of all frames
    received: what stands still leaves the last two.
    """

    def __init__(self, dim: int, channels: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 9
        for out in (*channels, dim):
            layers += [nn.Conv2d(width, out, 3, 2, 1, bias=False), nn.BatchNorm2d(out), nn.GELU()]
            width = out
        self.layers = nn.Sequential(*layers, nn.Conv2d(dim, dim, 1))

    def forward(self, pairs: Tensor) -> Tensor:
        """(B, n, 2, 3, H, W) to (B, n, HW / 256, dim)."""
        first, second = pairs.unbind(2)
        mean = (first + second) / 2
        x = torch.cat([mean, 2 * (second - first), 2 * (mean - mean.mean(1, keepdim=True))], 2)
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)  # several times faster on CPUs
        tokens: Tensor = self.layers(x)
        return _by_pair(tokens, pairs)

    def position(self, sinusoids: Tensor) -> Tensor:
        return sinusoids


class VideoViT(nn.Module, Backbone):
    """The backbone of every size.

    classes: names of the classes. side: height and width of the frames. size: width, depth and heads.
    """

    size: Size
    mean: Tensor
    std: Tensor

    def __init__(self, classes: Sequence[str], *, side: int) -> None:
        super().__init__()
        size = self.size
        self.classes = list(classes)
        self.side = side
        self.embed = TubeletStem(size.dim, size.stem) if size.stem else TubeletEmbed(size.dim, (side // PATCH) ** 2)
        self.blocks = nn.ModuleList(Block(size.dim, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim, eps=EPS)
        self.classifier = nn.Linear(size.dim, len(self.classes))
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def adapt(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a Hugging Face VideoMAE classifier in this model's form."""
        return from_videomae(tensors, self.state_dict())

    def adapt_init(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of an image ViT to start training from."""
        return from_image_vit(tensors, self.state_dict())

    def head(self, x: Features, cut: str) -> Features:
        """{"frames": (B, 16, 3, H, W)} float32 in [0, 1] to the same with each frame's place in the clip, or at inner

        cuts to {"tokens": (B, N, D)}. Of some of the frames, with their "index", to the tokens of those alone.
        """
        frames = x["frames"]
        index = x.get("index", torch.arange(frames.shape[1], device=frames.device).expand(len(frames), -1))
        return self.advance({"frames": frames, "index": index}, INPUT, cut)

    def advance(self, features: Features, cut: str, to: str) -> Features:
        """From the features at ``cut`` to those at ``to``, which is no earlier."""
        return features if cut == to else {TOKENS: self._run(features, cut, _blocks(to))}

    def head_state(self, cut: str) -> Sequence[str]:
        """Nothing at "input", where the device runs no part of the model."""
        return () if cut == INPUT else ["embed.", *(f"blocks.{i}." for i in range(_blocks(cut)))]

    def tail_state(self, cut: str) -> Sequence[str] | None:
        """All that ``head`` does not use."""
        used = tuple(self.head_state(cut))
        return [name for name in self.state_dict() if not name.startswith(used)] if used else None

    def tail(self, features: Features, cut: str) -> Tensor:
        """{"frames": (B, k, 3, H, W) in [0, 1], "index": (B, k) int64, rising} to logits (B, classes).

        At inner cuts from {"tokens": (B, N, D)}, any number of them.
        """
        x = self._run(features, cut, len(self.blocks))
        logits: Tensor = self.classifier(self.norm(x.mean(1)))
        return logits.float()

    def _run(self, features: Features, cut: str, stop: int) -> Tensor:
        """Tokens (B, N, D) behind so many blocks, from the features at a cut before."""
        x: Tensor = self._tokens(features) if cut == INPUT else features[TOKENS]
        for block in list(self.blocks)[_blocks(cut) : stop]:
            x = block(x)
        return x

    def _tokens(self, features: Features) -> Tensor:
        """Frames to the tokens of their tubelets with positions, (B, N, D)."""
        frames, index = features["frames"], features["index"]
        if frames.shape[1] % TUBELET:
            frames = torch.cat([frames, frames[:, -1:]], 1)
            index = torch.cat([index, index[:, -1:]], 1)
        frames = (frames - self.mean) / self.std
        tokens = self.embed(frames.reshape(len(frames), -1, TUBELET, *frames.shape[2:]))
        batch, pairs, places, dim = tokens.shape
        # Tubelet t holds frames 2t and 2t + 1, whose mean index is 2t + 1/2.
        tubelet = (index.view(batch, pairs, TUBELET).double().mean(-1) - (TUBELET - 1) / 2) / TUBELET
        position = tubelet[..., None] * places + torch.arange(places, device=frames.device)
        placed: Tensor = (tokens + self.embed.position(sinusoid(position, dim))).flatten(1, 2)
        return placed


def _blocks(cut: str) -> int:
    """How many blocks are before a cut."""
    return int(cut.removeprefix("block")) if cut.startswith("block") else 0


class ViTNano(VideoViT):
    """The video ViT with a convolutional stem, 1 M parameters."""

    size = SIZES["nano"]


class ViTTiny(VideoViT):
    """The video ViT of DeiT-Tiny's size."""

    size = SIZES["tiny"]


class ViTSmall(VideoViT):
    """The video ViT of VideoMAE-small's size."""

    size = SIZES["small"]


class ViTBase(VideoViT):
    """The video ViT of VideoMAE-base's size."""

    size = SIZES["base"]
