"""What a batch of records comes to: messages for each, wherever it is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from semcodec.coding.rounds import SURE
from semcodec.container.packets import LocalRecord, Packet, read_packets
from semcodec.errors import CorruptStream, SemcodecError, first_line, printable
from semcodec.pipeline.server import Joined, Record, Server
from semcodec.pipeline.timing import Clock
from semcodec.serving.answers import to_message, to_prediction
from semcodec.serving.messages import Answer, Failed, Reply
from semcodec.tasks.prediction import Prediction

Fault = Callable[[BaseException], None]
"""Is told of an error that is ours."""


@dataclass(frozen=True)
class Item:
    """One record to compute. round, first: as of ``Job``. logits, least_score: as in HELLO."""

    sequence: int
    record: bytes
    round: int = 0
    first: tuple[bytes, bytes] | None = None
    logits: bool = False
    least_score: float = 0.0


@dataclass
class Computed:
    """said: of each item, whose microseconds in the queue are left at 0. seconds: of the batch, by stage.

    away: seconds that records and messages spent between here and where they were computed, or being sent again.
    """

    said: list[Answer | Reply | Failed]
    seconds: Mapping[str, float] = field(default_factory=dict)
    away: float = 0.0


def compute(server: Server, items: Sequence[Item], fault: Fault) -> Computed:
    """Decode and answer records of the server's stream. What is wrong with one costs no other its answer."""
    records: dict[int, Record] = {}
    said: dict[int, Answer | Reply | Failed] = {}
    for number, item in enumerate(items):
        try:
            records[number] = record_of(server, item)
        except SemcodecError as error:
            said[number] = failed(item, error)
    seconds: dict[str, float] = {}
    looked = 0
    firsts = {n: r for n, r in records.items() if items[n].round == 1 and isinstance(r, Packet)}
    if firsts:
        clock = server.clock()
        requests = _look(server, list(firsts.values()), clock, fault)
        looked = microseconds(sum(clock.seconds.values()))
        seconds["look"] = looked / 1e6
        for number, request in zip(firsts, requests, strict=True):
            if isinstance(request, SemcodecError):
                said[number] = failed(items[number], request)
            elif request != SURE:
                said[number] = Reply(items[number].sequence, request, (0, looked))
    due = [number for number in records if number not in said]
    clock = server.clock()
    found = _decode(server, [records[number] for number in due], clock, fault) if due else []
    decode = microseconds(sum(clock.seconds.get(stage, 0.0) for stage in ("entropy_decode", "read", "restore")))
    recover = microseconds(clock.seconds.get("recover", 0.0))
    tail = max(0, microseconds(sum(clock.seconds.values())) - decode - recover)
    for stage, spent in (("decode", decode), ("recover", recover), ("tail", tail)):
        seconds[stage] = spent / 1e6
    for number, answer in zip(due, found, strict=True):
        item = items[number]
        if isinstance(answer, SemcodecError):
            said[number] = failed(item, answer)
            continue
        said[number] = to_message(
            item.sequence,
            answer,
            (0, decode + looked * (item.round == 1), recover, tail),
            logits=item.logits,
            least_score=item.least_score,
            task=server.composition.task,
        )
    return Computed([said[number] for number in range(len(items))], seconds)


def draw(server: Server, item: Item, answer: Answer) -> list[Mapping[str, Any]]:
    """The panels of a record that was answered, as of ``pictures.show``. Raises StreamError."""
    from semcodec.serving.pictures import show

    prediction = None if answer.device else to_prediction(answer, server.classes, server.composition.task)
    return show(server, record_of(server, item), prediction)


def _look(server: Server, packets: Sequence[Packet], clock: Clock, fault: Fault) -> Sequence[bytes | SemcodecError]:
    """What the server says to each first round, or what is wrong with it."""
    try:
        return server.reply(packets, clock)
    except SemcodecError as error:
        if len(packets) == 1:
            return [error]
    except Exception as error:
        if len(packets) == 1:
            fault(error)
            return [SemcodecError("this record could not be looked at: the server's log says why")]
    return [said for packet in packets for said in _look(server, [packet], clock, fault)]


def _decode(
    server: Server, records: Sequence[Record], clock: Clock, fault: Fault
) -> Sequence[Prediction | SemcodecError]:
    """A prediction or an error for each; an error that is ours costs those alone that make it."""
    try:
        return server.decode_each(records, clock)
    except Exception as error:
        if len(records) == 1:
            fault(error)
            return [SemcodecError("this record could not be answered: the server's log says why")]
    return [found for record in records for found in _decode(server, [record], clock, fault)]


def record_of(server: Server, item: Item) -> Record:
    """What an item holds, both rounds where it is of a second. Raises StreamError."""
    record = read_one(item.record, item.sequence, server)
    if item.first is None:
        return record
    return join(item.first, record, item.sequence, server)


def read_one(data: bytes, sequence: int, server: Server) -> Packet | LocalRecord:
    """The record of a message. Raises StreamError where it holds another number's, or more or fewer than one."""
    found = list(read_packets(BytesIO(data), server.header))
    if len(found) != 1 or found[0].sequence != sequence:
        raise CorruptStream(f"message {sequence} does not hold the one record of that number")
    return found[0]


def join(first: tuple[bytes, bytes], second: Packet | LocalRecord, sequence: int, server: Server) -> Joined:
    """Both rounds of a sample. first: the record of the first, and what the server said to it. Raises StreamError."""
    begun = read_one(first[0], sequence, server)
    if not isinstance(begun, Packet) or not isinstance(second, Packet):
        raise CorruptStream(f"message {sequence} is a round of a sample that the device has answered itself")
    return Joined(begun, first[1], second)


def failed(item: Item, error: SemcodecError) -> Failed:
    """The outcome of a record that something is wrong with."""
    return Failed(item.sequence, printable(first_line(error))[:1000])


def microseconds(seconds: float) -> int:
    """As messages tell a time."""
    return max(0, round(1e6 * seconds))
