"""Checks of Encoders, in a pipeline around each stand-in that they fit, at every choice of their parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from semcodec.component import Component
from semcodec.container import Part, write_packet
from semcodec.errors import SemcodecError
from semcodec.interfaces import Latent
from semcodec.specs import TensorSpec
from semcodec.testing.cases import Case, cases
from semcodec.testing.entropy import damages
from semcodec.testing.subject import Subject, no_draws, require
from semcodec.testing.tensors import close, copied, require_partial, same

FORGED = 20
"""Forged packets of each sort that are tried at each setting."""
ROUNDING = 0.01
"""Share of a network's integers that may differ by one between batch sizes."""


def checks(component: Component) -> Iterator[Callable[[Subject], None]]:
    yield check_composes
    yield check_spec
    yield check_round_trip
    yield check_repeatable
    yield check_batch
    yield check_not_finite
    yield check_damage
    yield check_forgery


def check_composes(subject: Subject) -> None:
    """Some backbone takes it, with everything else at its defaults."""
    cases(subject)


def check_spec(subject: Subject) -> None:
    """What comes out is what the spec function says; every target has as many units as are scored.

    Latents are compared where the Encoder's arrays go by the names of its spec.
    """
    for case in cases(subject):
        with case.told():
            latent_spec = case.composition.stages.latent
            assert latent_spec is not None
            prepared = case.prepare(1)
            for target in subject.component.traits.get("targets", ()):
                scores = case.encoder.scores(prepared.analysis, target, prepared.masks)
                units = case.encoder.units.get(target)
                require(units == scores.shape[-1], f"scores {scores.shape[-1]} {target}, units says {units}")
            [latent] = prepared.latents
            for name, array in latent.symbols.items():
                integers = isinstance(array, np.ndarray) and array.dtype.kind in "iub"
                require(integers, f"the latent's {name!r} is no integer array")
            require(_plain(latent.side), "the latent's side information is not plain data")
            seen = {n: TensorSpec(array.shape, array.dtype.name) for n, array in latent.symbols.items()}
            if seen.keys() == latent_spec.keys():
                wrong = [f"{n} is {seen[n]}, declared is {s}" for n, s in latent_spec.items() if not s.accepts(seen[n])]
                require(not wrong, f"the latent's {'; '.join(wrong)}")
            require_partial(case.encoder.restore(latent), case.restored, "what is restored")


def check_round_trip(subject: Subject) -> None:
    """Reading a packet gives the Latent that was written: both are restored to the same bits."""
    for case in cases(subject):
        with case.told():
            [latent] = case.prepare(1).latents
            written = case.encoder.restore(latent)
            [(_, read)] = case.receive(case.pack(latent).data)
            require(same(read.features, written.features), "features restored after the trip are not those before it")
            require(same(read.present, written.present), "masks restored after the trip are not those before it")


def check_repeatable(subject: Subject) -> None:
    """The same input gives the same bytes, also outside inference mode; nothing else in the process changes."""
    for case in cases(subject):
        with case.told():
            pixels = case.pixels(2)
            first = [record.data for record in case.pipeline.encode_batch(pixels, [0, 1])]
            again = [record.data for record in case.pipeline.encode_batch(pixels, [0, 1])]
            require(first == again, "the same pixels give other bytes the second time")
            with no_draws():
                prepared = case.prepare(2, inference=False)
                bytes_now = [case.pack(latent, i).data for i, latent in enumerate(prepared.latents)]
                case.receive(bytes_now[0])
            require(bytes_now == first, "the same pixels give other bytes outside inference mode")
            features = case.features(2)
            before = copied(features)
            prepared = case.select(features, [0, 1])
            require(same(features, before), "alters its input")
            masks = copied(prepared.masks)
            case.encode(prepared)
            require(same(prepared.masks, masks), "alters the masks")
            _require_mode_kept(case)


def _require_mode_kept(case: Case) -> None:
    if not isinstance(case.encoder, nn.Module):
        return
    for training in (True, False):
        case.encoder.train(training)
        try:
            [latent] = case.prepare(1).latents
            case.encoder.restore(latent)
            kept = all(module.training is training for module in case.encoder.modules())
        finally:
            case.encoder.eval()
        require(kept, "switches between training and evaluation by itself")


def check_batch(subject: Subject) -> None:
    """A sample's packet does not depend on the samples beside it: from equal masks, byte for byte.

    Networks may round otherwise in another batch size; then few integers differ, each by one.
    """
    for case in cases(subject):
        with case.told():
            numbers = [3, 5, 9]
            batch = case.prepare(len(numbers), numbers)
            require(len(batch.latents) == len(numbers), f"{len(batch.latents)} latents of {len(numbers)} samples")
            sent = case.pipeline.encode_batch(case.pixels(len(numbers)), numbers)
            for row, number in enumerate(numbers):
                alone = case.row(batch, row)
                for target, scores in alone.scores.items():
                    require(close(scores, batch.scores[target][row : row + 1]), f"scores of {target} depend on others")
                [latent] = case.encode(alone)
                learned = isinstance(case.encoder, nn.Module) and any(True for _ in case.encoder.parameters())
                equal = _compare(latent, batch.latents[row], ROUNDING if learned else 0.0)
                data = case.pack(latent, number).data
                require(data == sent[row].data or not equal, f"sample {row} alone gives other bytes than in a batch")


def _compare(a: Latent, b: Latent, rounding: float) -> bool:
    """Whether two latents are equal; fails where they differ by more than rounding."""
    require(a.symbols.keys() == b.symbols.keys(), "a sample alone gives other symbols than in a batch")
    equal = bool(_bytes_of(a.side) == _bytes_of(b.side))
    require(equal or rounding, "a sample alone gives other side information than in a batch")
    for name, array in a.symbols.items():
        other = b.symbols[name]
        require(array.shape == other.shape, f"{name} of a sample alone has another shape than in a batch")
        apart = np.abs(array.astype(np.int64) - other.astype(np.int64))
        few = not apart.any() or (int(apart.max()) <= 1 and float((apart > 0).mean()) <= rounding)
        require(few, f"{name} of a sample alone differs from that in a batch")
        equal = equal and not bool(apart.any())
    return equal


def check_not_finite(subject: Subject) -> None:
    """NaN and infinity in the input are refused in words, or documented ("NaN" in a docstring) and never come out."""
    target = subject.registry.load(subject.component)
    said = f"{inspect.getdoc(target)} {inspect.getdoc(target.encode)}"
    for case in cases(subject):
        for bad in (float("nan"), float("inf")):
            with case.told():
                features = case.features(1)
                for tensor in features.values():
                    if tensor.is_floating_point():
                        tensor[tuple(side // 2 for side in tensor.shape)] = bad
                try:
                    prepared = case.select(features, [0])
                    [latent] = case.encode(prepared)
                except SemcodecError:
                    continue
                require("NaN" in said, f"{bad} in the input is neither refused nor spoken of in a docstring")
                [(_, read)] = case.receive(case.pack(latent).data)
                require_partial(read, case.restored, f"what is restored of {bad}")


def check_damage(subject: Subject) -> None:
    """Damaged bytes end in a SemcodecError; only a cut at the end of a layer still decodes, and says so."""
    for case in cases(subject):
        with case.told():
            [latent] = case.prepare(1).latents
            data = case.pack(latent).data
            [(packet, _)] = case.receive(data)
            ends, at = [], len(data) - sum(chunk.size + 4 for chunk in packet.chunks)
            for chunk in packet.chunks[:-1]:
                at += chunk.size + 4
                ends += [("cut between two chunks", data[:at])]
            for what, damaged in [*damages(data), *ends]:
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
        with case.told():
            [latent] = case.prepare(1).latents
            packed = case.pack(latent)
            [(packet, _)] = case.receive(packed.data)
            names = [row.name for row in packed.rows]
            parts = [Part(n, c.verify(n), c.side, c.ends_layer) for n, c in zip(names, packet.chunks, strict=True)]
            tries = [(i, what, data) for i, part in enumerate(parts) for what, data in damages(part.data)]
            chosen = np.random.default_rng(len(tries)).permutation(len(tries))[:FORGED]
            for i, what, data in [*(tries[k] for k in chosen), *_forged_symbols(case, packed.data)]:
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


def _forged_symbols(case: Case, packet: bytes) -> Iterator[tuple[int, str, bytes]]:
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
    for i, count, prior, what in (tries[k] for k in rng.permutation(len(tries))[:FORGED]):
        try:
            yield i, what, stage.encode(forgers[what](count).astype(np.int32), prior)
        except SemcodecError:
            continue


def _plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str | bytes | np.ndarray | np.generic)


def _bytes_of(value: Any) -> Any:
    """Side information in a form that ``==`` compares."""
    if isinstance(value, Mapping):
        return {key: _bytes_of(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_bytes_of(inner) for inner in value]
    return (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
