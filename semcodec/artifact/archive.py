"""The zip around an artifact: members that are stored, no larger than the file, and read into memory alone."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from semcodec._files import whole_file
from semcodec.errors import WeightsError, first_line

MOST_BYTES = 1 << 30
"""Of a whole artifact."""
MOST_MEMBERS = 4096
_END = struct.Struct("<4s4H2LH")
_DIRECTORY = 1 << 20
"""Most bytes of a zip's list of members, which is read before any of them."""
_NPY_HEADER = 4096
_EPOCH = (1980, 1, 1, 0, 0, 0)
KINDS = "biuf"
"""Of arrays: what numpy calls bool, signed and unsigned integers and floats."""


def write_archive(path: Path, members: Mapping[str, bytes]) -> None:
    """A file that is complete or not there, the same for the same members.

    Raises OSError, and WeightsError where it would be too large to be read.
    """
    total = sum(map(len, members.values()))
    if total > MOST_BYTES - 2 * _DIRECTORY or len(members) > MOST_MEMBERS:
        raise WeightsError(f"{path}: {total:,} bytes are more than the {MOST_BYTES:,} that a device reads")
    with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)


class Archive:
    """An artifact's members by name. Made by ``opened``."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]) -> None:
        self.path, self._archive, self._members = path, archive, members

    @property
    def names(self) -> list[str]:
        """Of the members, in order."""
        return list(self._members)

    def size(self, name: str) -> int:
        """Bytes of a member that is there."""
        return self._members[name].file_size

    def read(self, name: str, most: int = MOST_BYTES) -> bytes:
        """One member of at most so many bytes. Raises WeightsError for one that is missing, larger or damaged."""
        info = self._members.get(name)
        if info is None:
            raise WeightsError(f"{self.path}: lacks {name}; export it again")
        if info.file_size > most:
            raise WeightsError(f"{self.path}: {name} has {info.file_size:,} bytes, of at most {most:,}")
        try:
            return self._archive.read(info)
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError, ValueError) as error:
            raise _damaged(self.path, f"{name}: {first_line(error)}") from error


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """A file of ``write_archive``. Raises OSError, WeightsError for anything else, before memory is taken for it."""
    if path.exists() and not path.is_file():
        raise WeightsError(f"{path} is a folder, a pipe or a device, and no file that semcodec export wrote")
    with path.open("rb") as file:
        size = _check_end(path, file)
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise _damaged(path, first_line(error)) from error
        with archive:
            yield Archive(path, archive, _checked(path, archive.infolist(), size))


def _check_end(path: Path, file: IO[bytes]) -> int:
    """The file's size. Raises WeightsError where it is too large, or its last bytes are not those of such a zip."""
    size = os.fstat(file.fileno()).st_size
    if size > MOST_BYTES:
        raise WeightsError(f"{path} has {size:,} bytes, of at most {MOST_BYTES:,}")
    head = file.read(4)
    if size < _END.size or head != b"PK\x03\x04":
        raise WeightsError(f"{path} is no file that semcodec export wrote, or it is cut short; export it again")
    file.seek(-_END.size, os.SEEK_END)
    mark, _, _, _, count, directory, offset, comment = _END.unpack(file.read(_END.size))
    file.seek(0)
    if mark != b"PK\x05\x06" or comment or offset + directory + _END.size != size:
        raise _damaged(path, "its end is missing")
    if directory > _DIRECTORY or count > MOST_MEMBERS:
        raise WeightsError(f"{path} lists {count:,} members, more than any file that semcodec export wrote")
    return size


def _checked(path: Path, members: list[zipfile.ZipInfo], size: int) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    total = 0
    for info in members:
        total += info.file_size
        stored = info.compress_type == zipfile.ZIP_STORED and info.file_size == info.compress_size
        if not stored or info.flag_bits & 1 or total > size:
            raise WeightsError(f"{path}: {info.filename!r} is packed, and what semcodec export writes never is")
        if info.filename in found:
            raise _damaged(path, f"{info.filename!r} is there twice")
        found[info.filename] = info
    return found


def array_bytes(array: npt.NDArray[Any]) -> bytes:
    """In numpy's own format."""
    file = BytesIO()
    np.save(file, np.ascontiguousarray(array).reshape(array.shape), allow_pickle=False)
    return file.getvalue()


def read_array(data: bytes) -> npt.NDArray[Any]:
    """What ``array_bytes`` gave, read-only. Raises ValueError for anything else, before memory is taken for it."""
    file, form = BytesIO(data), cast("Any", np.lib.format)
    if form.read_magic(file) != (1, 0):
        raise ValueError("no array of this version")
    shape, fortran, dtype = form.read_array_header_1_0(file, max_header_size=_NPY_HEADER)
    if fortran or dtype.kind not in KINDS or prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError("an array whose size is not that of its bytes")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape)


def _damaged(path: Path, why: str) -> WeightsError:
    return WeightsError(f"{path} is damaged ({why}); export it again")
