"""A packet of each task is answered for ever as it was: side information, and what the model that ships says of it.

A file that is missing fails. To add one (never to change one) run ``SEMCODEC_UPDATE_GOLDEN=1 pytest`` on this module.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semcodec.composition.composition import compose_spec
from semcodec.container.packets import read_stream
from semcodec.data.datasets import open_dataset
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.server import Server
from semcodec.pipeline.weights import WeightsRequest
from semcodec.specs import InputRequest
from semcodec.tasks.table import get_task

ROOT = Path(__file__).parent / "golden"
SPECS = {
    "classification": "jpeg+vit-nano-server",
    "detection": "jpeg+det-nano",
    "segmentation": "jpeg+seg-nano",
    "retrieval": "jpeg+embed-nano",
    "reconstruction": "jpeg+draw-nano",
}
WIDE, HIGH = 144, 96
SCENES = (3, 8)


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    """The same sums as where they were written."""


def pictures():
    """Scenes in the middle of wider pictures, so that a source has another size than the input."""
    scenes, _ = open_dataset("digits-scenes", "test", InputRequest(None, HIGH, HIGH)).batch(SCENES)
    for scene in scenes:
        wide = np.full((HIGH, WIDE, 3), 128, np.uint8)
        wide[:, (WIDE - HIGH) // 2 : (WIDE + HIGH) // 2] = scene
        yield Image.fromarray(wide)


def told(stream):
    header, found = read_stream(stream)
    records = list(found)
    server = Server.load(header, WeightsRequest(offline=True))
    task = get_task(server.composition.task)
    answers = server.decode_batch(records)
    found = [task.describe(p, server.classes, None, None)["prediction"] for p in answers]
    for one, answer in zip(found, answers, strict=True):
        if answer.picture is not None:  # of which no more than the size is told
            one["rows"] = answer.picture.mean((1, 2)).tolist()
    chunks = [[[row.name, row.side_bytes > 0] for row in rows(server, record)] for record in records]
    return {"spec": header.spec, "chunks": chunks, "predictions": found}


def rows(server, record):
    source = server.source(record)
    server.read(source)
    source.finish()
    return source.rows


def write(name):
    pipeline = Pipeline.load(compose_spec(SPECS[name]), WeightsRequest(offline=True))
    stream = pipeline.stream([pipeline.encode(picture) for picture in pictures()])
    ROOT.mkdir(exist_ok=True)
    (ROOT / f"{name}.sem").write_bytes(stream)
    (ROOT / f"{name}.json").write_text(json.dumps(told(stream), indent=1) + "\n")


def close(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            close(found[name], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, value in zip(found, expected, strict=True):
            close(one, value)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=2e-3, rel=2e-3)
    else:
        assert found == expected


@pytest.mark.parametrize("name", SPECS)
def test_packets_are_answered_as_they_were(name):
    if os.environ.get("SEMCODEC_UPDATE_GOLDEN") == "1" and not (ROOT / f"{name}.sem").exists():
        write(name)
    stream, expected = (ROOT / f"{name}.sem").read_bytes(), json.loads((ROOT / f"{name}.json").read_text())
    close(json.loads(json.dumps(told(stream))), expected)
    placed = name in ("detection", "segmentation", "reconstruction")
    assert (["source", True] in expected["chunks"][0]) == placed
