"""The server's end of A-MOT: it answers from the first patches, and asks for others at random where it doubts."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from semcodec.coding.patches import whole
from semcodec.coding.rounds import Look, SecondRound, bits_of_doubt
from semcodec.interfaces import Latent


class DoubtingServer(SecondRound):
    """Doubts by the min-entropy (equation 13) of what ``model`` answers; which patches come next it does not choose."""

    def answer(self, first: Sequence[Latent]) -> Look:
        """Of images whose missing pixels have the mean colour of the others."""
        partials = [whole(self.received([latent])) for latent in first]
        image = torch.cat([partial.features["image"] for partial in partials])
        present = torch.cat([partial.present["image"] for partial in partials])
        mean = image.sum((2, 3), keepdim=True) / present.sum((2, 3), keepdim=True)
        filled = {"image": torch.where(present > 0, image, mean)}
        return Look(bits_of_doubt(self.model.tail(self.model.head(filled, "input"), "input")))
