"""Parameters and traits that Encoders of patches have in common; plugins list by them, so nothing heavy is imported."""

from __future__ import annotations

from semcodec.component import Param

CODING = (
    Param("patches", str, "raw", "how patches are sent", ("raw", "jpeg", "webp", "avif")),
    Param("quality", int, 50, "of jpeg, webp and avif", (10, 20, 30, 50, 75, 90), open=True, low=1, high=100),
)
SIDE = Param(
    "side", int, 0, "of a patch; 0: 16 pixels, 8 in small images", (8, 14, 16, 32), "build", low=0, high=128, open=True
)
UNITS = {"keep": ("patch", "patches")}
