"""What records must be like to be used: the types of what they have, and what a measured one cannot lack."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from semcodec._typed import convert
from semcodec.composition.grammar import parse
from semcodec.errors import DataError, SpecError

RECORD = 1
"""Version of the form of records, of cells that were measured and of cells that failed."""
MOST = 1e15  # no size and no time is above it, and sums of such numbers are finite
Amount = Annotated[float, msgspec.Meta(ge=-MOST, le=MOST)]
Work = Annotated[float, msgspec.Meta(ge=0, le=MOST)]
Count = Annotated[int, msgspec.Meta(ge=0, le=int(MOST))]
Words = dict[str, str | int | float | None]
NEEDED = ("spec", "data", "split", "samples", "data_digest", "bytes_total", "raw_uint8_bytes", "sent_ratio",
          "stages_ms", "knobs")  # fmt: skip


class RecordForm(msgspec.Struct):
    """The keys of a record that are used, each of which an earlier version may not have written."""

    record: int
    spec: str | None = None
    failed: str | None = None
    cell: str | None = None
    key: str | None = None
    name: str | None = None
    task: str | None = None
    data: str | None = None
    split: str | None = None
    data_digest: str | None = None
    samples: Count = 0
    batch: int | None = None
    seed: int | None = None
    knobs: dict[str, bool | int | float | str] = {}
    bytes_total: Amount | None = None
    bytes_payload: Amount | None = None
    bytes_side: Amount | None = None
    bytes_header: Amount | None = None
    raw_uint8_bytes: Amount | None = None
    ratio_uint8: Amount | None = None
    ratio_float32: Amount | None = None
    sent_ratio: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    stages_ms: dict[str, Amount] = {}
    macs_device: Work | None = None
    macs_server: Work | None = None
    macs_whole: Work | None = None
    device_share: Work | None = None
    memory_device: Work | None = None
    memory_server: Work | None = None
    versions: Words = {}
    machine: Words = {}
    weights: dict[str, dict[str, str | None]] = {}
    task_weights: dict[str, Work] = {}
    parts: dict[str, dict[str, Any]] = {}


def check_version(record: Mapping[str, Any], where: str) -> None:
    """Raise DataError where a record is of another form."""
    if record.get("record") != RECORD or isinstance(record["record"], bool | float):
        raise DataError(f"{where}: of form {record.get('record')!r}, and form {RECORD} is read here; measure it anew")


def check_record(record: Mapping[str, Any], where: str) -> None:
    """Raise DataError where a record is of another form, or something in it of another type."""
    from semcodec.tasks.table import metrics

    check_version(record, where)
    try:
        form = convert(dict(record), RecordForm)
        numbers = [form.bytes_total, form.sent_ratio, form.device_share, *form.stages_ms.values()]
        for metric in metrics():
            numbers.append(convert(record.get(metric), Amount | None))  # type: ignore[arg-type]
            numbers += convert(record.get(f"{metric}_interval"), tuple[float, float] | None) or ()  # type: ignore[arg-type]
        if not all(number is None or math.isfinite(number) for number in numbers):
            raise ValueError("has a number that is not finite")
    except ValueError as error:
        raise DataError(f"{where}: {error}; measure it anew") from error
    for task, part in form.parts.items():
        check_record(part, f"{where}, {task}")
        if lacks := lacking(part):
            raise DataError(f"{where}, {task}: lacks {lacks}; measure it anew")
    try:
        parse(form.spec or "a")
    except SpecError as error:
        raise DataError(f"{where}: {form.spec!r} is no spec: {error.message}") from error


def lacking(record: Mapping[str, Any], more: Sequence[str] = ()) -> str | None:
    """One of the ``NEEDED`` keys, or ``more``, or of an accuracy, that a record of a cell that ran does not have."""
    from semcodec.tasks.table import metric_of, metrics

    if metric_of(record) is None:
        return " or ".join(metrics())
    return next((key for key in (*NEEDED, *more) if key not in record), None)
