"""What tasks have in common whose answers lie in places of a picture."""

from __future__ import annotations

import math
import zlib
from abc import abstractmethod
from io import BytesIO
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from semcodec.boxes import Letterbox
from semcodec.container.primitives import read_varint, varint
from semcodec.errors import CorruptStream, StreamError
from semcodec.tasks.base import Told
from semcodec.tasks.classification import Classification
from semcodec.tasks.prediction import Size
from semcodec.tasks.source import OfSource

if TYPE_CHECKING:
    from semcodec.panels import UInt8


MOST_PLACES = 1 << 26
"""Of a mask or a picture that a server answers."""


class InPicture(OfSource, Classification):
    """Packets say the source's size. A device that answers itself names one class, as for classification.

    listed: the key of ``describe``'s prediction that holds what a server found.
    """

    listed: ClassVar[str]

    @abstractmethod
    def summed(self, told: Told) -> str:
        """What was found in a picture, in a line."""

    def fields(self, told: Told) -> list[tuple[str, Any]]:
        return [("found", self.summed(told))] if self.listed in told["prediction"] else super().fields(told)

    def cells(self, told: Told) -> list[tuple[str, Any]]:
        return [("found", self.summed(told))] if self.listed in told["prediction"] else super().cells(told)

    def headline(self, told: Told) -> list[str]:
        return [self.summed(told)] if self.listed in told["prediction"] else super().headline(told)


def cropped(pixels: UInt8, source: Size) -> UInt8:
    """The model's input (H, W, 3) without what a letterbox put around the picture."""
    place = Letterbox.of(*source, pixels.shape[1], pixels.shape[0])
    across, down = place.inside
    return pixels[place.top : place.top + down, place.left : place.left + across]


def pack_places(places: UInt8, source: Size) -> bytes:
    """As a server answers values of all places (H, W) or (H, W, C) of a picture: their and its source's size, deflated.

    source: width and height.
    """
    sides = (*places.shape[1::-1], *source)
    return b"".join(map(varint, sides)) + zlib.compress(places.tobytes(), 6)


def unpack_places(data: bytes, what: str, channels: tuple[int, ...] = ()) -> tuple[UInt8, Size]:
    """The inverse of ``pack_places``: values (H, W, *channels) and the source's size. what: that messages are about.

    Raises CorruptStream for what cannot be read, is of more than ``MOST_PLACES``, or of other values than it says.
    """
    stream = BytesIO(data)
    try:
        width, height, *size = (read_varint(stream, what) for _ in range(4))
        if not 0 < width * height <= MOST_PLACES or min(size) < 1:
            raise CorruptStream(f"{what} is of {width}x{height} places, of a picture of {size[0]}x{size[1]}")
        count = math.prod((width, height, *channels))
        inflater = zlib.decompressobj()
        values = inflater.decompress(stream.read(), count)
    except (StreamError, zlib.error) as error:
        raise CorruptStream(f"{what} cannot be read: {error}") from error
    if not inflater.eof or inflater.unused_data or len(values) != count:
        raise CorruptStream(f"{what} is not of {width}x{height} places")
    return np.frombuffer(values, np.uint8).reshape(height, width, *channels), (size[0], size[1])
