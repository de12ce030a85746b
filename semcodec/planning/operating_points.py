"""Reads operating points: from profiles, which are TOML, and from the results folders of ``semcodec bench``.

A profile is ``name``, ``title``, ``encoder``, any number of ``[[point]]`` and the baselines ``[local]`` and
``[full-offload]``; docs/latency.md has every key. A figure that its source does not print is written as a word, which
an ``[assume.WORD]`` explains and to which the caller, or the profile itself with its reason, gives a value.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

from semcodec.errors import DataError, SemcodecError, UsageError
from semcodec.planning.latency import FULL, LOCAL, Coding, Energy, OperatingPoint, Profile, size_bytes, vit_macs
from semcodec.tasks.table import metric_of, metrics

SERVER = ("entropy_decode", "read", "restore", "recover", "tail", "nms")
MODEL = ("head", "tail", "nms")
"""Stages of a record that the server runs; all others are the device's."""
PROFILE_KEYS = {"name", "title", "encoder", "element_bits", "assume", "local", "full-offload", "point", "vit", "energy"}
POINT_KEYS = {
    "label", "spec", "knobs", "accuracy", "spread", "bytes", "sent", "patches", "device_ms", "server_ms", "coding",
    "macs",
}  # fmt: skip


def shipped() -> list[str]:
    """Names of the profiles that come with semcodec."""
    folder = files("semcodec.planning") / "profiles"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def open_points(text: str, assume: Mapping[str, float] | None = None) -> Profile:
    """A profile by name, a profile's file, or a results folder. Raises UsageError, DataError."""
    path = Path(text)
    if text in shipped():
        content = (files("semcodec.planning") / "profiles" / f"{text}.toml").read_text(encoding="utf-8")
        return _Reader(text, assume or {}).profile(content)
    if path.is_dir():
        if assume:
            raise UsageError(f"{path} holds measurements, which take no assumptions: {', '.join(assume)}")
        return read_results(path)
    if path.is_file():
        try:
            content = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{path} is no text, and so no profile") from None
        return _Reader(str(path), assume or {}).profile(content)
    raise UsageError(
        f"there is no profile {text!r}, and no such file or results folder; profiles are {', '.join(shipped())}"
    )


@dataclass
class _Reader:
    """One profile being read. ``assumed``: what was taken for the words met so far."""

    where: str
    given: Mapping[str, float]
    words: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    assumed: dict[str, str] = field(default_factory=dict)
    needs: list[str] = field(default_factory=list)
    element_bits: float = 32
    vit: Mapping[str, Any] | None = None

    def fail(self, message: str) -> NoReturn:
        raise DataError(f"profile {self.where}: {message}")

    def profile(self, content: str) -> Profile:
        try:
            data = tomllib.loads(content)
        except tomllib.TOMLDecodeError as error:
            self.fail(f"is no TOML: {error}")
        self.known(data, PROFILE_KEYS, "a profile")
        self.words = self.table(data, "assume")
        for name in self.given:
            if name not in self.words:
                takes = f"it takes {', '.join(self.words)}" if self.words else "it takes none"
                raise UsageError(f"profile {self.where} has no assumption {name!r}; {takes}")
        self.element_bits = self.number(data.get("element_bits", 32), "element_bits")
        self.vit = data.get("vit")
        rows = data.get("point")
        if not isinstance(rows, list) or not rows:
            self.fail("has no [[point]]")
        points = tuple(self.point(row, f"point {i}") for i, row in enumerate(rows, 1))
        base = {name: self.point(data[name], name) for name in (LOCAL, FULL) if name in data}
        return Profile(
            name=str(data.get("name", self.where)),
            title=str(data.get("title", self.where)),
            points=points,
            local=base.get(LOCAL),
            full=base.get(FULL),
            encoder=str(data.get("encoder", "")),
            energy=self.energy(self.table(data, "energy")),
            assumed=self.assumed,
        )

    def point(self, row: Any, where: str) -> OperatingPoint:
        if not isinstance(row, dict):
            self.fail(f"{where} is a table of what it costs and gets right")
        self.known(row, POINT_KEYS, where)
        label = str(row.get("label", where))
        self.needs = []
        share, work = self.shares(row, label)
        size = self.size(row.get("bytes", 0), f"bytes of {label}") * share
        device = dict(self.stages(row, "device_ms", label))
        server = {stage: ms * (work if stage == "tail" else 1) for stage, ms in self.stages(row, "server_ms", label)}
        accuracy = self.number(row["accuracy"], f"accuracy of {label}") if "accuracy" in row else None
        spread = self.number(row.get("spread", 0), f"spread of {label}")
        sent = self.number(row.get("sent", 1 if "bytes" in row else 0), f"sent of {label}")
        if (accuracy is not None and not 0 <= accuracy <= 1) or not 0 <= sent <= 1:
            self.fail(f"{label}: accuracy and sent are fractions from 0 to 1")
        return OperatingPoint(
            label=label,
            accuracy=accuracy,
            bytes=size,
            device_ms=device,
            server_ms=server,
            sent=sent,
            coding=self.coding(self.table(row, "coding"), size, label),
            spec=str(row.get("spec", "")),
            knobs=dict(self.table(row, "knobs")),
            macs=self.number(row["macs"], f"macs of {label}") if "macs" in row else None,
            interval=[accuracy - spread, accuracy + spread] if accuracy is not None and spread else None,
            source=self.where,
            needs=tuple(dict.fromkeys(self.needs)),
        )

    def shares(self, row: Mapping[str, Any], label: str) -> tuple[float, float]:
        """Of all patches' bytes, and of all patches' multiply-accumulates, the part that ``patches`` are."""
        if "patches" not in row:
            return 1.0, 1.0
        if not isinstance(self.vit, dict):
            self.fail(f"{label} counts patches, of how many [vit] says with patches and width")
        total, width = (self.number(self.vit.get(key), f"{key} of [vit]") for key in ("patches", "width"))
        kept = self.number(row["patches"], f"patches of {label}")
        return kept / total, vit_macs(kept, int(width)) / vit_macs(total, int(width))

    def size(self, value: Any, what: str) -> float:
        return size_bytes(self.number(v, what) for v in value) if isinstance(value, list) else self.number(value, what)

    def stages(self, row: Mapping[str, Any], key: str, label: str) -> list[tuple[str, float]]:
        return [(stage, self.number(ms, f"{stage} of {label}")) for stage, ms in self.table(row, key).items()]

    def coding(self, row: Mapping[str, Any], size: float, label: str) -> Coding | None:
        if not row:
            return None
        self.known(row, {"entropy", "encode_ms", "decode_ms"}, f"coding of {label}")
        keys = ("entropy", "encode_ms", "decode_ms")
        entropy, encode, decode = (self.number(row.get(key), f"{key} of {label}") for key in keys)
        return Coding(size * entropy / self.element_bits, encode, decode)

    def energy(self, row: Mapping[str, Any]) -> Energy | None:
        """None too where it names what was not given."""
        if not row:
            return None
        self.needs = []
        found = Energy(*(self.number(row.get(f"joule_per_{what}"), f"joule_per_{what}") for what in ("mac", "bit")))
        return None if self.needs else found

    def number(self, value: Any, what: str) -> float:
        """A number of at least 0, or what its word stands for: 0, and noted, where nothing says."""
        if isinstance(value, str):
            if value not in self.words:
                self.fail(f"{what} is {value!r}, which no [assume.{value}] explains")
            word, name = self.words[value], value
            value = self.given.get(name, word.get("value"))
            if value is None:
                self.needs.append(name)
                return 0.0
            self.assumed[name] = f"{value:g}, " + ("as given" if name in self.given else str(word.get("why", "")))
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
            self.fail(f"{what} is a number of at least 0, not {value!r}")
        return float(value)

    def table(self, row: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = row.get(key, {})
        if not isinstance(value, dict):
            self.fail(f"{key} is a table, not {value!r}")
        return value

    def known(self, row: Mapping[str, Any], keys: set[str], what: str) -> None:
        unknown = [key for key in row if key not in keys]
        if unknown:
            self.fail(f"{what} has no key {unknown[0]!r}; there are {', '.join(sorted(keys))}")


def read_results(folder: Path) -> Profile:
    """What ``semcodec bench`` measured. Raises DataError where the folder holds no records of one data set."""
    from semcodec.evaluation.records import read

    records = [record for record in read(folder) if "failed" not in record]
    if not records:
        raise DataError(f"{folder} has no record of a cell that ran")
    sets = {(r["data"], r["split"], r["data_digest"]) for r in records}
    if len(sets) > 1:
        named = " and ".join(sorted({f"{data} ({digest})" for data, _, digest in sets})[:2])
        raise DataError(f"{folder} has records of different samples, {named}: accuracies that do not compare")
    points = [measured(record) for record in records]
    whole = _best(FULL, [p for p in points if _is_full(p.spec)]) or _unmeasured(records)
    alone = _best(LOCAL, [p for p in points if not p.sent])
    first = records[0]
    return Profile(
        name=str(folder),
        title=f"{first['data']}, {first['split'] or 'all'}, {first['samples']} samples, measured",
        points=tuple(points),
        local=alone or _at_home(whole),
        full=whole,
    )


def _unmeasured(records: Sequence[Mapping[str, Any]]) -> OperatingPoint:
    """Full offloading where no record is of it: 8-bit pixels, the slowest backbone there is, unknown accuracy."""
    most = max(records, key=lambda record: sum(_backbone_ms(record["stages_ms"]).values()))
    label = f"{FULL}, 8-bit pixels, to {most['spec'].rpartition('+')[2]}"
    return OperatingPoint(label, None, most["raw_uint8_bytes"], {}, _backbone_ms(most["stages_ms"]))


def _at_home(full: OperatingPoint) -> OperatingPoint:
    """The same backbone on the device, taken to be as fast as what was measured, with nothing sent."""
    stages = {**full.device_ms, **full.server_ms}
    label = full.label.replace(FULL, LOCAL, 1).replace(", 8-bit pixels, to ", ", ")
    return replace(full, label=label, bytes=0.0, sent=0.0, device_ms=_backbone_ms(stages), server_ms={})


def _backbone_ms(stages: Mapping[str, float]) -> dict[str, float]:
    return {stage: stages[stage] for stage in MODEL if stage in stages}


def measured(record: Mapping[str, Any]) -> OperatingPoint:
    """A record of ``eval``, whose means are over all samples, as a point, whose server works for those sent."""
    sent = float(record["sent_ratio"])
    stages: Mapping[str, float] = record["stages_ms"]
    metric = metric_of(record)
    if metric is None:
        raise DataError(f"the record of {record['spec']} has none of {', '.join(metrics())}")
    return OperatingPoint(
        label=record["spec"],
        accuracy=record[metric],
        bytes=record["bytes_total"] / sent if sent else 0.0,
        device_ms={stage: ms for stage, ms in stages.items() if stage not in SERVER},
        server_ms={stage: ms / sent for stage, ms in stages.items() if stage in SERVER} if sent else {},
        sent=sent,
        spec=record["spec"],
        knobs=dict(record["knobs"]),
        interval=record.get(f"{metric}_interval"),
        source=record.get("cell", record.get("key", "")),
    )


def _best(baseline: str, points: Sequence[OperatingPoint]) -> OperatingPoint | None:
    best = max(points, key=lambda point: (point.accuracy or 0, -point.bytes), default=None)
    return best and replace(best, label=f"{baseline}, {best.spec}")


def _is_full(spec: str) -> bool:
    """Whether a record is of the whole input, sent as it is: its Encoder says so, and no knob was turned."""
    from semcodec.composition.composition import compose_spec

    try:
        encoder = compose_spec(spec).encoder
    except SemcodecError:  # measured where there were other plugins
        return False
    return encoder.component.traits.get("baseline") == FULL and not encoder.item.args
