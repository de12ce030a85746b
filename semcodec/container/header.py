"""The stream header: what holds for every packet of a stream, and the checks that this side can read it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, BinaryIO

import msgspec

from semcodec.container.primitives import Scalar, checksum, exactly, packer, read, truncated, unpack
from semcodec.errors import CorruptStream, UsageError, VersionMismatch, WeightsMismatch
from semcodec.specs import ITEM_BYTES, TensorSpec

MAGIC = b"SEMC"
FORMAT = 1
MAX_HEADER = 1 << 16

# Text that may reach a terminal has no control characters; \Z, since $ would let a line end pass.
Line = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,256}\Z")]
Version = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Dim = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{4,64}\Z")]


class StreamHeader(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """What holds for every packet of a stream.

    spec: the canonical spec string.
    components: "kind/name" to the ``stream_version`` that wrote.
    weights: slot ("encoder", "recoverer", ...) to the short hex digest of what read, restore and recover use.
    input: input tensor name to (shape of one sample, dtype name).
    params: the call parameters in order, with the values of a packet that says nothing else.
    package: version of the package that wrote; information only.
    """

    spec: Line
    components: dict[Name, Version]
    weights: dict[Name, Digest]
    input: dict[Name, tuple[tuple[Dim, ...], Name]]
    params: dict[Name, Scalar]
    package: Line = ""

    @cached_property
    def id(self) -> int:
        """The CRC-32 that ends the header and that every packet repeats."""
        return int.from_bytes(write_header(self)[-4:], "little")

    @property
    def input_spec(self) -> dict[str, TensorSpec]:
        return {name: TensorSpec(shape, dtype) for name, (shape, dtype) in self.input.items()}


_decoder = msgspec.msgpack.Decoder(StreamHeader)


def _header_body(body: bytes) -> StreamHeader:
    header = unpack(_decoder, body)
    for name, (_, dtype) in header.input.items():
        if dtype not in ITEM_BYTES:
            raise ValueError(f"input {name!r} has the unknown dtype {dtype!r}")
    return header


def write_header(header: StreamHeader) -> bytes:
    """The stream header. Raises UsageError where it could not be read back."""
    try:
        body = packer.encode(header)
        _header_body(body)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"this stream header cannot be written: {error}") from error
    if len(body) > MAX_HEADER:
        raise UsageError(f"the stream header takes {len(body)} bytes, more than {MAX_HEADER}: shorten the spec")
    framed = MAGIC + struct.pack("<BI", FORMAT, len(body)) + body
    return framed + checksum(framed)


def read_header(stream: BinaryIO) -> StreamHeader:
    """The header at the stream's position, which is left at the first record.

    Raises CorruptStream, TruncatedStream, or VersionMismatch for a format that is not read here.
    """
    what = "the stream header"
    magic = read(stream, len(MAGIC))
    if magic != MAGIC:
        if MAGIC.startswith(magic):
            truncated(what)
        raise CorruptStream(f"not a semcodec file: it begins with {magic!r}, not {MAGIC!r}")
    version = exactly(stream, 1, what)
    if version[0] != FORMAT:
        raise VersionMismatch(
            f"the stream has format version {version[0]}, this semcodec reads {FORMAT}: use the semcodec that wrote it"
        )
    length = exactly(stream, 4, what)
    count = int.from_bytes(length, "little")
    if count > MAX_HEADER:
        raise CorruptStream(f"{what} says it has {count} bytes, more than {MAX_HEADER}: the stream is damaged")
    body = exactly(stream, count, what)
    if exactly(stream, 4, what) != checksum(MAGIC + version + length + body):
        raise CorruptStream(f"{what} fails its checksum: the stream is damaged; fetch or encode it again")
    try:
        return _header_body(body)
    except ValueError as error:
        raise CorruptStream(f"{what} does not hold what it should: {error}") from error


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
