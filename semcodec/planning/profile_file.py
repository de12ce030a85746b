"""Profiles: operating points as a TOML file has them, words standing for figures that its source does not print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated, Any, NoReturn

import msgspec

from semcodec._typed import read_toml
from semcodec.errors import DataError, UsageError
from semcodec.planning.latency import FULL, LOCAL, Coding, Energy, OperatingPoint, Profile, size_bytes, vit_macs

MOST = 1e300  # no measurement is above it; infinity is
MOST_OF_VIT = 1e9
Number = Annotated[float, msgspec.Meta(ge=0, le=MOST)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=MOST)]
Amount = Number | str
"""What is measured: a number, or a word that an ``[assume.WORD]`` explains."""


class WordRow(msgspec.Struct):
    """``[assume.WORD]``. value: the profile's own; why: where that is from."""

    value: Number | None = None
    why: str = ""


class VitRow(msgspec.Struct):
    """``[vit]``. patches: all of an image or clip; width: of the ViT that takes them."""

    patches: Annotated[float, msgspec.Meta(ge=1, le=MOST_OF_VIT)]
    width: Annotated[float, msgspec.Meta(ge=1, le=MOST_OF_VIT)]


class EnergyRow(msgspec.Struct):
    """Joule for each multiply-accumulate of the device and each bit that it sends."""

    joule_per_mac: Amount
    joule_per_bit: Amount


class CodingRow(msgspec.Struct, forbid_unknown_fields=True):
    """entropy: bits an element."""

    entropy: Amount
    encode_ms: Amount
    decode_ms: Amount


class PointRow(msgspec.Struct, forbid_unknown_fields=True):
    """A ``[[point]]`` or a baseline. bytes: a list is multiplied; spread: half the interval of the accuracy."""

    label: str = ""
    spec: str = ""
    knobs: dict[str, Any] = {}
    accuracy: Amount | None = None
    spread: Amount = 0.0
    bytes: Amount | list[Amount] | None = None
    sent: Amount | None = None
    patches: Amount | None = None
    device_ms: dict[str, Amount] = {}
    server_ms: dict[str, Amount] = {}
    coding: CodingRow | None = None
    macs: Amount | None = None


class ProfileFile(msgspec.Struct, forbid_unknown_fields=True):
    """The tables of a profile; ``docs/latency.md`` describes them."""

    name: str = ""
    title: str = ""
    encoder: str = ""
    element_bits: Positive = 32.0
    assume: dict[str, WordRow] = {}
    vit: VitRow | None = None
    energy: EnergyRow | None = None
    point: list[PointRow] = []
    local: PointRow | None = None
    full: PointRow | None = msgspec.field(default=None, name="full-offload")


def read_profile(content: str, where: str, given: Mapping[str, float]) -> Profile:
    """The profile that a TOML text holds. where: names it in messages. given: values for its words.

    Raises DataError, which says in one line what does not fit, and UsageError for a word that it does not have.
    """
    try:
        rows = read_toml(content, ProfileFile)
    except ValueError as error:
        raise DataError(f"profile {where}: {error}; docs/latency.md has every key") from error
    for name in given:
        if name not in rows.assume:
            takes = f"it takes {', '.join(rows.assume)}" if rows.assume else "it takes none"
            raise UsageError(f"profile {where} has no assumption {name!r}; {takes}")
    return _Reader(where, rows, given).profile()


@dataclass
class _Reader:
    """One profile being read.

    assumed: what was taken for the words met so far. needs: words of the row being read that have no value.
    """

    where: str
    rows: ProfileFile
    given: Mapping[str, float]
    assumed: dict[str, str] = field(default_factory=dict)
    needs: list[str] = field(default_factory=list)

    def fail(self, message: str) -> NoReturn:
        raise DataError(f"profile {self.where}: {message}")

    def profile(self) -> Profile:
        rows = self.rows
        if not rows.point:
            self.fail("has no [[point]]")
        points = tuple(self.point(row, f"point {i}") for i, row in enumerate(rows.point, 1))
        return Profile(
            name=rows.name or self.where,
            title=rows.title or self.where,
            points=points,
            local=None if rows.local is None else self.point(rows.local, LOCAL),
            full=None if rows.full is None else self.point(rows.full, FULL),
            encoder=rows.encoder,
            energy=None if rows.energy is None else self.energy(rows.energy),
            assumed=self.assumed,
        )

    def point(self, row: PointRow, where: str) -> OperatingPoint:
        label = row.label or where
        self.needs = []
        share, work = self.shares(row, label)
        size = self.size(row, label) * share
        device = self.stages(row.device_ms, label)
        server = self.stages(row.server_ms, label)
        if "tail" in server:
            server["tail"] *= work
        if not all(map(isfinite, (size, work, *server.values()))):
            self.fail(f"{label}: its patches, bytes and times make numbers that are too large")
        accuracy = None if row.accuracy is None else self.number(row.accuracy, f"accuracy of {label}")
        spread = self.number(row.spread, f"spread of {label}")
        sent = float(row.bytes is not None) if row.sent is None else self.number(row.sent, f"sent of {label}")
        if (accuracy is not None and accuracy > 1) or sent > 1:
            self.fail(f"{label}: accuracy and sent are fractions from 0 to 1")
        return OperatingPoint(
            label=label,
            accuracy=accuracy,
            bytes=size,
            device_ms=device,
            server_ms=server,
            sent=sent,
            coding=None if row.coding is None else self.coding(row.coding, size, label),
            spec=row.spec,
            knobs=row.knobs,
            macs=None if row.macs is None else self.number(row.macs, f"macs of {label}"),
            interval=[accuracy - spread, accuracy + spread] if accuracy is not None and spread else None,
            source=self.where,
            needs=tuple(dict.fromkeys(self.needs)),
        )

    def shares(self, row: PointRow, label: str) -> tuple[float, float]:
        """Of all patches' bytes, and of all patches' multiply-accumulates, the part that ``patches`` are."""
        if row.patches is None:
            return 1.0, 1.0
        vit = self.rows.vit
        if vit is None:
            self.fail(f"{label} counts patches, of how many [vit] says with patches and width")
        kept, width = self.number(row.patches, f"patches of {label}"), int(vit.width)
        if kept > MOST_OF_VIT:
            self.fail(f"patches of {label} are at most {MOST_OF_VIT:g}, not {kept:g}")
        return kept / vit.patches, vit_macs(kept, width) / vit_macs(vit.patches, width)

    def size(self, row: PointRow, label: str) -> float:
        if isinstance(row.bytes, list):
            return size_bytes(self.number(value, f"bytes of {label}") for value in row.bytes)
        return 0.0 if row.bytes is None else self.number(row.bytes, f"bytes of {label}")

    def stages(self, row: Mapping[str, Amount], label: str) -> dict[str, float]:
        return {stage: self.number(ms, f"{stage} of {label}") for stage, ms in row.items()}

    def coding(self, row: CodingRow, size: float, label: str) -> Coding:
        entropy = self.number(row.entropy, f"entropy of {label}")
        encode, decode = (self.number(ms, f"coding of {label}") for ms in (row.encode_ms, row.decode_ms))
        return Coding(size * entropy / self.rows.element_bits, encode, decode)

    def energy(self, row: EnergyRow) -> Energy | None:
        """None where it names what was not given."""
        self.needs = []
        found = Energy(self.number(row.joule_per_mac, "joule_per_mac"), self.number(row.joule_per_bit, "joule_per_bit"))
        return None if self.needs else found

    def number(self, value: Amount, what: str) -> float:
        """A number, or what its word stands for: 0, and noted, where nothing says."""
        if not isinstance(value, str):
            return value
        if value not in self.rows.assume:
            self.fail(f"{what} is {value!r}, which no [assume.{value}] explains")
        word = self.rows.assume[value]
        found = self.given.get(value, word.value)
        if found is None:
            self.needs.append(value)
            return 0.0
        self.assumed[value] = f"{found:g}, " + ("as given" if value in self.given else word.why)
        if not 0 <= found <= MOST:
            self.fail(f"{what} is a number of at least 0, not {found!r}")
        return float(found)
