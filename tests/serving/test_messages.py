"""Messages are one spelling each, bounded, and damage of any kind is refused in one line."""

from __future__ import annotations

import random
import re
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from semcodec.errors import CorruptStream, UsageError, VersionMismatch
from semcodec.serving import messages
from semcodec.serving.messages import (
    Answer,
    Boxes,
    Bye,
    Credit,
    Data,
    Failed,
    Hello,
    Late,
    Ready,
    Refuse,
    Reply,
    Resume,
)

LARGEST = 1 << 16
SESSION = "0123456789abcdef" * 2
FIRST = [
    Hello("", b"", "", False, 0.0),
    Hello("a-token-of-16-characters", b"SEMC\x01header", "797c7ccd5991c4cc", True, 0.25),
    Resume("", b"SEMC\x01header", "", False, 0.0, SESSION, [0, 5, 2**63 - 1]),
]
UP = [Data(0, 0, None, b""), Data(2**63 - 1, 2, 2**31 - 1, b"P" * 300), Data(1, 1, 5, b"P"), Bye("done", 3, 2, 1, 0)]
DOWN = [
    Ready(SESSION, ["cat", "dög"], 1 << 20, 32, 120, True, [7]),
    Refuse("token", "give --token-file", False),
    Answer(1, 0, "cat", 0.5, (1, 3), False, None, None, (1, 2, 3, 4)),
    Answer(2, -1, "nothing", 0.0, (1, 1), True, b"\0" * 8, Boxes(b"\0" * 16, b"\0" * 4, [1], (96, 96)), (0, 0, 0, 9)),
    Late(3, 17),
    Failed(4, "damaged"),
    Credit(1),
    Bye("draining", 9, 9, 0, 0),
    Reply(5, b"\x01", (3, 4)),
    Reply(2**63 - 1, b"\x01" + b"\xff" * 40, (0, 2**40)),
]
KINDS = [
    *((message, messages.read_first) for message in FIRST),
    *((message, lambda data: messages.read_up(data, LARGEST)) for message in UP),
    *((message, messages.read_down) for message in DOWN),
]


def outcome(read, data: bytes):
    """What the bytes say, or None where they are refused in one line. Any other exception fails the test."""
    try:
        return read(data)
    except (CorruptStream, VersionMismatch) as error:
        said = str(error)
    assert said.isprintable(), said
    return None


@pytest.mark.parametrize(("message", "read"), KINDS, ids=lambda value: type(value).__name__)
def test_every_message_reads_as_it_was_written(message, read):
    assert read(messages.write(message)) == message


@pytest.mark.parametrize(("message", "read"), KINDS, ids=lambda value: type(value).__name__)
def test_a_message_that_ends_early_or_goes_on_is_refused(message, read):
    data = messages.write(message)
    assert [end for end in range(len(data)) if outcome(read, data[:end]) is not None] == []
    assert outcome(read, data + b"\0") is None


@pytest.mark.parametrize("cases", [10_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_random_edits_are_refused_or_say_something_else_within_bounds(cases):
    """What is accepted is the one spelling of what it says, so that bytes have one meaning."""
    draw, accepted = random.Random(0), 0
    whole = [(messages.write(message), read) for message, read in KINDS]
    for _ in range(cases):
        data, read = draw.choice(whole)
        for _ in range(draw.randint(1, 3)):
            start = draw.randrange(len(data) + 1)
            stop = min(len(data), start + draw.choice((0, 1, 1, 2, 4, 30)))
            new = draw.choice(
                (b"", draw.randbytes(stop - start), draw.randbytes(1), b"\xff" * 5, b"\xdd\xff\xff\xff\xff")
            )
            data = data[:start] + new + data[stop:]
        found = outcome(read, data)
        if found is not None:
            accepted += 1
            assert messages.write(found) == data
    assert cases * 0.02 < accepted < cases * 0.6, "both kinds must really have been tried"


@pytest.mark.parametrize("prefix", [b"", b"SEMP", b"SEMP\x02", b"SEMP\x02\x96\x01"])
@pytest.mark.parametrize(
    "read", [messages.read_first, lambda data: messages.read_up(data, LARGEST), messages.read_down]
)
def test_random_bytes_are_refused(prefix, read):
    draw = random.Random(0)
    for _ in range(1000):
        assert outcome(read, prefix + draw.randbytes(draw.choice((0, 1, 2, 5, 30, 200, 1000)))) is None


def test_a_length_alone_takes_no_memory():
    """Arrays, strings and bytes that claim 4 GiB, and nesting without end."""
    evil = [
        b"\xdd\xff\xff\xff\xff",
        b"\x95\x05\x00\x00\xc0\xc6\xff\xff\xff\xff",
        b"\x95\x05\x00\x00\xc0\xdb\xff\xff\xff\xff",
        b"\x94\x0b\x00\xc6\xff\xff\xff\xff",
        b"\x98\x02\xa0\xc4\x00\xa0\xc2\xcb" + b"\0" * 8 + b"\xd9\x20" + SESSION.encode() + b"\xdd\xff\xff\xff\xff",
        b"\x98\x03\xd9\x20" + SESSION.encode() + b"\xdd\xff\xff\xff\xff",
        b"\x91" * 10_000,
        b"\x94\x05" + b"\x91" * 10_000,
    ]
    tracemalloc.start()
    try:
        for data in evil:
            for read in (messages.read_down, lambda data: messages.read_up(data, LARGEST), messages.read_first):
                for given in (data, b"SEMP\x02" + data):
                    before = tracemalloc.get_traced_memory()[0]
                    tracemalloc.reset_peak()
                    assert outcome(read, given) is None
                    assert tracemalloc.get_traced_memory()[1] - before < 200_000
    finally:
        tracemalloc.stop()


def test_bounds_come_before_reading():
    with pytest.raises(CorruptStream, match="more than the 100 of a record"):
        messages.read_up(messages.write(Data(0, 0, None, b"P" * 200)), 100)
    assert messages.read_up(messages.write(Data(2**63 - 1, 2, 2**31 - 1, b"P" * 100)), 100)
    for request in (b"", b"r" * ((1 << 16) + 1)):
        assert outcome(messages.read_down, messages.write(Reply(0, request, (0, 0)))) is None
    assert outcome(lambda data: messages.read_up(data, 100), messages.write(Data(0, 3, None, b""))) is None
    with pytest.raises(CorruptStream, match="the first message has"):
        messages.read_first(b"SEMP\x02" + b"\0" * (1 << 18))
    with pytest.raises(CorruptStream, match="more than"):
        messages.read_down(b"\0" * ((1 << 24) + 1))


def test_another_version_is_refused_by_its_number():
    for version in (1, 3):
        other = b"SEMP" + bytes([version]) + messages.write(FIRST[0])[5:]
        with pytest.raises(VersionMismatch, match=f"the device speaks protocol version {version}, this server reads 2"):
            messages.read_first(other)


def test_a_second_spelling_is_refused():
    short = messages.write(Late(3, 17))
    assert short == bytes([0x93, 7, 3, 17])
    for other in (bytes([0x93, 7, 0xCC, 3, 17]), bytes([0xDC, 0, 3, 7, 3, 17])):
        assert outcome(messages.read_down, other) is None


def test_what_could_not_be_read_back_is_not_written():
    with pytest.raises(UsageError, match="this session cannot be opened"):
        messages.write(Hello("a token with spaces", b"", "", False, 0.0))


# -- the document ------------------------------------------------------------------------------------------------------

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()


def test_the_document_has_every_message_with_its_number_and_fields():
    for kind in (Hello, Resume, Ready, Refuse, Data, Answer, Late, Failed, Credit, Bye, Reply):
        fields = ", ".join(f"`{name}`" for name in kind.__struct_fields__)
        row = rf"\| {msgspec.inspect.type_info(kind).tag} \| {kind.__name__.upper()} \|[^|]*\| {re.escape(fields)} \|"
        assert re.search(row, DOCUMENT), f"{kind.__name__}: {row}"


def test_the_documents_examples_are_what_is_written():
    hello = Hello("", b"SEMC", "797c7ccd5991c4cc", False, 0.0)
    ready = Ready(SESSION, ["cat", "dog"], 65536, 32, 120, False, [])
    said = {
        "HELLO": hello,
        "READY": ready,
        "DATA": Data(5, 0, 100, b"PACKET"),
        "REPLY": Reply(5, b"\x01\x80", (120, 900)),
        "ANSWER": Answer(5, 1, "dog", 0.75, (1, 1), False, None, None, (120, 900, 0, 4000)),
        "LATE": Late(6, 100200),
        "BYE": Bye("done", 2, 1, 1, 0),
    }
    for name, message in said.items():
        shown = re.search(rf"^{name} .*?:\n\n((?:    [0-9a-f ]+\n)+)", DOCUMENT, re.M)
        assert shown, name
        assert bytes.fromhex(shown[1]) == messages.write(message), name
