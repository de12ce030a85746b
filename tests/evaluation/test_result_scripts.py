"""Each script under docs/results goes on where it stopped: with its own records there is nothing left to measure."""

from __future__ import annotations

import importlib
import itertools
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
from real_data import DEIT, folder, weights

from semcodec.composition.composition import compose_spec
from semcodec.evaluation import evaluate
from semcodec.evaluation.keys import Identity
from semcodec.evaluation.records import restated
from semcodec.pipeline.weights import WeightsRequest

RESULTS = Path(__file__).parents[2] / "docs" / "results"
OFFLINE = WeightsRequest(offline=True)


@pytest.fixture
def script(monkeypatch, tmp_path):
    """A script by name; whatever it would measure or train fails the test."""
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(RESULTS))

    def left(pipeline, dataset, **_):
        pytest.fail(f"{pipeline.spec} is left to be measured on {dataset.name}")

    monkeypatch.setattr(evaluate, "evaluate", left)

    def load(name: str) -> ModuleType:
        module = importlib.import_module(name)
        for attribute in ("evaluate", "train"):
            if hasattr(module, attribute) and name != "detection_coco":
                monkeypatch.setattr(module, attribute, left)
        return module

    return load


@pytest.fixture
def trained(monkeypatch):
    """Has a script believe that the weights it names are those of its records: they are too large to be kept here."""

    def believe(module: ModuleType, *paths: Path, unmeasured: Sequence[str] = ()) -> list[str]:
        rows = [restated(json.loads(line)) for path in paths for line in path.read_text().splitlines()]
        found: list[str] = []

        def decide(composition, grid, request, data, *, known, limit=None, **_):
            for values in itertools.product(*grid.values()):
                point = composition
                for name, value in zip(grid, values, strict=True):
                    item, _, parameter = name.rpartition(".")
                    point = point.with_args(item, **{parameter: value})
                named = {Path(path).name for path in request.given.values()}
                for row in rows:
                    sources = {Path(weights["source"]).name for weights in row["weights"].values()}
                    same = row["spec"] == point.spec and row["data"] == Path(data).name
                    if same and named <= sources and row["samples"] == (limit or row["samples"]):
                        break
                else:
                    assert point.spec in unmeasured, f"{point.spec} with {named} on {data} has no record"
                    continue
                this = Identity(
                    spec=point.spec, knobs=dict(point.call), data=data, split=row.get("split", "test"),
                    samples=limit or row["samples"],
                    content=row.get("content", "of today"), classes=None, weights=row["weights"],
                    formats={"container": 1, **row.get("formats", {})},
                    pixels=lambda row=row: row["data_digest"],
                )  # fmt: skip
                assert known.has(this), point.spec
                found.append(point.spec)
            return iter(())

        monkeypatch.setattr(module, "run_sweep", decide)
        return found

    return believe


def test_cls_attn_on_digits(script):
    page = script("cls_attn")
    # Every fifth point: to choose among 20 models takes longer than to know that nothing is left.
    page.measure(list(page.digits())[::5], RESULTS / "cls_attn_digits.jsonl", "digits-scenes", OFFLINE, 50)


@pytest.mark.filterwarnings("ignore::semcodec.data.notes.DataNote")
def test_cls_attn_on_photographs(script):
    page, data = script("cls_attn"), folder("nips2017")
    request = WeightsRequest({"backbone": weights(DEIT)}, offline=True)
    page.measure(list(page.nips()), RESULTS / "cls_attn_nips.jsonl", data, request, 25)


def test_stae_on_digits(script):
    script("stae_digits").measure(RESULTS / "stae_digits.jsonl", None)


def test_stae_on_natural_clips(script, trained):
    page = script("stae_natural")
    found = trained(page, page.RECORDS)
    page.measure("data/activities", "runs/activities-vit2", "runs/activities2")
    page.measure("data/fights", "runs/fights-vit3", "runs/fights3")
    assert len(found) == 46


def test_deepisc(script, trained):
    page = script("deepisc_video")
    page.measure("digits-motion", None, None)
    found = trained(page, page.RECORDS, *page.BEFORE.values())
    page.measure("data/activities", "runs/activities-vit2", "runs/final-activities")
    assert len(found) >= 36


def test_cnn_on_digits(script, trained):
    page = script("cnn_digits")
    for name, spec in page.PLAIN.items():
        page.keep(name, spec, OFFLINE, 1000)
    found = trained(page, page.RECORDS)
    for name, spec in page.CODECS.items():
        out = name.lower().replace("+", "p").replace(", ", "-")
        page.keep(name, spec, WeightsRequest({"": f"runs/{out}"}, offline=True), 1000)
    assert len(found) == len(page.CODECS)


def test_aecnn_on_caltech(script, trained, tmp_path, monkeypatch):
    page, rest = script("aecnn_caltech"), "+rans+resnet50-caffe:128"
    never = ("bottlenetpp:16,bits=3", "aecnn:16+none", "aecnn:16,bits=3+none", "aecnn:16,bits=2+none",
             "aecnn:16,bits=2", "aecnn:bits=1", "aecnn:4,bits=1")  # fmt: skip
    found = trained(page, page.RECORDS, unmeasured=[item + rest for item in never])
    monkeypatch.setattr(page, "train", lambda *a, **k: None)
    monkeypatch.setattr(page, "tell", lambda: None)
    usual = {"data": "data/caltech101", "base": Path("runs/caffe128"), "runs": tmp_path, "side": 128, "cuts": ["stem"],
             "ratios": [4, 16, 64], "methods": list(page.METHODS), "longer": [], "rows": False, "scale": 1.0,
             "limit": None}  # fmt: skip
    page.measure(Namespace(**usual))
    assert len(found) == 20
    later = {**usual, "base": Path("runs/base"), "rows": True}
    page.measure(Namespace(**{**later, "ratios": [8, 32], "longer": [("AECNN", 64, 3)]}))
    page.measure(Namespace(**{**later, "ratios": [8, 32], "methods": ["AECNN"], "cuts": ["layer1.0"]}))
    page.measure(Namespace(**{**later, "ratios": [2], "methods": ["AECNN"]}))
    assert len(found) == 20 + (1 + 6 + 1) + (1 + 2) + (1 + 1)


def test_photographs(script, trained):
    page, shared = script("photographs"), script("pages")
    found = trained(shared, page.RECORDS)
    page.measure("data/nips2017", "deit_tiny_patch16_224.fp16.safetensors", page.ZOO)
    rivals = sum(len(next(iter(grid.values()))) for _, grid in page.RIVALS.values())
    assert len(found) == 4 + 5 + 5 + 1 + rivals + 2 * len(page.COMPARED["avif.quality"])


def test_the_flagships_tables_are_told_from_its_records(script):
    page = script("flagship")
    shown = page.PAGE.read_text().splitlines()
    for name, part in page.parts().items():
        found = page.kept(name)
        if any(found.values()):
            assert [line for line in page.lines(part, found) if line not in shown] == [], name


def test_task_aware(script, trained):
    page = script("task_aware")
    alone, learned = ([c for c in page.curves() if (c.run is None) is plain] for plain in (True, False))
    for curve in alone:
        page.measure(Path("runs"), curve)
    found = trained(page, page.RECORDS)
    for curve in learned:
        page.measure(Path("runs"), curve)
    assert len(found) >= 30


def test_detection(script, trained, tmp_path):
    page = script("detection_coco")
    rows = {json.loads(line)["name"] for line in page.RECORDS.read_text().splitlines()}
    for run, *_ in page.trained():
        if run in rows:
            (tmp_path / run).mkdir()
            (tmp_path / run / "weights.safetensors").touch()
    found = trained(page, page.RECORDS)
    page.evaluate(tmp_path, Path("data/coco128"), "yolov5n_coco80.fp16.safetensors")
    assert len(found) == 98


def test_detection_with_the_detector_as_published(script, tmp_path):
    coco = folder("coco128")
    script("detection_coco").evaluate(tmp_path, Path(coco), weights("yolov5n_coco80.fp16.safetensors"))


@pytest.mark.filterwarnings("ignore::semcodec.data.notes.DataNote")
def test_still_images(script, tmp_path):
    """What needs no training; of the other points there are the records that the specs are of."""
    page, nips = script("still_images"), folder("nips2017")
    deit = weights(DEIT)
    page.measure(page.Inputs(nips, "caltech101", deit, "nowhere", tmp_path), [page.nips, page.nips_others], {}, set())


def test_still_images_has_every_point(script):
    """The learned codecs' and the networks' weights are not kept here: specs and data alone are compared."""
    page = script("still_images")
    inputs = page.Inputs("nips2017", "caltech101", "deit", "caffe", Path("runs"))
    there = {(row["data"], restated(row)["spec"]) for row in page.own()}
    for points in (page.nips, page.nips_others, page.caltech, page.caltech_others, page.deit_caltech):
        data = "nips2017" if points.__name__.startswith("nips") else "caltech101"
        for point in points(inputs):
            assert {(data, c.spec) for c in point.compositions()} <= there


def test_specs_are_canonical():
    """Records are found by their specs, so these have to be read as what they were."""
    for path in RESULTS.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        records = [row for row in rows if "spec" in row]  # others tell of links
        for spec, formats in {(row["spec"], json.dumps(row.get("formats", {}))) for row in records}:
            now = restated({"spec": spec, "formats": json.loads(formats)})["spec"]
            assert compose_spec(now).spec == now, path
            assert now == spec or any(name in spec for name in ("stae", "cls-attn")), path
