"""A Selector that has no numpy form, and so no place on a device without torch."""

from __future__ import annotations

from semcodec.component import Component
from semcodec.interfaces import Selector

COMPONENT = Component(
    "selector", "of-torch", f"{__name__}:OfTorch", "keeps everything", traits={"abilities": ("keep",)}
)


class OfTorch(Selector):
    """Keeps everything."""

    def keep(self, scores, budget, sequence):
        return scores > -1
