"""The principal components of one tensor's channels, and their quantiser."""

from __future__ import annotations

from semcodec.training.channel_quantiser import ChannelQuantiser
from semcodec.training.principal_components import PrincipalComponents


class Basis(PrincipalComponents):
    """Components and a quantiser of each."""

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__(channels, rank)
        self.quantiser = ChannelQuantiser(rank)

    def even_steps(self) -> None:
        """Give all components ranges of equal width, hence equal steps: what varies less costs fewer bits.

        That is reverse water-filling, the least squared error of a rate. To be called when ranges are known.
        """
        quantiser = self.quantiser
        half = (quantiser.high - quantiser.low).max() / 2
        middle = (quantiser.high + quantiser.low) / 2
        quantiser.low.copy_((middle - half).half())
        quantiser.high.copy_((middle + half).half())
