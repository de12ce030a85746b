"""Methods whose server answers a first round and may ask for a second: the reply, in the packet that holds both.

Each round is a layer, so that the first alone decodes. The second begins with the reply: one byte where the server is
sure, five where it asks for more. The five and their chunk's own five (size and checksum) stand for what a second
packet costs beside its content, whose head would have twelve bytes or a little more; so no round comes for nothing.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING

from semcodec.errors import CorruptStream
from semcodec.types import Sink, Source

if TYPE_CHECKING:
    from torch import Tensor

SURE, MORE = b"\0", b"\1"


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
