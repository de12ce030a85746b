"""The DeepISC encoder: a latent, a segmentation, and the residual to what the receiver synthesises from the two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from semcodec.errors import CorruptStream
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial, Sink, Source
from semcodec.priors import Bits
from semcodec.specs import FeatureSpec
from semcodec.tensors import eight_bits, from_eight_bits
from semcodec.training.channel_quantiser import ChannelQuantiser
from semcodec_plugins.deepisc import residual, segments
from semcodec_plugins.deepisc.networks import LatentEncoder, Segmentation, Synthesiser, one_hot, padded
from semcodec_plugins.deepisc.spec import LATENT, LATENT_BITS, shapes
from semcodec_plugins.stae.attention import FrameAttention

if TYPE_CHECKING:
    from semcodec.panels import Panel

UInt8 = npt.NDArray[np.uint8]
SENT_BY = ("quantiser.", "tables.", "synthesiser.")
"""Beginnings of the names of what the receiver needs too."""


class DeepISC(nn.Module, Encoder):
    """features: {"frames": float32 (T, 3, H, W) in [0, 1], "index": int64 (T,)} or {"image": float32 (3, H, W)}.

    The residual is taken against what the receiver will synthesise, from dequantised integers, frame by frame as it
    does. Where its machine rounds otherwise, a value is off by as much, some 8-bit level at most; nothing that is read
    depends on it. NaN and infinity are refused.
    """

    def __init__(self, features: FeatureSpec, **params: Any) -> None:
        super().__init__()
        self.shapes = shapes(features)
        self.units = {"frames": self.shapes.total}
        self.frame_attention = FrameAttention(self.shapes.total) if self.shapes.name == "frames" else None
        self.latent_encoder = LatentEncoder()
        self.segmentation = Segmentation()
        self.quantiser = ChannelQuantiser(LATENT, unit=True)
        self.tables = segments.SegmentTables()
        self.synthesiser = Synthesiser()

    def scores(self, analysis: Analysis, target: str, masks: Mapping[str, Tensor]) -> Tensor:
        """M_FA (B, T) of STAE's equation (6). A still has one frame, which is kept."""
        x = analysis.features[self.shapes.name]
        return torch.ones(len(x), 1) if self.frame_attention is None else self.frame_attention(x)

    # -- the device --------------------------------------------------------------------------------------------------

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        found = self.shapes
        clips = eight_bits(features[found.name])
        latents = []
        for row, clip in enumerate(clips.reshape(-1, found.total, found.height, found.width, 3)):
            kept = masks["frames"][row].numpy() if "frames" in masks else np.ones(found.total, bool)
            frames = np.ascontiguousarray(clip[kept])
            symbols, classes = self.described(from_eight_bits(frames))
            latent = Latent({"kept": kept, "latent": symbols, "segments": classes}, dict(params))
            if self.frame_attention is None:
                del latent.symbols["kept"]
            mask = self._mask(kept, params["pixels"])
            made = self.synthesised(symbols, classes)
            latent.symbols["residual"] = residual.quantise(frames, made, mask, params["step"])
            latents.append(latent)
        return latents

    @torch.no_grad()
    def described(self, frames: Tensor) -> tuple[npt.NDArray[np.int32], UInt8]:
        """(k, 3, H, W) to the latent's symbols (LATENT, k, h, w) and classes (k, h', w')."""
        x = padded(frames)
        symbols = self.quantiser.symbols(self.latent_encoder(x), LATENT_BITS).swapaxes(0, 1)
        return np.ascontiguousarray(symbols), self.segmentation(x).argmax(1).byte().numpy()

    def write(self, latent: Latent, sink: Sink) -> None:
        sent, side = latent.symbols, latent.side
        if "kept" in sent:
            sink.symbols("kept", sent["kept"].astype(np.int32), Bits(1), side=True)
        sink.symbols("latent", sent["latent"], self.quantiser.prior(LATENT_BITS, sent["latent"][0].size))
        if side["entropy"] == "all":
            self.tables.write(sent["segments"], sink)
            residual.write_coded(sent["residual"], self._mask(self._kept(latent), side["pixels"]), sink)
        else:
            segments.write_packed(sent["segments"], sink)
            residual.write_packed(sent["residual"], side["step"], sink)

    # -- the server --------------------------------------------------------------------------------------------------

    def read(self, source: Source) -> Latent:
        found, params = self.shapes, source.params
        latent = Latent({}, {name: params[name] for name in ("frames", "pixels", "step", "entropy")})
        if self.frame_attention is not None:
            latent.symbols["kept"] = source.symbols("kept", found.total, Bits(1)).astype(bool)
        kept = self._kept(latent)
        count = int(kept.sum())
        if not count:
            raise CorruptStream("the packet keeps no frame")
        shape = (LATENT, count, *found.latent)
        prior = self.quantiser.prior(LATENT_BITS, count * found.latent[0] * found.latent[1])
        latent.symbols["latent"] = source.symbols("latent", int(np.prod(shape)), prior).reshape(shape)
        mask, step, grid = self._mask(kept, params["pixels"]), params["step"], (count, *found.segments)
        if params["entropy"] == "all":
            latent.symbols["segments"] = self.tables.read(grid, source)
            latent.symbols["residual"] = residual.read_coded(mask, step, source)
        else:
            latent.symbols["segments"] = segments.read_packed(grid, source)
            latent.symbols["residual"] = residual.read_packed(mask, step, source)
        return latent

    def decoder_state(self) -> Mapping[str, Tensor]:
        """What describes a frame is needed on the device alone."""
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith(SENT_BY)}

    def restore(self, latent: Latent) -> Partial:
        sent, kept = latent.symbols, self._kept(latent)
        made = self.synthesised(sent["latent"], sent["segments"])
        mask = self._mask(kept, latent.side["pixels"])
        frames = from_eight_bits(residual.corrected(made, mask, sent["residual"], latent.side["step"]))
        if self.frame_attention is None:
            return Partial({"image": frames})
        return Partial({"frames": frames[None], "index": torch.from_numpy(np.flatnonzero(kept))[None]})

    # -- both ends ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def synthesised(self, symbols: npt.NDArray[np.int32], classes: UInt8) -> UInt8:
        """Frames (k, H, W, 3) of the latent's symbols and classes as ``described`` gives them."""
        values = self.quantiser.values(symbols, LATENT_BITS).transpose(0, 1)
        frames = self.synthesiser(values, one_hot(torch.from_numpy(classes)))
        return eight_bits(frames[..., : self.shapes.height, : self.shapes.width])

    def _kept(self, latent: Latent) -> npt.NDArray[np.bool_]:
        kept: npt.NDArray[np.bool_] = latent.symbols.get("kept", np.ones(1, np.bool_))
        return kept

    def _mask(self, kept: npt.NDArray[np.bool_], share: float) -> npt.NDArray[np.bool_]:
        """Where the residual is sent, (k, H, W)."""
        found = self.shapes
        return residual.positions(np.flatnonzero(kept), found.height, found.width, found.residuals(share))

    def panels(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], partial: Partial
    ) -> list[Panel]:
        """The source, the segmentation and what is synthesised of the kept frames, and what was received."""
        from semcodec.panels import Panel, side_by_side, usual

        source, received = usual(features, partial)
        clip = eight_bits(features[self.shapes.name])[0].reshape(-1, self.shapes.height, self.shapes.width, 3)
        frames = clip[masks["frames"][0].numpy()] if "frames" in masks else clip
        symbols, classes = self.described(from_eight_bits(np.ascontiguousarray(frames)))
        return [
            source,
            Panel("segmentation of kept frames", heat=side_by_side(classes.astype(np.float32))),
            Panel("synthesised from latent and segmentation", side_by_side(self.synthesised(symbols, classes))),
            received,
        ]
