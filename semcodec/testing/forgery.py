"""Checks of what Encoders read: bytes that were damaged on the way, and bytes that no Encoder wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from semcodec.container.packets import Part, write_packet
from semcodec.errors import SemcodecError
from semcodec.testing.cases import Case, cases
from semcodec.testing.entropy import damages
from semcodec.testing.subject import Subject, require
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
            ends, at = [], len(data) - sum(chunk.size + 4 for chunk in packet.chunks)
            for chunk in packet.chunks[:-1]:
                at += chunk.size + 4
                ends += [("cut between two chunks", data[:at])]
            for what, damaged in [*some([*damages(data)], subject), *ends]:
                try:
                    received = case.receive(damaged)
                except SemcodecError:
                    continue
                for found, partial in received:
                    require(found.layers_present < found.layers_total, f"{what}: decoded as if nothing had happened")
                    require_partial(partial, case.restored, f"{what}: what is restored")


def check_forgery(subject: Subject) -> None:
    """Chunks that ``write`` never made, under right checksums: a SemcodecError, or features that the model takes."""
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
                    raise AssertionError(f"chunk {names[i]!r} {what}: {type(error).__name__}: {error}") from error
                # A forger may choose otherwise than the Selectors would have; the server's model must still take it.
                require_partial(received[0][1], case.taken, f"chunk {names[i]!r} {what}: what is restored")


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
