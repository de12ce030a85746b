"""Reads operating points: from profiles, which are TOML, and from the results folders of ``semcodec bench``.

A profile is ``name``, ``title``, ``encoder``, any number of ``[[point]]`` and the baselines ``[local]`` and
``[full-offload]``; docs/latency.md has every key. A figure that its source does not print is written as a word, which
an ``[assume.WORD]`` explains and to which the caller, or the profile itself with its reason, gives a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from semcodec._files import read_regular
from semcodec.composition.grammar import parse
from semcodec.errors import DataError, SemcodecError, UsageError
from semcodec.planning.latency import FULL, LOCAL, OperatingPoint, Profile
from semcodec.planning.profile_file import read_profile
from semcodec.tasks.table import MEAN, WEIGHTS, metric_of, metrics
from semcodec.tasks.weighted import Asked, chosen, name_of, refuse_other_units

LARGEST = 1 << 26
"""Bytes of a profile that is read."""
SERVER = ("entropy_decode", "read", "restore", "recover", "tail", "nms")
MODEL = ("head", "tail", "nms")
"""Stages of a record that the server runs; all others are the device's."""


def shipped() -> list[str]:
    """Names of the profiles that come with semcodec."""
    folder = files("semcodec.planning") / "profiles"
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".toml"))


def open_points(text: str, assume: Mapping[str, float] | None = None, asked: Asked | None = None) -> Profile:
    """A profile by name, a profile's file, or a results folder. Raises UsageError, DataError.

    asked: whose score counts where a results folder has several tasks.
    """
    path = Path(text)
    if text in shipped():
        content = (files("semcodec.planning") / "profiles" / f"{text}.toml").read_text(encoding="utf-8")
        return read_profile(content, text, assume or {})
    if path.is_dir():
        if assume:
            raise UsageError(f"{path} holds measurements, which take no assumptions: {', '.join(assume)}")
        return read_results(path, asked)
    if asked and asked.tasks:
        raise UsageError(f"{asked.option.strip(' =')} is about results of several tasks, and {text} is a profile")
    if path.is_file():
        try:
            content = read_regular(path, LARGEST).decode()
        except UnicodeDecodeError:
            raise DataError(f"{path} is no text, and so no profile") from None
        return read_profile(content, str(path), assume or {})
    raise UsageError(
        f"there is no profile {text!r}, and no such file or results folder; profiles are {', '.join(shipped())}"
    )


def read_results(folder: Path, asked: Asked | None = None) -> Profile:
    """What ``semcodec bench`` measured. asked: the task whose score counts, or the weights of several tasks.

    Raises DataError where the folder holds no records of one data set, UsageError where it has several tasks and none
    is chosen, or not the one that is.
    """
    from semcodec.evaluation.record_form import check_record, lacking
    from semcodec.evaluation.records import read

    found = read(folder)
    for number, record in enumerate(found, 1):
        check_record(record, f"{folder}, record {number}")
        if "failed" not in record and (lacks := lacking(record)):
            raise DataError(f"{folder}, record {number}: lacks {lacks}; measure it anew")
    records: Sequence[Mapping[str, Any]] = [record for record in found if "failed" not in record]
    if not records:
        raise DataError(f"{folder} has no record of a cell that ran")
    records = _of_one_task(records, asked or Asked(), folder)
    sets = {(r["data"], r["split"], r["data_digest"]) for r in records}
    if len(sets) > 1:
        named = " and ".join(sorted({f"{data} ({digest})" for data, _, digest in sets})[:2])
        raise DataError(f"{folder} has records of different samples, {named}: accuracies that do not compare")
    pooled, spreads = pool_tails(records)
    points = [point_of(record) for record in pooled]
    whole = _best(FULL, [p for p in points if _is_full(p.spec)]) or _unmeasured(pooled)
    alone = _best(LOCAL, [p for p in points if not p.sent])
    first = records[0]
    return Profile(
        name=str(folder),
        title=f"{first['data']}, {first['split'] or 'all'}, {first['samples']} samples, measured",
        points=tuple(points),
        local=alone or _at_home(whole, pooled),
        full=whole,
        notes={
            **spreads,
            "ends": "both are taken to be as fast as the machine that measured: see --device-speed, --server-speed",
        },
    )


def _of_one_task(records: Sequence[Mapping[str, Any]], asked: Asked, folder: Path) -> list[Mapping[str, Any]]:
    """Those whose scores compare: of one task, or of the weighted mean of several. Raises UsageError."""
    if asked.weights is None and len(asked.tasks) > 1:
        raise UsageError(f"one score is planned for: weigh the tasks, as in {asked.option}{_weighed(asked.tasks)}")
    found = chosen(records, asked, folder)
    for record in found:
        refuse_other_units(record)
    if asked.weights is not None:
        return [record for record in found if metric_of(record) == MEAN.key]
    tasks = list(dict.fromkeys(map(name_of, found)))
    if len({metric_of(record) for record in found}) > 1:
        there, option, example = " and ".join(tasks), asked.option.strip(" ="), f"{asked.option}{_weighed(tasks)}"
        raise UsageError(f"{folder} has the tasks {there}: name one with {option}, or weigh them, as in {example}")
    return found


def _weighed(tasks: Sequence[str]) -> str:
    return ",".join(f"{task}=1" for task in tasks)


def backbone_of(record: Mapping[str, Any]) -> tuple[str, str]:
    """The backbone that answers in a record, as its spec has it, and its cut; of a mean of several tasks all of
    theirs, with ``+`` between."""
    from semcodec.composition.composition import compose_spec

    items = list(parse(record["spec"]).items)
    backbones, own = items[-1:], record.get(WEIGHTS) or [record.get("task")]
    with suppress(SemcodecError):  # measured where there were other plugins
        c = compose_spec(record["spec"])
        backbones = items[-len(c.tails) :]
        backbones = [item for item, task in zip(backbones, c.tasks, strict=True) if task in own] or backbones
    name = "+".join(str(replace(item, target=None)) for item in backbones)
    return name, backbones[-1].target or ""


def pool_tails(records: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
    """Records in which tails that compute the same take the same time, the median, and by backbone their spread.

    One timing is noise: equal tails of one run have been seen to differ threefold. Where a backbone computes only what
    was sent, those points alone are pooled that send the same.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, record in enumerate(records):
        if "tail" in record["stages_ms"] and record["sent_ratio"]:
            groups.setdefault(_tail_of(record), []).append(number)
    pooled, spreads = list(records), {}
    for (backbone, *_), members in groups.items():
        sent = [float(records[number]["sent_ratio"]) for number in members]
        took = [records[number]["stages_ms"]["tail"] / share for number, share in zip(members, sent, strict=True)]
        middle = median(took)
        for number, share in zip(members, sent, strict=True):
            stages = {**records[number]["stages_ms"], "tail": middle * share}
            pooled[number] = {**records[number], "stages_ms": stages}
        if len(members) > 1 and f"tail of {backbone}" not in spreads:
            told = f"{min(took):.2f} to {max(took):.2f} ms in {len(took)} records; taken is the median, {middle:.2f}"
            spreads[f"tail of {backbone}"] = told
    return pooled, spreads


def _tail_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What is equal where the server's part of the backbone computes the same: its item, and what it is sent."""
    from semcodec.composition.composition import compose_spec

    spec, backbone = record["spec"], "@".join(filter(None, backbone_of(record)))
    try:
        composition = compose_spec(spec)
    except SemcodecError:  # measured where there were other plugins
        return backbone, spec
    entropy = str(composition.entropy.item) if composition.entropy else ""
    whole = not composition.keep or composition.recoverer.name != "none"
    return (backbone,) if whole else (backbone, spec.replace(f"+{entropy}+", "+") if entropy else spec)


def _unmeasured(records: Sequence[Mapping[str, Any]]) -> OperatingPoint:
    """Full offloading where no record is of it: 8-bit pixels, the slowest backbone there is, unknown accuracy."""
    most = max(records, key=lambda record: sum(_backbone_ms(record["stages_ms"]).values()))
    label = f"{FULL}, 8-bit pixels, to {'@'.join(filter(None, backbone_of(most)))}"
    nothing = 0.0 if most.get("macs_whole") else None
    server = _backbone_ms(most["stages_ms"])
    return OperatingPoint(label, None, most["raw_uint8_bytes"], {}, server, macs=nothing, share=nothing)


def _at_home(full: OperatingPoint, records: Sequence[Mapping[str, Any]]) -> OperatingPoint:
    """The same backbone on the device, taken to be as fast as what was measured, with nothing sent."""
    named = [(record, backbone_of(record)[0]) for record in records]
    label = full.label.rpartition(" to ")[2].partition("@")[0]
    backbone = next((name for record, name in named if record["spec"] == full.spec), label)
    macs = next((r["macs_whole"] for r, name in named if r.get("macs_whole") and name == backbone), None)
    stages = {**full.device_ms, **full.server_ms}
    label = full.label.replace(FULL, LOCAL, 1).replace(", 8-bit pixels, to ", ", ")
    share = None if macs is None else 1.0
    here = replace(full, label=label, bytes=0.0, sent=0.0, device_ms=_backbone_ms(stages), server_ms={})
    return replace(here, macs=macs, share=share)


def _backbone_ms(stages: Mapping[str, float]) -> dict[str, float]:
    return {stage: stages[stage] for stage in MODEL if stage in stages}


def point_of(record: Mapping[str, Any]) -> OperatingPoint:
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
        macs=record.get("macs_device"),
        share=record.get("device_share"),
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
