"""What a caller may hand to a pipeline as one sample: pixels, a picture in memory, a file, a sample of a data set."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from semcodec.data import open_input
from semcodec.errors import DataError, UsageError
from semcodec.specs import InputRequest

if TYPE_CHECKING:
    from PIL.Image import Image

    from semcodec.data.base import UInt8

    Sample = UInt8 | Image | str | os.PathLike[str]


def read(source: Sample, request: InputRequest) -> tuple[UInt8, tuple[int, int] | None]:
    """uint8 pixels with a batch axis of one, as ``request`` wants them, and the source's size where that counts.

    An array is taken as it is: (T, H, W, 3) or (H, W, 3) of the size that the model takes. A Pillow image and a file
    are turned upright, resized and cropped, or letterboxed; "DATASET:INDEX" is a sample of a test split.
    Raises DataError for what cannot be read, UsageError for anything else.
    """
    if isinstance(source, str | os.PathLike):
        found = open_input(os.fspath(source), request)
        return found.pixels, found.size
    from PIL.Image import Image

    if isinstance(source, Image):
        if request.frames is not None:
            raise DataError(f"the model takes clips of {request.frames} frames, not one image")
        from semcodec.data.images import from_picture

        pixels, size = from_picture(source, request)
        return pixels[None], size if request.placed else None
    if not hasattr(source, "__array__"):
        what = f"{type(source).__module__}.{type(source).__qualname__}"
        raise UsageError(f"encode takes uint8 pixels, a Pillow image, a path or 'DATASET:INDEX', not {what}")
    return np.asarray(source)[None], None  # shape and dtype are the pipeline's to check
