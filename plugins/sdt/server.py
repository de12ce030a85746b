"""The server's end of SDT: it answers the poor image and asks for patches by its class token's attention."""

from __future__ import annotations

from collections.abc import Sequence

from semcodec.coding.rounds import Look, SecondRound, bits_of_doubt
from semcodec.interfaces import Latent


class AttentiveServer(SecondRound):
    """Scores patches by the attention that the class token of ``model`` pays them in the first image, enlarged."""

    def answer(self, first: Sequence[Latent]) -> Look:
        logits, attention = self.model.attend(self.received(first).features)
        return Look(bits_of_doubt(logits), attention)
