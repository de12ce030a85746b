"""What is told of samples that went through a pipeline: the keys of ``--format json``, and the same as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from semcodec.cli.output import echo_fields, echo_json, echo_table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from semcodec.boxes import Letterbox
    from semcodec.pipeline.device import Encoded
    from semcodec.pipeline.pipeline import Pipeline
    from semcodec.pipeline.timing import Clock
    from semcodec.specs import InputRequest
    from semcodec.tasks.prediction import Prediction

TOP = 5

KEYS = """With --format json, one object: spec, task, input, sequence, prediction {index, name, probability, top5,
where}, logits, label, top1 (1.0, 0.0 or null), bytes_total = bytes_payload + bytes_side + bytes_header, bytes_local,
bytes_stream_header, file_bytes, raw_float32_bytes, raw_uint8_bytes, ratio_float32, ratio_uint8, stages_ms, layers
[there, in all] and weights {slot: {source, digest}}. For several samples, what belongs to one of them is in the list
"records". Of a detector prediction is {boxes [{name, score, xyxy}], where}, with the boxes that score at least 0.25 in
pixels of the source, whose width and height are in source; label has {name, xyxy} of what is there."""


class Sample:
    """One input as it was named: uint8 pixels with a batch axis of one, and its label where that is known.

    label: a class's name, or ``Boxes`` in pixels of the source. size: width and height of the source, for a detector.
    """

    def __init__(self, named: str, request: InputRequest) -> None:
        from semcodec.data import open_input

        self.pixels: npt.NDArray[np.uint8]
        self.pixels, label, self.classes, self.name, self.size = open_input(named, request)
        self.label: Any = None
        if label is not None and self.classes is not None:
            self.label = self.classes[label] if self.size is None else self._place(request).to_source(label)

    def _place(self, request: InputRequest) -> Letterbox:
        from semcodec.boxes import Letterbox

        assert self.size is not None
        return Letterbox.of(*self.size, request.width, request.height)


def run(pipeline: Pipeline, sample: Sample, sequence: int = 0) -> tuple[Encoded, dict[str, Any]]:
    """Encode to bytes and decode those: the bytes, and what is told of them."""
    from semcodec.pipeline.timing import Clock

    clock = Clock()
    encoded = pipeline.encode_batch(sample.pixels, [sequence], clock, sample.size and [sample.size])
    prediction = pipeline.decode_batch(pipeline.records(encoded), clock)[0]
    sizes = {name: getattr(encoded[0], name) for name in ("bytes_total", "bytes_payload", "bytes_side", "bytes_header")}
    sizes["bytes_local"] = encoded[0].bytes_local
    return encoded[0], told(pipeline, prediction, sizes, clock, sequence, sample)


def told(
    pipeline: Pipeline,
    prediction: Prediction,
    sizes: Mapping[str, int],
    clock: Clock,
    sequence: int,
    sample: Sample | None = None,
) -> dict[str, Any]:
    """What belongs to one sample."""
    total = sizes["bytes_total"]
    told = _detected if prediction.boxes is not None else _recognised
    found = told(pipeline, prediction, sample)
    return {
        "input": sample.name if sample else None,
        "sequence": sequence,
        **found,
        **sizes,
        "ratio_float32": pipeline.raw_float32_bytes / total if total else None,
        "ratio_uint8": _source_bytes(pipeline, found) / total if total else None,
        "stages_ms": {stage: 1000 * seconds for stage, seconds in clock.seconds.items()},
        "layers": list(prediction.layers),
    }


def _recognised(pipeline: Pipeline, prediction: Prediction, sample: Sample | None) -> dict[str, Any]:
    label = sample.label if sample else None
    known = label is not None and label in pipeline.classes
    return {
        "prediction": {
            "index": prediction.index,
            "name": prediction.name,
            "probability": prediction.probability,
            "top5": _top(pipeline.classes, prediction),
            "where": prediction.where,
        },
        "logits": None if prediction.logits is None else prediction.logits.tolist(),
        "label": label,
        "top1": float(prediction.name == label) if known else None,
    }


def _detected(pipeline: Pipeline, prediction: Prediction, sample: Sample | None) -> dict[str, Any]:
    from semcodec.tasks.detection import SHOWN

    assert prediction.boxes is not None
    shown = prediction.boxes.above(SHOWN)
    assert shown.scores is not None
    boxes = [
        {"name": name, "score": round(score, 4), "xyxy": _corners(box)}
        for name, score, box in zip(prediction.names, shown.scores.tolist(), shown.xyxy.tolist(), strict=False)
    ]
    label = None
    if sample and sample.label is not None and sample.classes:
        there = zip(sample.label.classes.tolist(), sample.label.xyxy.tolist(), strict=True)
        label = [{"name": sample.classes[index], "xyxy": _corners(box)} for index, box in there]
    return {
        "prediction": {"boxes": boxes, "where": prediction.where},
        "label": label,
        "source": list(prediction.source or ()),
    }


def _corners(box: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in box]


def _source_bytes(pipeline: Pipeline, found: Mapping[str, Any]) -> int:
    """The source as 8-bit pixels."""
    return 3 * math.prod(found["source"]) if "source" in found else pipeline.raw_uint8_bytes


def document(pipeline: Pipeline, records: Sequence[Mapping[str, Any]], file_bytes: int | None = None) -> dict[str, Any]:
    """What belongs to the whole stream, with its one record or the list of them. ``file_bytes``: if not all is here."""
    from semcodec.container.packets import write_header
    from semcodec.evaluation.evaluate import described

    header = len(write_header(pipeline.header))
    whole = {
        "spec": pipeline.spec,
        "task": pipeline.composition.task,
        "bytes_stream_header": header,
        "file_bytes": file_bytes or header + sum(r["bytes_total"] + r["bytes_local"] for r in records),
        "raw_float32_bytes": pipeline.raw_float32_bytes,
        "raw_uint8_bytes": round(sum(_source_bytes(pipeline, r) for r in records) / len(records)),
        "weights": described(pipeline),
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


def _top(classes: Sequence[str], prediction: Prediction) -> list[tuple[str, float]]:
    if prediction.logits is None:
        return [(prediction.name, prediction.probability)]
    import numpy as np

    scaled = np.exp((prediction.logits - prediction.logits.max()).astype(np.float64))
    best = np.argsort(-prediction.logits, kind="stable")[:TOP]
    return [(classes[i], float(scaled[i] / scaled.sum())) for i in best]


def _show_one(found: Mapping[str, Any]) -> None:
    fields: list[tuple[str, Any]] = [("input", found["input"])] if found["input"] else []
    if "boxes" in found["prediction"]:
        if boxes := found["prediction"]["boxes"]:
            headers = ("found", "score %", "left", "top", "right", "bottom")
            echo_table(headers, [(box["name"], 100 * box["score"], *box["xyxy"]) for box in boxes])
            click.echo()
        fields += [("found", counted(found))]
    else:
        fields += _recognised_fields(found)
    fields += [
        ("bytes", _bytes(found)),
        ("file", f"{found['file_bytes']:,} with the stream header of {found['bytes_stream_header']:,}"),
        ("ratio", _ratios(found)),
        *([("layers", "/".join(map(str, found["layers"])))] if found["layers"] != [1, 1] else []),
        ("ms", _times(found["stages_ms"])),
        ("weights", _weights(found)),
    ]
    echo_fields(fields)


def _recognised_fields(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    prediction = found["prediction"]
    verdict = f"  ({_verdict(found)})" if _verdict(found) else ""
    others = ", ".join(f"{name} {100 * p:.1f} %" for name, p in prediction["top5"][1:])
    recognised = f"{prediction['name']}  {100 * prediction['probability']:.1f} %{verdict}"
    return [("recognised", recognised), *([("then", others)] if others else [])]


def counted(record: Mapping[str, Any]) -> str:
    """What was found in an image and, where that is known, how much there is."""
    names = [box["name"] for box in record["prediction"]["boxes"]]
    told = ", ".join(f"{name} {names.count(name)}" for name in dict.fromkeys(names)) or "nothing"
    width, height = record["source"]
    there = "" if record["label"] is None else f"; {len(record['label'])} objects are there"
    return f"{told}, in {width} x {height} pixels{there}"


def _show_many(found: Mapping[str, Any]) -> None:
    records = found["records"]
    layered = any(r["layers"] != [1, 1] for r in records)
    rows = []
    for r in records:
        row: list[Any] = [r["input"] or f"record {r['sequence']}"]
        if "boxes" in r["prediction"]:
            row += [counted(r)]
        else:
            row += [r["prediction"]["name"], f"{100 * r['prediction']['probability']:.1f} %", _verdict(r) or None]
        row += [r[name] for name in ("bytes_total", "bytes_payload", "bytes_side", "bytes_header")]
        rows.append([*row, *(["/".join(map(str, r["layers"]))] if layered else [])])
    told = ["found"] if "boxes" in records[0]["prediction"] else ["recognised", "probability", ""]
    headers = ["input", *told, "bytes", "payload", "side", "header"]
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


def _verdict(record: Mapping[str, Any]) -> str:
    said = []
    if record["prediction"]["where"] == "device":
        said.append("by the device itself")
    if record["top1"] is not None:
        said.append("correct" if record["top1"] else f"wrong: it is {record['label']}")
    elif record["label"] is not None:
        said.append(f"it is {record['label']}, which the model does not know")
    return "; ".join(said)


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
