"""What the records of a stream say, whatever format they are written in: packets of chunks, and LOCAL records."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from semcodec.container.primitives import Scalar
from semcodec.errors import CorruptStream


@dataclass(frozen=True)
class Part:
    """A chunk to be written. ``ends_layer``: a stream cut after it still decodes."""

    name: str
    data: bytes
    side: bool = False
    ends_layer: bool = False


@dataclass(frozen=True)
class Chunk(ABC):
    """A chunk that was read. Its bytes come out only through ``verify``, which needs the name it was written under."""

    sequence: int
    side: bool
    ends_layer: bool
    _data: bytes

    @property
    def size(self) -> int:
        """Bytes of data, without the CRC."""
        return len(self._data)

    def verify(self, name: str) -> bytes:
        """The data. Raises CorruptStream unless data, name and everything before it are as written."""
        if not self.holds(name):
            raise CorruptStream(
                f"packet {self.sequence}: chunk {name!r} fails its checksum: the stream is damaged, "
                "or this Encoder reads its chunks otherwise than it wrote them"
            )
        return self._data

    @abstractmethod
    def holds(self, name: str) -> bool:
        """Whether data, name and everything before it are as written, as its format says."""


@dataclass(frozen=True)
class CheckedChunk(Chunk):
    """A chunk with a CRC-32 of its own, which went on from that of its packet up to here, ``_seed``."""

    _crc: int
    _seed: int

    def holds(self, name: str) -> bool:
        """Whether its own CRC-32 does, under that name."""
        return chunk_crc(name, self._data, self._seed) == self._crc


@dataclass(frozen=True)
class Packet:
    """One sample as received. ``params`` are all call parameters, ``overrides`` those the packet itself carries.

    layers_present < layers_total where the stream was cut at a layer's end, or layers were dropped. size: bytes
    received, head and CRCs too. mark: how many of these are the mark in front of a packet that ``cut_stream`` cut.
    """

    header_id: int
    sequence: int
    params: Mapping[str, Scalar]
    overrides: Mapping[str, Scalar]
    chunks: Sequence[Chunk]
    layers_present: int
    layers_total: int
    size: int
    mark: int = 0

    def count_chunks(self, layers: int) -> int:
        """Chunks of the first ``layers`` layers, each of which is marked as ended."""
        ends = [number for number, chunk in enumerate(self.chunks, 1) if chunk.ends_layer]
        return ends[layers - 1]


@dataclass(frozen=True)
class LocalRecord:
    """A sample that the gate kept on the device: its number, class index and probability (a float32 on the wire)."""

    sequence: int
    index: int
    probability: float


def chunk_crc(name: str, data: bytes, seed: int) -> int:
    """The CRC-32 of a chunk in its place: ``seed`` is that of its packet up to here. The NUL ends the name."""
    return zlib.crc32(data, zlib.crc32(name.encode() + b"\0", seed))
