"""The eight ways in which a picture can lie, numbered as EXIF and TIFF number them, and how each is turned upright."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from PIL import ExifTags, Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LYING = (5, 6, 7, 8)
"""Those whose width is the upright picture's height."""


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned and mirrored as its orientation says; the same object where there is nothing to do."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def of_picture(image: Image.Image) -> int:
    """Of an opened picture, 1 to 8. A broken EXIF block says nothing, as for any viewer.

    TIFF's is 1: Pillow turns these itself, and gives their upright size from the beginning.
    """
    found = 1
    if image.format != "TIFF":
        with suppress(Exception):
            found = image.getexif().get(ExifTags.Base.Orientation, 1)
    return found if found in _TURNS else 1


def of_matrix(matrix: Sequence[int]) -> int:
    """Of a video's display matrix: nine numbers a b u, c d v, x y w.

    A point x, y of the decoded frame is shown at a x + c y, b x + d y. What lies between the eight counts as the
    nearest.
    """
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (3 if d < 0 else 2) if a < 0 else (4 if d < 0 else 1)
    return (7 if b < 0 else 6) if c < 0 else (8 if b < 0 else 5)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of an opened picture when it is upright, as its head says."""
    return (image.height, image.width) if of_picture(image) in LYING else image.size
