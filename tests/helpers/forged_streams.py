"""Packets that no Encoder wrote, under right checksums, and whole pipelines to receive them."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from semcodec.component import Component
from semcodec.composition.composition import compose_spec
from semcodec.composition.grammar import format_value
from semcodec.composition.registry import Registry, get_registry, missing
from semcodec.container.packets import Part, read_packets, write_packet
from semcodec.errors import SemcodecError, SpecError
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.stages import build
from semcodec.testing.cases import CLASSES, Case
from semcodec.testing.entropy import arrays, possible, priors
from semcodec.testing.stand_ins import at_cut, surroundings, with_stand_ins
from semcodec.testing.subject import settings

SECONDS, MEMORY = 10.0, 400 << 20
"""That one packet may take: CPU time, and memory beyond what is held before."""
_HIGH_WATER = "/proc/self/clear_refs"


@dataclass(frozen=True, eq=False)
class Target:
    """A pipeline of untrained models and one packet of its own, in parts."""

    name: str
    case: Case
    parts: tuple[Part, ...]
    overrides: dict[str, Any]
    whole: bytes


def encoders() -> list[Component]:
    """Every Encoder that is installed and can be used here; of a family the member that it names."""
    registry = get_registry()
    found = [
        registry.find(c.name.replace("*", str(c.traits["example"])), "encoder") if c.name.endswith("/*") else c
        for c in registry
        if c.kind == "encoder"
    ]
    return [c for c in found if not missing(c)]


def targets(component: Component) -> tuple[Target, ...]:
    """An Encoder at its defaults with every entropy stage, then at each value of its words, where it fits first."""
    registry = get_registry()
    around = with_stand_ins(registry)
    place = _place(around, component)
    words = {p.name for p in component.params if p.type not in (int, float)}
    specs = [_spec(component, {}, stage, place) for stage in _stages(registry, component)]
    specs += [_spec(component, s, "", place) for s in settings(component.params) if s and words.issuperset(s)]
    made: list[Pipeline] = []
    return tuple(_targets(specs, around, made))


def _stages(registry: Registry, component: Component) -> list[str]:
    return [""] if component.traits.get("entropy") == "none" else [f"+{name}" for name in registry.names("entropy")]


def _spec(component: Component, setting: dict[str, Any], stage: str, place: str) -> str:
    args = ",".join(f"{name}={format_value(value)}" for name, value in setting.items())
    return f"encoder/{component.name}{':' * bool(args)}{args}{stage}+{place}"


def _place(registry: Registry, component: Component) -> str:
    for places in surroundings(registry, component):
        for backbone, cut, _ in places:
            place = at_cut(backbone, cut)
            try:
                compose_spec(_spec(component, {}, "", place), registry)
            except SpecError:
                continue
            return place
    raise AssertionError(f"no backbone takes {component.name}")


def _targets(specs: list[str], registry: Registry, made: list[Pipeline]) -> Iterator[Target]:
    for spec in dict.fromkeys(specs):
        try:
            composition = compose_spec(spec, registry)
        except SemcodecError:  # an entropy stage or a value that does not fit here
            continue
        base = next((p for p in made if p.shares_models(composition)), None)
        if base is None:
            base = Pipeline.of(build(composition, CLASSES))
            made.append(base)
        pipeline = base.replace(composition=composition)
        pipeline = pipeline.replace(selectors=replace(pipeline.stages.selectors, gate=None))
        case = Case(pipeline)
        [latent] = case.prepare(1).latents
        packed = case.pack(latent)
        [packet] = read_packets(BytesIO(packed.data), pipeline.header)
        names = [row.name for row in packed.rows]
        parts = tuple(Part(n, c.verify(n), c.side, c.ends_layer) for n, c in zip(names, packet.chunks, strict=True))
        yield Target(composition.spec, case, parts, dict(packet.overrides), packed.data)


# -- forging ---------------------------------------------------------------------------------------------------------


def edited(data: bytes, draw: random.Random) -> bytes:
    """Up to three edits: bytes changed, cut out, put in, repeated, moved; at times all of them others."""
    if draw.random() < 0.15:
        return draw.randbytes(draw.choice((len(data), draw.randrange(40), min(2 * len(data), 1 << 16))))
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(data) + 1) if draw.random() < 0.5 else draw.randrange(min(len(data), 24) + 1)
        stop = min(len(data), start + draw.choice((1, 1, 1, 2, 4, 8, 24, 50)))
        piece = data[start:stop]
        flipped = bytes([piece[0] ^ 1 << draw.randrange(8), *piece[1:]]) if piece else b"\1"
        data = data[:start] + draw.choice((flipped, flipped, draw.randbytes(len(piece)), b"", piece * 2, b"\xff" * 9,
                                           bytes(len(piece)))) + data[stop:]  # fmt: skip
    return data


def forged(target: Target, draw: random.Random) -> bytes:
    """One packet, signed after it was damaged."""
    parts, overrides = list(target.parts), dict(target.overrides)
    for _ in range(draw.choice((1, 1, 1, 2))):
        at = draw.randrange(len(parts)) if parts else 0
        what = draw.randrange(20)
        if what == 0 and len(parts) > 1:  # in another order
            other = draw.randrange(len(parts))
            parts[at], parts[other] = parts[other], parts[at]
        elif what == 1 and parts:  # one too few or too many
            parts[at : at + 1] = draw.choice(([], [parts[at], parts[at]]))
        elif what == 2 and parts:
            parts[at] = replace(parts[at], ends_layer=not parts[at].ends_layer)
        elif what == 3 and target.case.composition.call:
            name = draw.choice(sorted(target.case.composition.call))
            overrides[name] = _value(target, name, draw)
        elif what <= 8 and parts:
            parts[at] = replace(parts[at], data=_symbols(target, at, draw) or edited(parts[at].data, draw))
        elif parts:
            parts[at] = replace(parts[at], data=edited(parts[at].data, draw))
    return write_packet(target.case.pipeline.header, 0, overrides, parts)


def _value(target: Target, name: str, draw: random.Random) -> Any:
    """Another value of a call parameter, one that its record allows or one that nobody could mean."""
    param = target.case.composition.encoder.component.param(name)
    usual = [
        *(param.values if param else ()),
        *(v for v in (param and param.low, param and param.high) if v is not None),
    ]
    kind: type = type(target.case.composition.call[name])
    odd = {int: (0, -1, 1, 255, 2**31), float: (0.0, -1.0, 0.5, 1e30, 1e-30), str: ("", "x", "a" * 200)}.get(kind, ())
    value = draw.choice([*usual, *odd, target.case.composition.call[name]])
    return kind(value)


def _symbols(target: Target, at: int, draw: random.Random) -> bytes | None:
    """Symbols that can be coded and were never meant, for the chunk at a place; None where it has none."""
    stage = target.case.pipeline.stages.entropy
    counts = _counts(target)
    if stage is None or at not in counts:
        return None
    count, prior = counts[at]
    rng = np.random.default_rng(draw.randrange(1 << 30))
    high = draw.choice((1, 2, 300, 2**15, 2**31 - 1))
    values: npt.NDArray[Any] = rng.integers(-high * draw.randrange(2), high, count, endpoint=True)
    if draw.random() < 0.3:
        values = np.full(count, draw.choice((0, -1, 255, 2**31 - 1, -(2**31))))
    try:
        return bytes(stage.encode(values.astype(np.int32), prior))
    except SemcodecError:
        return None


@cache
def _counts(target: Target) -> dict[int, Any]:
    return target.case.symbols(target.whole)


# -- receiving -------------------------------------------------------------------------------------------------------


class Watch:
    """What each packet takes: CPU seconds, and bytes of memory at most beyond what was held before, where that is told.

    tried, refused, slowest, largest: so far.
    """

    def __init__(self) -> None:
        self.tried = self.refused = 0
        self.slowest, self.largest = 0.0, 0
        self._memory = sys.platform == "linux" and Path(_HIGH_WATER).exists()

    def receive(self, target: Target, data: bytes) -> None:
        """Fails for an exception that is not ours, an answer that is not finite, and what takes too much."""
        server = target.case.pipeline.server
        with self._watched():
            [answer] = [*server.decode_stream(BytesIO(data))]
            values = [answer.probability, 0.0 if answer.logits is None else answer.logits]
            if answer.boxes is not None:
                values += [answer.boxes.xyxy.numpy(), np.asarray(answer.boxes.scores)]
            assert all(np.isfinite(array).all() for array in values), "an answer that is not finite"

    def decode(self, stage: Any, data: bytes, prior: Any, count: int) -> None:
        """The same of an entropy stage alone."""
        with self._watched():
            values = stage.decode(data, prior, count)
            assert values.dtype == np.int32 and values.shape == (count,)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        held, refusal = 0, "refused"
        if self._memory:
            Path(_HIGH_WATER).write_text("5")
            held = _resident("VmRSS:")
        began = time.process_time()
        try:
            yield
        except SemcodecError as error:
            refusal = str(error)
            self.refused += 1
        took = time.process_time() - began
        grown = _resident("VmHWM:") - held if self._memory else 0
        self.tried, self.slowest, self.largest = self.tried + 1, max(self.slowest, took), max(self.largest, grown)
        assert refusal.partition("\n")[0].isprintable(), refusal
        assert took < SECONDS, f"{took:.1f} s for one packet"
        assert grown < MEMORY, f"{grown >> 20} MiB for one packet"


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(field)[2].split(maxsplit=1)[0]) << 10


def coded(stage: Any) -> list[tuple[bytes, Any, int]]:
    """What an entropy stage makes of short arrays under every kind of prior: bytes, prior and count."""
    short = [symbols[:200].copy() for symbols in arrays().values()]
    pairs = [(symbols, prior) for symbols in short for prior in priors(symbols) if possible(symbols, prior)]
    return [(stage.encode(symbols, prior), prior, len(symbols)) for symbols, prior in pairs]
