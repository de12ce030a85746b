"""What streams and records of before a default changed mean: what it was then."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from click.testing import CliRunner

import semcodec
from semcodec.bench.cells import cell_of
from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.composition.stored import compose_stored, restate
from semcodec.container.header import read_header
from semcodec.errors import SpecError
from semcodec.evaluation.keys import Known, changes
from semcodec.evaluation.records import restated

OLD = {"encoder/stae": 1}
RAW = "stae:coding=raw,frames=4,pixels=0.4,quality=75+rans+vit-nano"


@pytest.mark.parametrize(
    ("stored", "now"),
    [
        ("stae+rans+vit-nano", RAW),
        ("stae:frames=2+rans+vit-nano", RAW.replace("frames=4", "frames=2")),
        ("stae:coding=webp,frames=8,pixels=1.0,quality=30+rans+vit-nano",) * 2,
        ("png+vit-nano",) * 2,
        ("nobody-has-this:1+vit-nano",) * 2,
        ("cls-attn+rans+vit-nano-server",
         "cls-attn:patches=raw,quality=50,scores=mean+attention-sum+rans+vit-nano-server"),
        ("cls-attn:keep=9+top-k+rans+vit-nano-server",
         "cls-attn:keep=9,patches=raw,quality=50,scores=mean+top-k+rans+vit-nano-server"),
    ],
)  # fmt: skip
def test_a_spec_of_before_names_what_it_meant(stored, now):
    assert restate(stored, OLD).spec == restate(stored, {}).spec == now


def test_a_spec_of_today_means_today():
    composition = compose_spec("stae+rans+vit-nano")
    versions = {bound.key: bound.component.stream_version for bound in composition.coding}
    assert compose_stored(composition.spec, versions).spec == composition.spec
    assert compose_stored(composition.spec, OLD).call == {"frames": 4, "pixels": 0.4, "coding": "raw", "quality": 75}


def test_a_stream_of_before_decodes_as_it_was_written(one_thread):
    """A stream whose header says no more than the version that wrote it, as those of before parameters were there."""
    raw = semcodec.compose(RAW, offline=True)
    clip = np.zeros((16, 64, 64, 3), np.uint8)
    clip[:, 20:40, 10:30] = 200
    packet = raw.encode(clip)
    header = read_header(io.BytesIO(raw.stream([packet])))
    old = type(header)(
        spec="stae+rans+vit-nano", components={**header.components, **OLD}, weights=header.weights, input=header.input,
        params=header.params, package="of before",
    )  # fmt: skip
    server = semcodec.Server.load(old)
    assert server.composition.spec == raw.spec
    there = server.accept(old)
    from dataclasses import replace

    device = replace(raw.device, header=old)
    answer = there.decode(device.encode(clip).data)
    assert answer.index == raw.decode(packet).index
    assert there.composition.call["coding"] == "raw"


def record(spec: str, **more: object) -> dict:
    return {
        "record": 1, "key": "k", "spec": spec, "task": "video", "data": "digits-motion", "split": "test", "samples": 8,
        "data_digest": "d", "top1": 0.5, "top1_interval": [0.2, 0.8], "bytes_total": 100.0, "raw_uint8_bytes": 1000,
        "ratio_uint8": 10.0, "sent_ratio": 1.0, "stages_ms": {"encode": 1.0, "tail": 1.0},
        "knobs": {"frames": 4, "pixels": 0.4, "coding": "raw", "quality": 75}, "weights": {}, **more,
    }  # fmt: skip


def test_reports_show_records_of_before_as_they_would_be_written_today(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(record("stae+rans+vit-nano")) + "\n")
    run = CliRunner().invoke(main, ["report", str(path), "--format", "csv"])
    assert RAW in run.stdout


def test_a_record_of_before_is_of_what_it_meant_and_of_nothing_else():
    old = restated(record("stae+rans+vit-nano", formats={"container": 1, **OLD}))
    assert old["formats"] == {"container": 1, "encoder/stae": 2}
    assert restated(old) == old
    named = record("stae:coding=webp,frames=8,pixels=1.0,quality=30+rans+vit-nano", formats={"container": 1, **OLD})
    now = restated(named)
    assert (now["spec"], now["formats"]["encoder/stae"]) == ("stae:quality=30+rans+vit-nano", 2)


def test_measuring_goes_on_with_records_of_before(one_thread):
    from semcodec.data.datasets import open_dataset
    from semcodec.evaluation.evaluate import identity

    def this(spec: str):
        pipeline = semcodec.compose(spec, offline=True)
        return identity(pipeline, open_dataset("digits-motion", "test", pipeline.request), 8)

    raw = this(RAW)
    weights = {slot: dict(source) for slot, source in raw.weights.items()}
    before = record("stae+rans+vit-nano", content=raw.content, formats={"container": raw.formats["container"], **OLD},
                    weights=weights, key="of before")  # fmt: skip
    known = Known([before])
    assert known.has(raw)
    assert not known.has(this("stae+rans+vit-nano"))
    assert changes(restated(before), raw) == []


def test_cells_of_specs_that_mean_something_else_now_are_others():
    spec = "stae+rans+vit-nano"
    today, named = (cell_of(compose_spec(s), "d", "test", 1, 0).digest for s in (spec, RAW))
    import hashlib

    before = [hashlib.sha256("\n".join([s, "d", "test", "1", "0"]).encode()).hexdigest()[:16] for s in (spec, RAW)]
    assert today != before[0]
    assert named == before[1]


def test_a_spec_of_thousands_of_components_is_refused_at_once():
    with pytest.raises(SpecError, match="at most 64 components"):
        restate("+".join(["a"] * 30_000), {})
