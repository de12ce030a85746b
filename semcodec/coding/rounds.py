"""Methods whose server answers a first round and may ask for a second: the server's end, and its reply in the packet.

``SecondRound`` is what a server says to a first round. Today the Encoder itself runs it, in the device's process, and
both rounds travel in one packet.

Each round is a layer there, so that the first alone decodes. The second begins with the reply: one byte where the
server is sure, five where it asks for more. The five and their chunk's own five (size and checksum) stand for what a
second packet costs beside its content, whose head would have twelve bytes or a little more; so no round comes for
nothing.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from semcodec.coding.counting import at_server
from semcodec.coding.patches import Bool
from semcodec.errors import CorruptStream
from semcodec.interfaces import Backbone
from semcodec.types import Latent, Partial, Sink, Source

if TYPE_CHECKING:
    from torch import Tensor

SURE, MORE = b"\0", b"\1"


@dataclass(frozen=True)
class Look:
    """What a server makes of the first rounds of B samples.

    doubt: its min-entropy in bits, float64 (B,). scores: the importance (B, N) of each unit that it may ask for, or
    None where it does not care which.
    """

    doubt: Tensor
    scores: Tensor | None = None


class SecondRound(ABC):
    """The server's end of a method with two rounds: it is given first rounds as they arrive, and asks for more.

    First ``look``; then a Selector chooses units, by the scores where there are any; then ``ask``.

    model: answers the first round. restore: the Encoder's, of a Latent with the first round alone.
    """

    def __init__(self, model: Backbone, restore: Callable[[Latent], Partial]) -> None:
        self.model, self.restore = model, restore

    def received(self, latents: Sequence[Latent]) -> Partial:
        """What is restored of several samples, alike in shape, as one batch where the model is."""
        from torch import nn

        from semcodec.tensors import place_all, stack

        partials = [self.restore(latent) for latent in latents]
        features, present = stack([p.features for p in partials]), stack([p.present for p in partials])
        weight = next(self.model.parameters(), None) if isinstance(self.model, nn.Module) else None
        if weight is None:
            return Partial(features, present)
        return Partial(place_all(features, weight.device), place_all(present, weight.device))

    def look(self, first: Sequence[Latent]) -> Look:
        """The server's doubt about samples of which only the first round came, and what it would like to see."""
        with at_server():
            return self.answer(first)

    @abstractmethod
    def answer(self, first: Sequence[Latent]) -> Look:
        """What ``look`` gives, in the process that it is called in."""

    def ask(self, chosen: Bool, doubt: float, sure: float) -> Bool:
        """Of one sample's chosen units, bool of any shape, those that are asked for: all or none.

        doubt: in bits, of ``look``. sure: least doubt, in bits, to ask for any.
        """
        asked: Bool = chosen & (doubt >= sure)
        return asked


def bits_of_doubt(logits: Tensor) -> Tensor:
    """Min-entropy -log2 max p, in bits, float64 (B,), of logits (B, classes)."""
    return -logits.double().log_softmax(1).amax(1) / math.log(2)


def write_reply(more: bool, first: bytes, sink: Sink) -> None:
    """End the first round and write what the server says to it. ``first``: bytes that tell this first round."""
    sink.layer()
    sink.blob("reply", MORE + zlib.crc32(first).to_bytes(4, "little") if more else SURE, side=True)


def read_reply(first: bytes, source: Source) -> bool:
    """Whether a second round follows: not where the stream was cut after the first. Raises CorruptStream."""
    if not source.layer():
        return False
    reply = source.blob("reply", 5)
    if reply == SURE:
        return False
    if reply != MORE + zlib.crc32(first).to_bytes(4, "little"):
        raise CorruptStream("the second round belongs to another first one; the stream is damaged, get it again")
    return True
