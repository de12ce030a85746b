"""What an Encoder writes one packet to and reads one from: chunks through an entropy stage, with every byte counted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from semcodec.container.packets import Packet, Part, Scalar, StreamHeader, write_packet
from semcodec.errors import CorruptStream, DamagedLayer, PluginError, TruncatedStream

if TYPE_CHECKING:
    from semcodec.interfaces import EntropyStage
    from semcodec.priors import Prior

Int32 = npt.NDArray[np.int32]
INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class ChunkRow:
    """One line of a table of chunks. ``count``: symbols in it (0 for a blob); ``bytes`` without the chunk's CRC."""

    name: str
    kind: Literal["symbols", "blob"]
    count: int
    bytes: int
    side_bytes: int
    layer: int


@dataclass(frozen=True)
class Packed:
    """A packet's bytes and what they are: ``bytes_total == bytes_payload + bytes_side + bytes_header``.

    bytes_side: chunks flagged side, and tables inside other chunks. bytes_header: the packet's head and all CRCs.
    """

    data: bytes
    rows: tuple[ChunkRow, ...]

    @property
    def bytes_total(self) -> int:
        """All bytes of the packet."""
        return len(self.data)

    @property
    def bytes_side(self) -> int:
        """Bytes of chunks flagged side, and of tables inside other chunks."""
        return sum(row.side_bytes for row in self.rows)

    @property
    def bytes_payload(self) -> int:
        """Bytes of all other data."""
        return sum(row.bytes - row.side_bytes for row in self.rows)

    @property
    def bytes_header(self) -> int:
        """Bytes of the head and of all checksums."""
        return len(self.data) - sum(row.bytes for row in self.rows)


class _Ends:
    """What Sink and Source share. ``rows``: chunks so far; ``seconds``: time spent in the entropy stage."""

    def __init__(self, stage: EntropyStage | None) -> None:
        self._stage = stage
        self._layer = 0
        self.rows: list[ChunkRow] = []
        self.seconds = 0.0

    def _entropy(self, name: str) -> EntropyStage:
        if self._stage is None:
            raise PluginError(f"chunk {name!r}: an Encoder with the trait entropy='none' has no symbols, only blobs")
        return self._stage

    def _blob_row(self, name: str, data: bytes, side: bool) -> None:
        self.rows.append(ChunkRow(name, "blob", 0, len(data), len(data) if side else 0, self._layer))

    def _symbols_row(self, name: str, data: bytes, side: bool, count: int, prior: Prior) -> None:
        tables = len(data) if side else self._entropy(name).side_bytes(data, prior)
        if not 0 <= tables <= len(data):
            raise PluginError(f"chunk {name!r}: the entropy stage counts {tables} of {len(data)} bytes as tables")
        self.rows.append(ChunkRow(name, "symbols", count, len(data), tables, self._layer))


class PacketSink(_Ends):
    """The ``Sink`` of one packet. Misuse by an Encoder is a PluginError that names the chunk."""

    def __init__(self, stage: EntropyStage | None) -> None:
        super().__init__(stage)
        self._parts: list[Part] = []
        self._open = False  # whether the current layer holds a chunk

    def symbols(self, name: str, values: npt.NDArray[Any], prior: Prior, *, side: bool = False) -> None:
        """Code ``values``: a numpy array of any integer dtype (or bool) and shape, flattened in C order to int32."""
        flat = _flat_int32(name, values)
        stage = self._entropy(name)
        start = time.perf_counter()
        data = stage.encode(flat, prior)
        self.seconds += time.perf_counter() - start
        self._add(name, data, side)
        self._symbols_row(name, data, side, flat.size, prior)

    def blob(self, name: str, data: bytes, *, side: bool = False) -> None:
        """Bytes as they are, past the entropy stage."""
        self._add(name, data, side)
        self._blob_row(name, data, side)

    def layer(self) -> None:
        """End a layer: a stream cut here still decodes."""
        if not self._open:
            raise PluginError(f"layer {self._layer + 1} ends before it has a chunk: write one, if only an empty blob")
        last = self._parts[-1]
        self._parts[-1] = Part(last.name, last.data, last.side, ends_layer=True)
        self._layer, self._open = self._layer + 1, False

    def pack(self, header: StreamHeader, sequence: int = 0, params: Mapping[str, Scalar] | None = None) -> Packed:
        """The packet. ``params``: its call parameters; those that equal the header's are not sent."""
        return Packed(write_packet(header, sequence, params or {}, self._parts), tuple(self.rows))

    def _add(self, name: str, data: bytes, side: bool) -> None:
        if not isinstance(name, str) or not name or "\0" in name:
            raise PluginError(f"a chunk's name is a string that is not empty and has no NUL, not {name!r}")
        if not isinstance(data, bytes):
            raise PluginError(f"chunk {name!r}: expects bytes, gets {type(data).__name__}")
        self._parts.append(Part(name, data, side))
        self._open = True


class PacketSource(_Ends):
    """The ``Source`` of one packet, read as it was written: names, order and layer ends.

    params: the packet's call parameters as the pipeline checked them; those of the packet itself where left out.
    """

    def __init__(self, packet: Packet, stage: EntropyStage | None, params: Mapping[str, Any] | None = None) -> None:
        super().__init__(stage)
        self.params: Mapping[str, Any] = packet.params if params is None else params
        self._packet = packet
        self._at_end = False  # whether the last chunk read ends a layer that layer() has not confirmed

    def symbols(self, name: str, count: int, prior: Prior) -> Int32:
        """``count`` int32 symbols, 1-D."""
        if count < 0:
            raise CorruptStream(f"packet {self._packet.sequence}: chunk {name!r} cannot have {count} symbols")
        stage = self._entropy(name)
        data, side = self._take(name)
        start = time.perf_counter()
        values = stage.decode(data, prior, count)
        self.seconds += time.perf_counter() - start
        if values.dtype != np.int32 or values.shape != (count,):
            raise PluginError(
                f"chunk {name!r}: the entropy stage gives {values.dtype}{list(values.shape)}, not {count} int32"
            )
        self._symbols_row(name, data, side, count, prior)
        return values

    def blob(self, name: str, max_bytes: int) -> bytes:
        """The blob, which may have at most ``max_bytes``."""
        data, side = self._take(name, max_bytes)
        self._blob_row(name, data, side)
        return data

    def layer(self) -> bool:
        """End a layer; False where the stream was cut here and nothing follows."""
        if not self._at_end:
            raise CorruptStream(f"packet {self._packet.sequence}: no layer ends after {self._last()}")
        self._layer, self._at_end = self._layer + 1, False
        return len(self.rows) < len(self._packet.chunks) or self._packet.layers_present == self._packet.layers_total

    def finish(self) -> None:
        """Raises CorruptStream where chunks or a layer's end are left unread."""
        unread = len(self._packet.chunks) - len(self.rows)
        if unread or self._at_end:
            left = f"{unread} chunks" if unread else "a layer's end"
            raise CorruptStream(
                f"packet {self._packet.sequence}: {left} unread after {self._last()}: "
                "the stream is not of this Encoder, or its read and write differ"
            )

    def _last(self) -> str:
        return f"chunk {self.rows[-1].name!r}" if self.rows else "the head"

    def _take(self, name: str, max_bytes: int | None = None) -> tuple[bytes, bool]:
        packet, index = self._packet, len(self.rows)
        if index == len(packet.chunks):
            if packet.layers_present < packet.layers_total:
                raise TruncatedStream(
                    f"packet {packet.sequence} ends after layer {packet.layers_present} of {packet.layers_total}, "
                    f"before chunk {name!r}"
                )
            raise CorruptStream(f"packet {packet.sequence}: there is no chunk {name!r} after {self._last()}")
        if self._at_end:
            raise CorruptStream(f"packet {packet.sequence}: a layer ends after {self._last()}, before chunk {name!r}")
        chunk = packet.chunks[index]
        if max_bytes is not None and chunk.size > max_bytes:
            raise CorruptStream(
                f"packet {packet.sequence}: chunk {name!r} has {chunk.size} bytes, at most {max_bytes} are possible"
            )
        try:
            data = chunk.verify(name)
        except CorruptStream as error:
            if self._layer:  # all chunks of the layers before were verified as they were read
                raise DamagedLayer(str(error), self._layer) from None
            raise
        self._at_end = chunk.ends_layer
        return data, chunk.side


def _flat_int32(name: str, values: object) -> Int32:
    if not isinstance(values, np.ndarray):
        raise PluginError(f"chunk {name!r}: expects a numpy integer array, gets {type(values).__name__}")
    if values.dtype.kind not in "iub":
        raise PluginError(f"chunk {name!r}: expects integers, gets {values.dtype}: quantise in Encoder.encode")
    wide = values.dtype.kind != "b" and not np.can_cast(values.dtype, np.int32)
    if wide and values.size and not (INT32.min <= int(values.min()) and int(values.max()) <= INT32.max):
        raise PluginError(f"chunk {name!r}: has integers outside int32")
    return np.ascontiguousarray(values.reshape(-1), dtype=np.int32)
