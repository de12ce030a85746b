"""Packets that tell their source's size, so that a receiver tells what lies in a picture in that picture's pixels."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from semcodec.container.primitives import read_varint, varint
from semcodec.errors import CorruptStream, TruncatedStream
from semcodec.specs import InputRequest
from semcodec.tasks.base import Task
from semcodec.tasks.prediction import Size

if TYPE_CHECKING:
    from semcodec.container.packets import Packet
    from semcodec.types import Sink, Source

SOURCE = "source"
"""The chunk before the Encoder's own: two varints, width and height of the source."""
MAX_SIZE = 10
"""Bytes of that chunk."""


class OfSource(Task):
    """A task whose packets say the source's size."""

    draws = True
    side = SOURCE

    def write_side(self, sink: Sink, size: Size | None, request: InputRequest) -> None:
        """Write it; without a size that of the input."""
        sides = size or (request.width, request.height)
        sink.blob(SOURCE, b"".join(varint(side) for side in sides), side=True)

    def read_side(self, source: Source) -> None:
        source.blob(SOURCE, MAX_SIZE)


def source_size(packet: Packet) -> Size:
    """Raises CorruptStream where a packet does not say what picture its answer lies in."""
    data = packet.chunks[0].verify(SOURCE) if packet.chunks else b""
    stream = BytesIO(data)
    try:
        width, height = (read_varint(stream, SOURCE) for _ in range(2))
    except TruncatedStream:
        width = height = 0
    if not (width and height) or stream.read(1):
        raise CorruptStream(f"packet {packet.sequence}: does not have its source's width and height")
    return width, height
