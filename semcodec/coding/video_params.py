"""The video codecs that there are and what they can do; no torch, no FFmpeg, for spec functions and listings."""

from __future__ import annotations

from dataclasses import dataclass

LEAST = 32
"""Pixels a side, below which x265 gives other bytes from run to run, or crashes."""
PLANAR = {8: ("gray", "yuv420p", "yuvj420p"), 10: ("gray10le", "yuv420p10le")}
"""By bits of a value, FFmpeg's names of what holds such values in its first plane."""


@dataclass(frozen=True)
class Codec:
    """encoder, form: FFmpeg's names of the encoder and of its bare stream. title: what messages call a stream.

    worst: the coarsest quantiser, of constant rate factors and of constant quantisers alike. grey: whether the encoder
    takes planes without chroma.
    """

    encoder: str
    form: str
    title: str
    worst: int
    grey: bool = True


CODECS = {
    "h264": Codec("libx264", "h264", "an H.264", 51),
    "h265": Codec("libx265", "hevc", "a hevc", 51),
    "av1": Codec("libsvtav1", "obu", "a obu", 63, grey=False),
}


def rate_factor(codec: str, quality: int) -> int:
    """A codec's constant rate factor for a quality from 1, its coarsest, to 100, its most faithful."""
    worst = CODECS[codec].worst
    return worst - round((quality - 1) * worst / 99)
