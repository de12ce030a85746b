"""The messages of the session protocol, version 2, byte for byte as ``docs/protocol.md`` has them.

A message is canonical msgpack: an array whose first entry says which it is. Every bound is checked before what is
bounded is used, and bytes that are no message raise CorruptStream in one line. Nothing here reads or writes a network.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from semcodec.container.primitives import packer, unpack
from semcodec.errors import CorruptStream, UsageError, VersionMismatch

MAGIC = b"SEMP"
"""How the first message of a connection begins, whatever the version; one byte, the version, follows."""
VERSION = 2
MAX_HELLO = 1 << 18
"""Bytes of the first message of a connection: a stream's header and a few words."""
MAX_DOWN = 1 << 24
"""Bytes of a message to the device: the longest has the names of all classes."""
MAX_WINDOW = 1 << 10
"""Messages in flight that a server may allow."""

# Text that may reach a terminal has no control characters; \Z, since $ would let a line end pass.
Line = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z", max_length=4096)]
Word = Annotated[str, msgspec.Meta(pattern=r"^[a-z-]{1,32}\Z")]
Token = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{0,1024}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{4,64})?\Z")]
SessionId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Window = Annotated[int, msgspec.Meta(ge=1, le=MAX_WINDOW)]
Sequences = Annotated[list[Sequence], msgspec.Meta(max_length=MAX_WINDOW)]
Round = Annotated[int, msgspec.Meta(ge=0, le=2)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What all messages are."""


class Hello(Message, frozen=True, tag=1):
    """The device opens a stream.

    token: what the server may ask for; "" for none. header: the bytes of the stream's header. backbone: digest of the
    backbone's weights, "" where the device does not know it. logits: whether answers shall have them. least_score: of
    the boxes that answers shall have.
    """

    token: Token
    header: Annotated[bytes, msgspec.Meta(max_length=1 << 17)]
    backbone: Digest
    logits: bool
    least_score: Share


class Resume(Message, frozen=True, tag=2):
    """The device goes on with a session after a cut: a HELLO with the session and the numbers that have no answer."""

    token: Token
    header: Annotated[bytes, msgspec.Meta(max_length=1 << 17)]
    backbone: Digest
    logits: bool
    least_score: Share
    session: SessionId
    unanswered: Sequences


class Ready(Message, frozen=True, tag=3):
    """The server answers the stream.

    largest: bytes of a record. window: messages that may be in flight. idle_s: seconds without a message after which
    the server closes a connection, and for which it keeps a session without one. resumed: whether it knew the session.
    wanted: of the numbers that RESUME named, those to send again; all of them where the session is new.
    """

    session: SessionId
    classes: Annotated[list[Line], msgspec.Meta(max_length=1 << 16)]
    largest: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
    window: Window
    idle_s: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
    resumed: bool
    wanted: Sequences


class Refuse(Message, frozen=True, tag=4):
    """The server does not answer. Its form is the same in all versions.

    code: which kind of reason. message: what is wrong and what to do. retry: whether the same may be answered later.
    """

    code: Word
    message: Line
    retry: bool


class Data(Message, frozen=True, tag=5):
    """One record of the container, a packet or a LOCAL one, whose own number is ``sequence``.

    round: 0 of a sample that is one record; 1 of a first round, which the server may answer or ask more by REPLY; 2 of
    the second, which has what was asked for. remaining_ms: to its deadline when it was sent; None without a deadline.
    """

    sequence: Sequence
    round: Round
    remaining_ms: Milliseconds | None
    record: bytes


class Boxes(Message, frozen=True):
    """What a detector found, best first: float32 little-endian corners (n, 4) in pixels of the source and scores (n,),
    class indices (n,), and the source's width and height."""

    corners: bytes
    scores: bytes
    classes: Annotated[list[Count], msgspec.Meta(max_length=1 << 16)]
    source: tuple[Count, Count]


class Answer(Message, frozen=True, tag=6):
    """A prediction.

    index: of the class, -1 where nothing was found. layers: that were there, and in all. device: whether the device
    answered itself, in a LOCAL record. logits: float32 little-endian, where they were asked for. boxes: of a detector;
    bytes of another task's own form. microseconds: in the queue, decoding, recovering, in the tail.
    """

    sequence: Sequence
    index: Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]
    name: Line
    probability: Share
    layers: tuple[Count, Count]
    device: bool
    logits: bytes | None
    boxes: Boxes | bytes | None
    microseconds: tuple[Count, Count, Count, Count]


class Late(Message, frozen=True, tag=7):
    """The deadline was over before the record was decoded. queue_us: microseconds that it waited."""

    sequence: Sequence
    queue_us: Count


class Failed(Message, frozen=True, tag=8):
    """This record cannot be answered; others can. message: why."""

    sequence: Sequence
    message: Line


class Credit(Message, frozen=True, tag=9):
    """From now on so many messages may be in flight."""

    window: Window


class Bye(Message, frozen=True, tag=10):
    """The end of a connection, and from a device of the session. reason: "done", "draining" or "idle".

    sent, answered, late, failed: of the session, as this end has counted them.
    """

    reason: Word
    sent: Count
    answered: Count
    late: Count
    failed: Count


class Reply(Message, frozen=True, tag=11):
    """What the server asks for after a first round; it is no outcome.

    request: whether and which units of the second round, as the encoder's methods have it (``semcodec.coding.rounds``).
    microseconds: in the queue, and looking.
    """

    sequence: Sequence
    request: Annotated[bytes, msgspec.Meta(min_length=1, max_length=1 << 16)]
    microseconds: tuple[Count, Count]


Outcome = Answer | Late | Failed
First = Hello | Resume
Up = Data | Bye
Down = Ready | Refuse | Answer | Late | Failed | Credit | Bye | Reply

_first: msgspec.msgpack.Decoder[First] = msgspec.msgpack.Decoder(First)
_up: msgspec.msgpack.Decoder[Up] = msgspec.msgpack.Decoder(Up)
_down: msgspec.msgpack.Decoder[Down] = msgspec.msgpack.Decoder(Down)
M = TypeVar("M")


def write(message: Message) -> bytes:
    """A message's bytes; the first one of a connection with what it begins with. Raises UsageError for a value that
    could not be read back."""
    data = packer.encode(message)
    if isinstance(message, Hello | Resume):
        data = MAGIC + bytes([VERSION]) + data
        try:
            read_first(data)
        except CorruptStream as error:
            raise UsageError(f"this session cannot be opened: {error}") from error
    return data


def read_first(data: bytes) -> First:
    """The first message of a connection. Raises CorruptStream, and VersionMismatch for another version's."""
    if len(data) > MAX_HELLO:
        raise CorruptStream(f"the first message has {len(data)} bytes, more than {MAX_HELLO}")
    if not data.startswith(MAGIC) or len(data) == len(MAGIC):
        raise CorruptStream(f"not a semcodec session: it begins with {data[:5]!r}, not {MAGIC!r}")
    version = data[len(MAGIC)]
    if version != VERSION:
        raise VersionMismatch(
            f"the device speaks protocol version {version}, this server reads {VERSION}: install one semcodec at both"
        )
    return _read(_first, data[len(MAGIC) + 1 :])


def read_up(data: bytes, largest: int) -> Up:
    """A later message of the device, whose record has at most ``largest`` bytes. Raises CorruptStream."""
    if len(data) > largest + OVERHEAD:
        raise CorruptStream(f"a message has {len(data)} bytes, more than the {largest} of a record")
    return _read(_up, data)


def read_down(data: bytes) -> Down:
    """A message of the server. Raises CorruptStream."""
    if len(data) > MAX_DOWN:
        raise CorruptStream(f"a message has {len(data)} bytes, more than {MAX_DOWN}")
    return _read(_down, data)


OVERHEAD = 64
"""Bytes of a DATA message beside its record, at most."""


def _read(decoder: msgspec.msgpack.Decoder[M], data: bytes) -> M:
    try:
        return unpack(decoder, data)
    except ValueError as error:
        raise CorruptStream(f"not a message of the protocol: {error}") from error
