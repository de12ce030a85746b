"""What is told of samples that went through a pipeline: the keys of ``--format json``, and the same as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from semcodec.cli.output import echo_fields, echo_json, echo_table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from semcodec.data.inputs import Input
    from semcodec.data.parts import Part
    from semcodec.errors import TooFewLayers
    from semcodec.pipeline.device import Device, Encoded
    from semcodec.pipeline.end import End
    from semcodec.pipeline.pipeline import Pipeline
    from semcodec.pipeline.server import Server
    from semcodec.pipeline.timing import Clock
    from semcodec.tasks.prediction import Prediction

KEYS = """With --format json, one object: spec, task, input, sequence, prediction {index, name, probability, top5,
where}, logits, label, top1 (1.0, 0.0 or null), bytes_total = bytes_payload + bytes_side + bytes_header, bytes_local,
bytes_stream_header, file_bytes, raw_float32_bytes, raw_uint8_bytes, ratio_float32, ratio_uint8, stages_ms, layers
[there, in all] and weights {slot: {source, digest}}. For several samples, what belongs to one of them is in the list
"records". Of a detector prediction is {boxes [{name, score, xyxy}], where}, with the boxes that score at least 0.25 in
pixels of the source, whose width and height are in source; label has {name, xyxy} of what is there. Of a
model that segments prediction is {classes [{name, share}], where}, with classes of at least 0.5 % of the pixels, and
pixel_accuracy the share of known pixels that are right; of one for retrieval {embedding, where}; of one that
reconstructs {picture [width, height], where}, and psnr in dB. Of a stream for several tasks these keys are in answers,
by task, and where its layers are too few prediction is null and lacks says why. Of a damaged file error says why
no more is here. Where nobody has answered, as on a
device that only sends, prediction, logits and top1 are null; kept says what was sent by target."""


class Sample:
    """One input as it was named: uint8 pixels with a batch axis of one, and its label where that is known.

    data: the data set that it is of, None for a file.
    label: as the task tells it: a class's name, or ``Boxes`` in pixels of the source. size: width and height of the
    source, where the task's labels lie in it.
    """

    def __init__(self, named: str | Input, end: End) -> None:
        from semcodec.data.inputs import open_input
        from semcodec.tasks.table import get_task

        self.pixels: npt.NDArray[np.uint8]
        request = end.request
        opened = open_input(named, request) if isinstance(named, str) else named
        self.pixels, label, self.classes, self.name, self.size = opened
        name, colon, _ = named.rpartition(":") if isinstance(named, str) else ("", "", "")
        self.data = name if self.classes is not None and colon else None
        self.label: Any = None
        if label is not None and self.classes is not None:
            self.label = get_task(end.composition.task).label(label, self.classes, self.size, request)


def open_samples(named: str, end: End, part: Part | None = None) -> Iterator[Sample]:
    """The sample that is named, or those of the windows of a video file, one after the other."""
    from semcodec.data.inputs import open_windows

    if part is None:
        yield Sample(named, end)
        return
    for one in open_windows(named, end.request, part):
        yield Sample(one, end)


SIZES = ("bytes_total", "bytes_payload", "bytes_side", "bytes_header", "bytes_local")


def encode(device: Device, sample: Sample, sequence: int = 0) -> tuple[Encoded, dict[str, Any]]:
    """Encode to bytes: these, and what is told of them and of the device's own answer, where it has one."""
    from io import BytesIO

    from semcodec.container.packets import LocalRecord, read_packets
    from semcodec.tasks.prediction import Prediction
    from semcodec.tasks.table import get_task

    clock = device.clock()
    [encoded] = device.encode_batch(sample.pixels, [sequence], clock, sample.size and [sample.size])
    [record] = read_packets(BytesIO(encoded.data), device.header)
    answer, layers = None, (1, 1)
    if isinstance(record, LocalRecord):
        answer = get_task(device.composition.task).predict_local(record, device.classes)
    else:
        layers = record.layers_present, record.layers_total
        if encoded.logits is not None:
            answer = Prediction.of_logits(encoded.logits, device.classes, layers, where="device")
    found = describe_sample(device, answer, _sizes(encoded), clock, sequence, sample)
    return encoded, {**found, "layers": list(layers), "kept": dict(encoded.kept)}


def run(pipeline: Pipeline, sample: Sample, sequence: int = 0) -> tuple[Encoded, dict[str, Any]]:
    """Encode to bytes and decode those: the bytes, and what is told of them."""
    _note_other_data(pipeline, sample)
    clock = pipeline.clock()
    encoded = pipeline.encode_batch(sample.pixels, [sequence], clock, sample.size and [sample.size])
    prediction = pipeline.decode_batch(pipeline.records(encoded), clock)[0]
    return encoded[0], describe_sample(pipeline, prediction, _sizes(encoded[0]), clock, sequence, sample)


def _note_other_data(end: End, sample: Sample) -> None:
    """Say so where the answers are of a network that has seen a built-in data set alone, and this is none of it."""
    from semcodec.data.datasets import rows
    from semcodec.data.notes import note

    source = end.sources.get(end.composition.head_slot)
    data = source.card.get("data") if source else None
    if source and data != sample.data and data in [row["name"] for row in rows()]:
        few = ", ".join(end.classes[:4])
        more = ", ..." if len(end.classes) > 4 else ""
        note(
            f"{source.origin} was trained on {data} alone, so it answers one of its {len(end.classes)} classes "
            f"({few}{more}) whatever {sample.name} shows"
        )


def _sizes(encoded: Encoded) -> dict[str, int]:
    return {name: getattr(encoded, name) for name in SIZES}


def describe_sample(
    end: End,
    prediction: Prediction | None,
    sizes: Mapping[str, int],
    clock: Clock,
    sequence: int,
    sample: Sample | None = None,
) -> dict[str, Any]:
    """What belongs to one sample."""
    from semcodec.tasks.table import get_task

    task = get_task(end.composition.task)
    label, names = (sample.label, sample.classes) if sample else (None, None)
    if prediction is None:
        size = (sample and sample.size) or (end.request.width, end.request.height)
        found = task.describe_unanswered(label, names, size)
    else:
        found = task.describe(prediction, end.classes, label, names)
    layers = prediction.layers if prediction else (1, 1)
    return {"input": sample.name if sample else None, **_measured(end, found, sizes, clock, sequence, layers)}


def describe_tasks(
    server: Server,
    found: Mapping[str, Prediction | TooFewLayers],
    sizes: Mapping[str, int],
    clock: Clock,
    sequence: int,
) -> dict[str, Any]:
    """The same of a record of which one task is answered, at least: ``answers`` has what belongs to each."""
    from semcodec.tasks.prediction import Prediction
    from semcodec.tasks.table import get_task

    told: dict[str, Any] = {}
    answered = [one for one in found.values() if isinstance(one, Prediction)]
    for task, one in found.items():
        if isinstance(one, Prediction):
            told[task] = get_task(task).describe(one, server.alone(task).classes, None, None)
        else:
            told[task] = {"prediction": None, "lacks": str(one)}
    source = next(({"source": one["source"]} for one in told.values() if "source" in one), {})
    measured = _measured(server, {"answers": told, **source}, sizes, clock, sequence, answered[0].layers)
    return {"input": None, **measured}


def _measured(
    end: End,
    found: Mapping[str, Any],
    sizes: Mapping[str, int],
    clock: Clock,
    sequence: int,
    layers: tuple[int, int],
) -> dict[str, Any]:
    total = sizes["bytes_total"]
    return {
        "sequence": sequence,
        **found,
        **sizes,
        "ratio_float32": end.raw_float32_bytes / total if total else None,
        "ratio_uint8": _source_bytes(end, found) / total if total else None,
        "stages_ms": {stage: 1000 * seconds for stage, seconds in clock.seconds.items()},
        "layers": list(layers),
    }


def _source_bytes(end: End, found: Mapping[str, Any]) -> int:
    """The source as 8-bit pixels."""
    return 3 * math.prod(found["source"]) if "source" in found else end.raw_uint8_bytes


def document(
    end: End, records: Sequence[Mapping[str, Any]], file_bytes: int | None = None, error: str | None = None
) -> dict[str, Any]:
    """What belongs to the whole stream, with its one record or the list of them. ``file_bytes``: if not all is here;
    ``error``: why not."""
    from semcodec.container.packets import write_header

    header = len(write_header(end.header))
    whole = {
        "spec": end.spec,
        "task": None if "answers" in records[0] else end.composition.task,
        "bytes_stream_header": header,
        "file_bytes": file_bytes or header + sum(r["bytes_total"] + r["bytes_local"] for r in records),
        "raw_float32_bytes": end.raw_float32_bytes,
        "raw_uint8_bytes": round(sum(_source_bytes(end, r) for r in records) / len(records)),
        "weights": end.describe_weights(),
        **end.accelerator.describe(),
        **({} if error is None else {"error": error}),
    }
    return {**whole, **records[0]} if len(records) == 1 else {**whole, "records": list(records)}


def show(found: Mapping[str, Any], form: str) -> None:
    """Print a ``document``."""
    if form == "json":
        echo_json(found)
    elif "records" in found:
        _show_many(found)
    else:
        _show_one(found)


def _show_one(found: Mapping[str, Any]) -> None:
    fields: list[tuple[str, Any]] = [("input", found["input"])] if found["input"] else []
    for one in _by_task(found):
        fields += _answer(one)
    if kept := found.get("kept"):
        fields += [("kept", ", ".join(f"{target} {units:,}" for target, units in kept.items()))]
    fields += [
        ("bytes", _bytes(found)),
        ("file", f"{found['file_bytes']:,} with the stream header of {found['bytes_stream_header']:,}"),
        ("ratio", _ratios(found)),
        *([("layers", "/".join(map(str, found["layers"])))] if found["layers"] != [1, 1] else []),
        ("ms", _times(found["stages_ms"])),
        ("weights", _weights(found)),
    ]
    echo_fields(fields)


def _by_task(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is told of a sample as it is of one task: of several for each."""
    if "answers" not in found:
        return [found]
    return [{**found, **told, "task": task} for task, told in found["answers"].items()]


def _answer(told: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The fields of one task's answer, whose table, if it has one, is printed; of one of several under its name."""
    from semcodec.tasks.table import get_task

    task = get_task(told["task"])
    if told["prediction"] is None:
        return [(task.name, f"not answered: {told['lacks']}")] if "lacks" in told else []
    fields = task.fields(told)
    if table := task.table(told):
        echo_table(*table)
        click.echo()
    if "answers" in told:
        return [(task.name, "; ".join(str(value) for _, value in fields))]
    return fields


def _cells(told: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The same among several samples; of one of several tasks in one column."""
    from semcodec.tasks.table import get_task

    task = get_task(told["task"])
    if "answers" not in told:
        return [] if told["prediction"] is None else task.cells(told)
    told_all = [] if told["prediction"] is None else [str(value) for _, value in task.cells(told) if value is not None]
    return [(task.name, " ".join(told_all) or None)]


def _show_many(found: Mapping[str, Any]) -> None:
    records = found["records"]
    layered = any(r["layers"] != [1, 1] for r in records)
    rows = []
    answers = [[cell for one in _by_task({"task": found["task"], **r}) for cell in _cells(one)] for r in records]
    heads = next(([head for head, _ in cells] for cells in answers if cells), [])
    for r, cells in zip(records, answers, strict=True):
        row: list[Any] = [
            r["input"] or f"record {r['sequence']}",
            *([value for _, value in cells] or [None] * len(heads)),
        ]
        row += [r[name] for name in ("bytes_total", "bytes_payload", "bytes_side", "bytes_header")]
        rows.append([*row, *(["/".join(map(str, r["layers"]))] if layered else [])])
    headers = ["input", *heads, "bytes", "payload", "side", "header"]
    echo_table([*headers, *(["layers"] if layered else [])], rows)
    click.echo()
    total = sum(r["bytes_total"] for r in records) / len(records)
    mean: dict[str, float] = {}
    for r in records:
        for stage, ms in r["stages_ms"].items():
            mean[stage] = mean.get(stage, 0.0) + ms / len(records)
    ratios = {f"ratio_{kind}": found[f"raw_{kind}_bytes"] / total if total else None for kind in ("float32", "uint8")}
    echo_fields(
        [
            ("file", f"{found['file_bytes']:,} bytes with the stream header of {found['bytes_stream_header']:,}"),
            ("ratio", _ratios({**found, **ratios}) + ", on average"),
            ("ms", _times(mean) + ", on average"),
            ("weights", _weights(found)),
        ]
    )


def _bytes(record: Mapping[str, Any]) -> str:
    if record["bytes_local"]:
        return f"0 sent; {record['bytes_local']} keep the device's answer in a file"
    parts = " + ".join(f"{record[f'bytes_{part}']:,} {part}" for part in ("payload", "side", "header"))
    return f"{record['bytes_total']:,} = {parts}"


def _ratios(found: Mapping[str, Any]) -> str:
    if found["ratio_float32"] is None:
        return "nothing was sent"
    return (
        f"{found['ratio_float32']:,.1f} to float32 at the cut ({found['raw_float32_bytes']:,} bytes), "
        f"{found['ratio_uint8']:,.1f} to 8-bit pixels ({found['raw_uint8_bytes']:,.0f})"
    )


def _times(stages_ms: Mapping[str, float]) -> str:
    return ", ".join(f"{stage} {ms:.2f}" for stage, ms in stages_ms.items())


def _weights(found: Mapping[str, Any]) -> str:
    sources: dict[str, list[str]] = {}
    for slot, source in found["weights"].items():
        sources.setdefault(source["source"], []).append(slot)
    return "; ".join(f"{', '.join(slots)}: {_origin(source)}" for source, slots in sources.items()) or "none needed"


def _origin(source: str) -> str:
    return "random, so the answer means nothing" if source == "random" else source
