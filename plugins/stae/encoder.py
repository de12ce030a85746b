"""The STAE encoder: the attentions that choose frames and pixels on the device, and how its choice becomes integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from semcodec.coding import pictures, videos
from semcodec.coding.video_params import CODECS
from semcodec.device_half import Exported, Network
from semcodec.errors import CorruptStream, DataError
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial
from semcodec.panels import Panel, side_by_side, usual
from semcodec.pipeline.selection import Keep, select
from semcodec.specs import FeatureSpec, TensorSpec
from semcodec.tensors import as_array, eight_bits, from_eight_bits
from semcodec.training.frame_attention import FrameAttention, keep_frames, weigh
from semcodec_plugins.stae.attention import SpatialAttention
from semcodec_plugins.stae.coding import STAECoding
from semcodec_plugins.stae.sending import latents_of

UInt8 = npt.NDArray[np.uint8]


class STAE(nn.Module, Encoder):
    """Frame attention keeps frames, spatial attention keeps pixels of those; kept pixels travel at 8 bits.

    features: {"frames": float32 (T, 3, H, W) in [0, 1], "index": int64 (T,)}.
    """

    def __init__(self, features: FeatureSpec, **params: Any) -> None:
        super().__init__()
        self.coding = coding = STAECoding(features, {}, **params)
        self.total, self.height, self.width = coding.total, coding.height, coding.width
        self.units = {"frames": self.total, "pixels": self.height * self.width}
        self.frame_attention = FrameAttention(self.total)
        self.spatial_attention = SpatialAttention()

    def scores(self, analysis: Analysis, target: str, masks: Mapping[str, Tensor]) -> Tensor:
        """M_FA (B, T) of equation (6), then M_SA (B, k, H * W) of equation (7) on the kept frames alone.

        Where samples keep different numbers of frames, k is the largest and the rows beyond are padding.
        """
        frames = analysis.features["frames"]
        if target == "frames":
            found: Tensor = self.frame_attention(frames)
            return found
        if "frames" in masks:
            kept = masks["frames"]
            order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(kept.sum(1).max())]
            frames = frames.gather(1, order[:, :, None, None, None].expand(-1, -1, *frames.shape[2:]))
        found = self.spatial_attention(frames)
        return found.flatten(2)

    def forward(
        self, frames: Tensor, keep: Keep, sequence: Sequence[int], *, fill: bool = False
    ) -> tuple[Partial, Tensor]:
        """The differentiable view: what ``restore`` would give for a batch that keeps equally many frames.

        frames: (B, T, 3, H, W). Also returns the kept frames before pixels were dropped. Masks are
        straight-through, the gradient by which the attention learns. With ``fill`` a dropped pixel is the mean
        of the kept ones rather than zero, which a ViT that never saw holes can bear.
        """
        analysis = Analysis({"frames": frames})
        masks, scores = select(self, analysis, keep, sequence)
        index = torch.arange(self.total, device=frames.device).expand(len(frames), -1)
        if "frames" in masks:
            frames, index = keep_frames(frames, masks["frames"], scores["frames"])
        if "pixels" not in masks:
            return Partial({"frames": frames, "index": index}), frames
        shape = (*frames.shape[:2], 1, self.height, self.width)
        mask = masks["pixels"].view(shape).float()
        mean = (frames * mask).sum((1, 3, 4), keepdim=True) / mask.sum((1, 3, 4), keepdim=True)
        reference = mean.detach() if fill else torch.zeros_like(mean)
        kept = weigh(frames, reference, mask, scores["pixels"].view(shape))
        return Partial({"frames": kept, "index": index}, {"frames": mask}), frames

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        return latents_of(features["frames"], masks, params)

    def export(self) -> Exported:
        """Both attentions as networks; that of pixels takes frames one by one."""
        clip = TensorSpec((self.total, 3, self.height, self.width))
        frame = TensorSpec((3, self.height, self.width))
        pixels = Network(lambda x: self.spatial_attention(x[:, None])[:, 0], {"frame": frame}, ("scores",))
        return Exported(networks={"frames": Network(self.frame_attention, {"frames": clip}, ("scores",)),
                                  "pixels": pixels})  # fmt: skip

    def server_state(self) -> Sequence[str]:
        """Nothing: the attentions choose on the device."""
        return ()

    def decoder_state(self) -> Mapping[str, Tensor]:
        """Nothing, as ``server_state`` says."""
        return {}

    def restore(self, latent: Latent) -> Partial:
        """Zero-filled frames X'_M and the mask M, which is left out where every pixel was sent."""
        mask = latent.symbols["mask"]
        received = latent.symbols["frames"] if latent.side["coding"] == "raw" else self._expand(latent)
        frames = from_eight_bits(received)[None]
        index = torch.from_numpy(np.flatnonzero(latent.symbols["kept"]))[None]
        features = {"frames": frames, "index": index}
        if mask.all():
            return Partial(features)
        return Partial(features, {"frames": torch.from_numpy(mask).float()[None, :, None]})

    def _expand(self, latent: Latent) -> UInt8:
        """The kept pixels of a picture or video, uint8 (k, H, W, 3), zero elsewhere."""
        mask, coding = latent.symbols["mask"], latent.side["coding"]
        if coding in CODECS:
            try:
                clip: UInt8 = videos.decode_clip(latent.side["video"], coding, *mask.shape) * mask[..., None]
            except DataError as error:
                raise CorruptStream(str(error)) from error
            return clip
        tall = pictures.decode_picture(latent.side["picture"], mask.size, formats=(coding,))
        if tall.shape != (len(mask) * self.height, self.width, 3):
            raise CorruptStream(f"the picture is {tall.shape[1]}x{tall.shape[0]}, not {len(mask)} frames")
        frames: UInt8 = pictures.unstack_frames(tall, len(mask)) * mask[..., None]
        return frames

    def panels(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], partial: Partial
    ) -> list[Panel]:
        """The clip, the scores that frames and then pixels were chosen by, each over it, and what was received."""
        source, received = usual(features, partial)
        frames = eight_bits(features["frames"])[0]
        maps = []
        if "frames" in masks:
            found = self.scores(analysis, "frames", {})[0]
            maps.append(self._map("frame attention", found[:, None, None], frames))
        if "pixels" in masks:
            kept = masks["frames"][0] if "frames" in masks else masks["pixels"].new_ones(self.total)
            found = self.scores(analysis, "pixels", {t: m for t, m in masks.items() if t == "frames"})[0]
            heat = found.new_full((self.total, self.height, self.width), float("nan"))
            heat[kept] = found[: int(kept.sum())].view(-1, self.height, self.width)
            maps.append(self._map("spatial attention on kept frames", heat, frames))
        return [source, *maps, received]

    def _map(self, title: str, scores: Tensor, frames: npt.NDArray[np.uint8]) -> Panel:
        """Scores that broadcast to (T, H, W), NaN where there are none, over frames (T, H, W, 3)."""
        known = scores[~scores.isnan()]
        heat = side_by_side(as_array(scores.expand(frames.shape[:3])))
        return Panel(f"{title}, {float(known.min()):.3g} to {float(known.max()):.3g}", side_by_side(frames), heat)
