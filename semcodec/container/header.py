"""The stream header, in any format: which format a stream is in, and the checks that this side can read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, Protocol

from semcodec.container import v1, v2
from semcodec.container.primitives import MAGIC, Scalar, exactly, read, truncated
from semcodec.container.records import LocalRecord, Packet, Part
from semcodec.container.v1 import StreamHeader
from semcodec.errors import CorruptStream, VersionMismatch, WeightsMismatch

__all__ = [
    "FORMAT",
    "FORMATS",
    "CurrentHeader",
    "StreamHeader",
    "check_versions",
    "check_weights",
    "read_header",
    "write_header",
]

CurrentHeader = v2.StreamHeader
"""A header of the format that pipelines write; ``StreamHeader`` is what all are."""
FORMAT = CurrentHeader.format
"""The version of that format."""


class Format(Protocol):
    """What a module that holds one version of the format has. ``semcodec.container.v1`` says what each does."""

    def write_header(self, header: StreamHeader, /) -> bytes: ...

    def read_header(self, stream: BinaryIO, /) -> StreamHeader: ...

    def write_packet(
        self, header: StreamHeader, sequence: int, params: Mapping[str, Scalar], parts: Sequence[Part], /
    ) -> bytes: ...

    def write_local(self, header: StreamHeader, record: LocalRecord, /) -> bytes: ...

    def read_packets(self, stream: BinaryIO, header: StreamHeader, /) -> Iterator[Packet | LocalRecord]: ...

    def cut_mark(self, layers: int, /) -> bytes: ...

    def bytes_behind(self, packet: Packet, layers: int, /) -> int: ...


FORMATS: dict[int, Format] = {1: v1, 2: v2}
"""Every format that is read here, by the version byte behind ``MAGIC``. A version is added, and none is taken out."""


def format_of(version: int) -> Format:
    """Raises VersionMismatch for a format that is not read here."""
    if version not in FORMATS:
        raise VersionMismatch(
            f"the stream has format version {version}, this semcodec reads {', '.join(map(str, FORMATS))}: "
            "use the semcodec that wrote it"
        )
    return FORMATS[version]


def write_header(header: StreamHeader) -> bytes:
    """The stream header, in its format. Raises UsageError where it could not be read back."""
    return format_of(header.format).write_header(header)


def read_header(stream: BinaryIO) -> StreamHeader:
    """The header at the stream's position, which is left at the first record.

    Raises CorruptStream, TruncatedStream, or VersionMismatch for a format that is not read here.
    """
    magic = read(stream, len(MAGIC))
    if magic != MAGIC:
        if MAGIC.startswith(magic):
            truncated("the stream header")
        raise CorruptStream(f"not a semcodec file: it begins with {magic!r}, not {MAGIC!r}")
    return format_of(exactly(stream, 1, "the stream header")[0]).read_header(stream)


def check_versions(header: StreamHeader, reads: Mapping[str, tuple[int, ...]]) -> None:
    """Raise VersionMismatch unless each component here ("kind/name") reads the version that wrote, and none lacks."""
    for key in [*header.components, *(key for key in reads if key not in header.components)]:
        if key not in reads:
            raise VersionMismatch(f"the stream was written with {key}, which is not part of this pipeline")
        if key not in header.components:
            raise VersionMismatch(f"the stream was not written with {key}, which is part of this pipeline")
        wrote, here = header.components[key], reads[key]
        if wrote not in here:
            raise VersionMismatch(
                f"{key} wrote stream version {wrote}, the one installed reads {', '.join(map(str, here))}: "
                "install the version that wrote it, or encode again"
            )


def check_weights(header: StreamHeader, digests: Mapping[str, str]) -> None:
    """Raise WeightsMismatch unless the digests by slot are those the stream was made with."""
    for slot in [*header.weights, *(slot for slot in digests if slot not in header.weights)]:
        made, here = header.weights.get(slot, "no weights"), digests.get(slot, "no weights")
        if made != here:
            raise WeightsMismatch(
                f"{slot}: the stream was made with {made}, loaded here is {here}: "
                f"give the weights it was made with (--weights {slot}=PATH)"
            )
