"""The device's part of a backbone."""

from __future__ import annotations

from collections.abc import Callable

from semcodec.interfaces import Backbone, Encoder
from semcodec.types import Features


class Head:
    """Model input to features at the cut: what the Encoder reads of them, and no more.

    backbone: None where the cut is the input itself, so that nothing is computed. A head of fewer channels is made when
    it is first called, of the weights that are there then. (Two threads that call it first make two, which are alike.)
    """

    def __init__(self, backbone: Backbone | None, cut: str, encoder: Encoder) -> None:
        self.backbone, self.cut, self.encoder = backbone, cut, encoder
        self._narrowed: Callable[[Features], Features] | None = None

    def __call__(self, x: Features) -> Features:
        """x: model input, batch first."""
        if self.backbone is None:
            return x
        if not self.encoder.channels:
            return self.backbone.head(x, self.cut)
        if self._narrowed is None:
            self._narrowed = self.backbone.narrowed(self.cut, self.encoder.channels)
        return self._narrowed(x)
