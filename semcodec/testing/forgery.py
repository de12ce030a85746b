"""Checks of what Encoders read: bytes that were damaged on the way, and bytes that no Encoder wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from semcodec.container.header import format_of
from semcodec.container.packets import Packet, Part, read_packets, write_packet
from semcodec.container.sinks import PacketSink
from semcodec.errors import SemcodecError
from semcodec.interfaces import EntropyStage, Latent
from semcodec.priors import Prior
from semcodec.testing.cases import Case, cases
from semcodec.testing.entropy import damages
from semcodec.testing.subject import CheckFailed, Subject, describe, require
from semcodec.testing.tensors import require_partial

T = TypeVar("T")

TRIES = 160
"""Damaged packets, and forged ones of each sort, that are tried at all settings together."""
LEAST, MOST = 6, 30
"""Of these, at one setting."""


def check_damage(subject: Subject) -> None:
    """Damaged bytes end in a SemcodecError; only a cut at the end of a layer still decodes, and says so."""
    for case in cases(subject):
        with case.name_failures():
            [latent] = case.prepare(1).latents
            data = case.pack(latent).data
            [(packet, _)] = case.receive(data)
            ends = [
                (
                    "cut after a layer",
                    data[: len(data) - format_of(case.pipeline.header.format).bytes_behind(packet, layer)],
                )
                for layer in range(1, packet.layers_present)
            ]
            for what, damaged in [*some([*damages(data)], subject), *ends]:
                try:
                    received = case.receive(damaged)
                except SemcodecError:
                    continue
                for found, partial in received:
                    require(found.layers_present < found.layers_total, f"{what}: decoded as if nothing had happened")
                    require_partial(partial, case.restored, f"{what}: what is restored")


def check_forgery(subject: Subject) -> None:
    """Chunks that ``write`` never made, under right checksums: a SemcodecError, or features that the model takes.

    What is read of symbols is what was sent: values that do not fit are refused, not wrapped or cut to what does.
    """
    for case in cases(subject):
        with case.name_failures():
            [latent] = case.prepare(1).latents
            packed = case.pack(latent)
            [(packet, _)] = case.receive(packed.data)
            names = [row.name for row in packed.rows]
            parts = [Part(n, c.verify(n), c.side, c.ends_layer) for n, c in zip(names, packet.chunks, strict=True)]
            tries = [(i, what, data) for i, part in enumerate(parts) for what, data in damages(part.data)]
            for i, what, data in [*some(tries, subject), *_forged_symbols(case, packed.data, subject)]:
                forged = [*parts]
                forged[i] = Part(names[i], data, parts[i].side, parts[i].ends_layer)
                stream = write_packet(case.pipeline.header, packet.sequence, packet.overrides, forged)
                try:
                    received = case.receive(stream)
                except SemcodecError:
                    continue
                except Exception as error:
                    raise CheckFailed(f"chunk {names[i]!r} {what}: {describe(error)}") from error
                # A forger may choose otherwise than the Selectors would have; the server's model must still take it.
                require_partial(received[0][1], case.taken, f"chunk {names[i]!r} {what}: what is restored")
                if packed.rows[i].kind == "symbols" and not parts[i].side:
                    _require_as_sent(case, latent, stream, i, f"chunk {names[i]!r} {what}")


class _Heard(PacketSink):
    """A sink that keeps the symbols of each chunk."""

    def __init__(self, stage: EntropyStage | None) -> None:
        super().__init__(stage)
        self.values: dict[int, list[int]] = {}

    def symbols(self, name: str, values: npt.NDArray[Any], prior: Prior, *, side: bool = False) -> None:
        self.values[len(self.rows)] = np.ravel(values).tolist()
        super().symbols(name, values, prior, side=side)


def _require_as_sent(case: Case, made: Latent, stream: bytes, i: int, what: str) -> None:
    """Raise CheckFailed where the Latent that is read of a packet has other symbols in chunk ``i`` than were sent, or

    some that ``encode`` has no room for: those of ``made`` are of the dtypes that it gives.
    """
    [packet] = read_packets(BytesIO(stream), case.pipeline.header)
    assert isinstance(packet, Packet)
    stage = case.pipeline.stages.entropy
    source, sink = case.listening(packet), _Heard(stage)
    latent = case.pipeline.server.read(source)
    for name, own in made.symbols.items():
        values = np.asarray(latent.symbols.get(name, ()))
        if values.size and own.dtype.kind in "iub" and own.dtype.itemsize < 4:
            low, high = (0, 1) if own.dtype.kind == "b" else (np.iinfo(own.dtype).min, np.iinfo(own.dtype).max)
            outside = not low <= int(values.min()) <= int(values.max()) <= high
            message = f"{what}: read accepts {name} of {values.min()} to {values.max()}, and encode gives {own.dtype}"
            require(not outside, f"{message}; refuse in read what cannot have been written")
    try:
        case.pipeline.device.write(latent, sink)
    except Exception:  # a Latent that was read need not be in the form that is written
        return
    sent, read = source.values.get(i), sink.values.get(i)
    if sent is not None and read is not None and len(sent) == len(read) and sent != read:
        at = next(k for k, pair in enumerate(zip(sent, read, strict=True)) if pair[0] != pair[1])
        message = f"{what}: {sent[at]} was sent and read as {read[at]}; refuse in read what cannot have been written"
        raise CheckFailed(message)


def some(tries: Sequence[T], subject: Subject) -> list[T]:
    """One setting's share of what can be tried, the same every time."""
    share = min(MOST, max(LEAST, TRIES // len(cases(subject))))
    return [tries[k] for k in np.random.default_rng(len(tries)).permutation(len(tries))[:share]]


def _forged_symbols(case: Case, packet: bytes, subject: Subject) -> Iterator[tuple[int, str, bytes]]:
    """(chunk's place, what was done, its data): symbols that can be coded and were never meant."""
    stage = case.pipeline.stages.entropy
    if stage is None:
        return
    rng = np.random.default_rng(0)
    forgers: dict[str, Callable[[int], npt.NDArray[Any]]] = {
        "of zeros": lambda count: np.zeros(count),
        "of the largest int32": lambda count: np.full(count, 2**31 - 1),
        "of random int32": lambda count: rng.integers(-(2**31), 2**31, count),
        "of small random integers": lambda count: rng.integers(-300, 300, count),
    }
    tries = [(i, *seen, what) for i, seen in case.symbols(packet).items() for what in forgers]
    for i, count, prior, what in some(tries, subject):
        try:
            yield i, what, stage.encode(forgers[what](count).astype(np.int32), prior)
        except SemcodecError:
            continue
