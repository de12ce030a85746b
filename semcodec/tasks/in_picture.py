"""What tasks have in common whose answers lie in places of a picture."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from semcodec.boxes import Letterbox
from semcodec.specs import InputRequest
from semcodec.tasks.base import Told
from semcodec.tasks.classification import Classification
from semcodec.tasks.prediction import Size
from semcodec.tasks.source import SOURCE, read_source, write_source

if TYPE_CHECKING:
    from semcodec.panels import UInt8
    from semcodec.types import Sink, Source


class InPicture(Classification):
    """Packets say the source's size. A device that answers itself names one class, as for classification.

    listed: the key of ``describe``'s prediction that holds what a server found.
    """

    draws = True
    side = SOURCE
    listed: ClassVar[str]

    @abstractmethod
    def summed(self, told: Told) -> str:
        """What was found in a picture, in a line."""

    def write_side(self, sink: Sink, size: Size | None, request: InputRequest) -> None:
        write_source(sink, size, request)

    def read_side(self, source: Source) -> None:
        read_source(source)

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
