"""The DeepISC encoder: a latent, a segmentation, and the residual to what the receiver synthesises from the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from semcodec.device_half import Exported, Network
from semcodec.interfaces import Analysis, Encoder, Features, Latent, Partial
from semcodec.specs import FeatureSpec, TensorSpec
from semcodec.tensors import as_array, beside, eight_bits, from_eight_bits
from semcodec.training.channel_quantiser import ChannelQuantiser
from semcodec.training.frame_attention import FrameAttention
from semcodec_plugins.deepisc import residual
from semcodec_plugins.deepisc.coding import DeepISCCoding
from semcodec_plugins.deepisc.counting import SegmentTables
from semcodec_plugins.deepisc.networks import LatentEncoder, Segmentation, Synthesiser, one_hot, pad
from semcodec_plugins.deepisc.sending import UInt8, latents_of
from semcodec_plugins.deepisc.spec import CLASSES, LATENT, LATENT_BITS, LATENT_STRIDE, shapes

if TYPE_CHECKING:
    from semcodec.panels import Panel

SENT_BY = ("quantiser.", "tables.", "synthesiser.")
"""Beginnings of the names of what the receiver needs too."""


class DeepISC(nn.Module, Encoder):
    """Sends a latent, a segmentation and the residual of a picture or of some frames of a clip.

    features: {"frames": float32 (T, 3, H, W) in [0, 1], "index": int64 (T,)} or {"image": float32 (3, H, W)}.

    The residual is taken against what the receiver will synthesise, from dequantised integers, frame by frame as it
    does. Where its machine rounds otherwise, a value is off by as much, some 8-bit level at most; nothing that is read
    depends on it. NaN and infinity are refused.
    """

    def __init__(self, features: FeatureSpec, **params: Any) -> None:
        super().__init__()
        self.features, self.shapes = features, shapes(features)
        self.units = {"frames": self.shapes.total}
        self.frame_attention = FrameAttention(self.shapes.total) if self.shapes.name == "frames" else None
        self.latent_encoder = LatentEncoder()
        self.segmentation = Segmentation()
        self.quantiser = ChannelQuantiser(LATENT, unit=True)
        self.tables = SegmentTables()
        self.synthesiser = Synthesiser()
        self.register_load_state_dict_post_hook(_forget_coding)  # type: ignore[no-untyped-call]  # torch has no type

    @cached_property
    def coding(self) -> DeepISCCoding:  # type: ignore[override]  # it can be written to, as the base's can
        """Made of the counts as they are; anew after weights were loaded, and by ``settle``."""
        state = self.state_dict()
        counts = {name: as_array(state[name]) for name in DeepISCCoding.state_names}
        return DeepISCCoding(self.features, counts)

    def settle(self) -> None:
        """Make tables of the symbols that were counted. Raises UsageError where there were none."""
        self.quantiser.finish()
        self.tables.finish()
        _forget_coding(self)

    def scores(self, analysis: Analysis, target: str, masks: Mapping[str, Tensor]) -> Tensor:
        """M_FA (B, T) of STAE's equation (6). A still has one frame, which is kept."""
        x = analysis.features[self.shapes.name]
        return x.new_ones(len(x), 1) if self.frame_attention is None else self.frame_attention(x)

    # -- the device --------------------------------------------------------------------------------------------------

    def encode(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], params: Mapping[str, Any]
    ) -> list[Latent]:
        return latents_of(self, eight_bits(features[self.shapes.name]), masks, params)

    @torch.no_grad()
    def describe(self, frames: UInt8) -> tuple[npt.NDArray[np.int32], UInt8]:
        """Frames (k, H, W, 3) to the latent's symbols (LATENT, k, h, w) and classes (k, h', w')."""
        x = pad(from_eight_bits(frames).to(self.quantiser.low.device))
        symbols = self.quantiser.symbols(self.latent_encoder(x), LATENT_BITS).swapaxes(0, 1)
        return np.ascontiguousarray(symbols), as_array(self.segmentation(x).argmax(1).byte())

    def export(self) -> Exported:
        """Every network, and the quantiser."""
        found = self.shapes
        (h, w), (height, width) = found.latent, found.segments
        frame = {"frames": TensorSpec((3, h * LATENT_STRIDE, w * LATENT_STRIDE))}
        sent = {"latent": TensorSpec((LATENT, h, w)), "segments": TensorSpec((CLASSES, height, width))}
        networks = {
            "latent": Network(self.latent_encoder, frame, ("values",)),
            "segments": Network(self.segmentation, frame, ("logits",)),
            "synthesise": Network(self.synthesiser, sent, ("frames",)),
        }
        if self.frame_attention is not None:
            clip = {"frames": TensorSpec((found.total, 3, found.height, found.width))}
            networks["frames"] = Network(self.frame_attention, clip, ("scores",))
        names = [f"quantiser.{name}" for name in ("low", "high", "counts", "centroids")] + ["tables.counts"]
        state = self.state_dict()
        return Exported({name: as_array(state[name]) for name in names}, networks)

    # -- the server --------------------------------------------------------------------------------------------------

    def server_state(self) -> Sequence[str]:
        """All but what describes a frame, which is needed on the device alone."""
        return SENT_BY

    def decoder_state(self) -> Mapping[str, Tensor]:
        """The same."""
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith(SENT_BY)}

    def restore(self, latent: Latent) -> Partial:
        sent, kept = latent.symbols, self.coding.kept(latent)
        made = self.synthesise(sent["latent"], sent["segments"])
        mask = self.coding.mask(kept, latent.side["pixels"])
        frames = from_eight_bits(residual.correct(made, mask, sent["residual"], latent.side["step"]))
        if self.frame_attention is None:
            return Partial({"image": frames})
        return Partial({"frames": frames[None], "index": torch.from_numpy(np.flatnonzero(kept))[None]})

    # -- both ends ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def synthesise(self, symbols: npt.NDArray[np.int32], classes: UInt8) -> UInt8:
        """Frames (k, H, W, 3) of the latent's symbols and classes as ``describe`` gives them."""
        values = self.quantiser.values(symbols, LATENT_BITS).transpose(0, 1)
        frames = self.synthesiser(values, one_hot(beside(classes, values)))
        return eight_bits(frames[..., : self.shapes.height, : self.shapes.width])

    def panels(
        self, features: Features, analysis: Analysis, masks: Mapping[str, Tensor], partial: Partial
    ) -> list[Panel]:
        """The source, the segmentation and what is synthesised of the kept frames, and what was received."""
        from semcodec.panels import Panel, side_by_side, usual

        source, received = usual(features, partial)
        clip = eight_bits(features[self.shapes.name])[0].reshape(-1, self.shapes.height, self.shapes.width, 3)
        frames = clip[as_array(masks["frames"][0])] if "frames" in masks else clip
        symbols, classes = self.describe(np.ascontiguousarray(frames))
        return [
            source,
            Panel("segmentation of kept frames", heat=side_by_side(classes.astype(np.float32))),
            Panel("synthesised from latent and segmentation", side_by_side(self.synthesise(symbols, classes))),
            received,
        ]


def _forget_coding(encoder: nn.Module, *_: Any) -> None:
    encoder.__dict__.pop("coding", None)
