"""Methods whose server answers a first round and may ask for a second: the server's end, and its reply in the packet.

``SecondRound`` is what a server says to a first round. A file is written by an Encoder that runs it itself, in the
device's process; where both ends are apart ``Device.begin`` makes the first round's packet, ``Server.reply`` says what
else is wanted, and ``Device.finish`` makes the packet of both rounds, which is that of the file.

Each round is a layer there, so that the first alone decodes. Over a network the second round is a packet of its own,
``Device.second``, without what the server has said itself, and ``Server`` joins both.

In a file the second begins with the reply: one byte where the server is sure, five where it asks for more. The five and
their chunk's own five (size and checksum) stand for what a second packet costs beside its content, whose head would
have twelve bytes or a little more; so no round comes for nothing.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec.coding.counting import at_server
from semcodec.coding.patches import Bool
from semcodec.errors import CorruptStream
from semcodec.interfaces import Backbone
from semcodec.types import Features, Latent, Partial, Sink, Source

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


class TwoRounds(ABC):
    """What an Encoder has beside ``Encoder`` whose server answers a first round and may ask for a second.

    Its models are the server's. A Latent of a first round alone is one whose server was sure.
    """

    grid: tuple[int, int]
    """Rows and columns of the units that may be asked for."""

    @property
    @abstractmethod
    def second_round(self) -> SecondRound:
        """The server's end, to be given Latents that hold a first round alone."""

    @abstractmethod
    def begin(self, features: Features, masks: Mapping[str, Tensor], params: Mapping[str, Any]) -> list[Latent]:
        """The first rounds of a batch. masks: (B, N) bool by target, where the device has chosen."""

    @abstractmethod
    def offered(self, masks: Mapping[str, Tensor], row: int) -> Bool | None:
        """Units, bool ``grid``, that the device would send next of a sample; None where the server is to choose."""

    @abstractmethod
    def finish(self, features: Features, first: Latent, asked: Bool, params: Mapping[str, Any]) -> Latent:
        """Both rounds of one sample, features with a batch axis of one. asked: units of the second, bool ``grid``."""

    @abstractmethod
    def write_second(self, latent: Latent, sink: Sink) -> None:
        """What ``read_second`` reads: of a Latent of both rounds the second, less what the server knows."""

    @abstractmethod
    def read_second(self, first: Latent, asked: Bool | None, source: Source) -> Latent:
        """The Latent of both rounds. first: of the first alone. asked: units that the server asked for, bool ``grid``;
        None where the device has chosen. Raises CorruptStream."""


def write_request(asked: Bool | None, more: bool) -> bytes:
    """What a server sends to a device: whether it wants more and, where it has chosen, which units."""
    if not more:
        return SURE
    return MORE if asked is None else MORE + np.packbits(asked).tobytes()


def read_request(request: bytes, grid: tuple[int, int], offered: Bool | None) -> Bool:
    """The units, bool ``grid``, that a server asks for: of those ``offered``, all. Raises CorruptStream."""
    if request == SURE:
        return np.zeros(grid, bool)
    count = grid[0] * grid[1]
    due = 1 if offered is not None else 1 + -(-count // 8)
    if len(request) != due or request[:1] != MORE:
        raise CorruptStream(
            "the server's reply to a first round is none that is known here; both ends need one version"
        )
    if offered is not None:
        return offered
    bits = np.unpackbits(np.frombuffer(request[1:], np.uint8)).astype(bool)
    if bits[count:].any() or not bits.any():
        raise CorruptStream("the server asks for units that are not there, or for none")
    return bits[:count].reshape(grid)


def requested(request: bytes, grid: tuple[int, int]) -> Bool | None:
    """The units, bool ``grid``, that a server has chosen by a message of its own; None where the device chooses.

    Raises CorruptStream.
    """
    return None if request == MORE else read_request(request, grid, None)


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
