"""``semcodec bench``: what is enumerated, that sharing work changes no record, and what stops a run or damages it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from semcodec.bench import matrix, reuse, sweeps
from semcodec.bench.cells import Cell, Queue, cell_of, ordered, shard
from semcodec.bench.matrix import Choice
from semcodec.bench.memory import Memory, SharedDataset
from semcodec.bench.progress import Remaining
from semcodec.bench.reuse import share
from semcodec.bench.runner import Done, Local, run
from semcodec.bench.training import to_train
from semcodec.bench.worker import Settings, Worker
from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.data.datasets import open_dataset
from semcodec.errors import DataError, UsageError
from semcodec.evaluation import records
from semcodec.evaluation.evaluate import evaluate
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest

OFFLINE = WeightsRequest(offline=True)
SHARING = (
    *(f"cls-attn:keep=20+min-entropy:0.4+{e}+vit-nano-server" for e in ("rans", "huffman")),
    "cls-attn:keep=40+min-entropy:0.4+rans+vit-nano-server",
    *(f"a-mot:first=9,keep=20,side=8+{r}+{e}+vit-nano-server"
      for r, e in product(("mean-fill", "smooth-fill"), ("rans", "zstd"))),
    "sdt:sure=0.01+zstd+vit-nano-server",
    "sdt:sure=0.01+pack+vit-nano-server",
    *(f"{e}+tensor8+vit-nano-server@block2" for e in ("rans", "range")),
    "jpeg+vit-nano-server",
)  # fmt: skip


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cells(*specs: str, data: str = "digits-scenes", limit: int = 6) -> list[Cell]:
    return ordered(cell_of(compose_spec(spec), data, "test", limit, 0) for spec in specs)


def timeless(record: dict) -> dict:
    """A record without what differs from run to run."""
    return {key: value for key, value in record.items() if key not in ("stages_ms", "cell", "seed")}


def one_by_one(cell: Cell, settings: Settings) -> dict:
    composition = compose_spec(cell.spec)
    pipeline = Pipeline.load(composition, OFFLINE, classes=open_dataset(settings.data).classes)
    dataset = open_dataset(settings.data, settings.split, pipeline.request)
    return evaluate(pipeline, dataset, limit=settings.limit, batch=settings.batch)


def enumerated(data: str = "digits-scenes", sweep: dict | None = None, **choice) -> matrix.Matrix:
    return matrix.enumerate_all(data, "test", Choice(**choice), sweep or {}, OFFLINE)


def refused(*arguments: object) -> str:
    """The one line that a command that fails says."""
    result = CliRunner().invoke(main, ["bench", *map(str, arguments)])
    assert result.exit_code in (1, 2), result.output
    assert "Traceback" not in result.output
    return result.stderr


# -- sharing ---------------------------------------------------------------------------------------------------------


def sharing_cells() -> list[Cell]:
    cuts = list(compose_spec("tensor8+rans+vit-nano-server").source.cuts)
    return cells(*(spec.replace("block2", cuts[min(2, len(cuts) - 1)]) for spec in SHARING))


@pytest.mark.parametrize("shared", [1 << 30, 0, 400_000], ids=["all kept", "nothing kept", "some kept"])
def test_records_are_those_of_cells_one_by_one(shared):
    settings = Settings("digits-scenes", limit=6, batch=4, offline=True, shared=shared)
    worker = Worker(settings)
    for cell in sharing_cells():
        found = worker.measure(cell)
        assert timeless(found) == timeless(one_by_one(cell, settings))
        assert found["cell"] == cell.digest


def test_stae_shares_its_scores_and_encodings(monkeypatch):
    points = product((2, 4), (0.6, 0.4), ("rans", "zstd"))
    specs = [f"stae:coding=raw,frames={f},pixels={p}+{e}+vit-nano" for f, p, e in points]
    settings = Settings("digits-motion", limit=3, batch=2, offline=True)
    worker, done = Worker(settings), []
    names = ("scores", "encode", "write", "read", "restore")
    stae = compose_spec(specs[0]).registry.load(compose_spec(specs[0]).encoder.component)
    for name in names:
        method = getattr(stae, name)

        def counted(self, *args, name=name, method=method):
            done.append((name, args[1] if name == "scores" else None))
            return method(self, *args)

        monkeypatch.setattr(stae, name, counted)
    found = {cell.digest: worker.measure(cell) for cell in cells(*specs, data="digits-motion", limit=3)}
    calls = {name: sum(call == name for call, _ in done) for name in names}
    # Points times batches, not cells; and once more a cell, where what both ends compute is counted.
    assert calls["encode"] == 4 * 2 + len(specs)
    assert calls["write"] == calls["read"] == calls["restore"] == 4 * 3 + len(specs)
    assert sum(target == "pixels" for _, target in done) == 2 * 2 + len(specs)
    monkeypatch.undo()
    for cell in cells(*specs, data="digits-motion", limit=3)[:3]:
        assert timeless(found[cell.digest]) == timeless(one_by_one(cell, settings))
        assert list(found[cell.digest]["stages_ms"]) == list(one_by_one(cell, settings)["stages_ms"])


def test_an_answer_is_only_taken_over_for_equal_symbols(monkeypatch):
    """A stage that loses something must be found out, not covered by what another stage's symbols gave."""
    pair = [compose_spec(f"tensor8+{stage}+vit-nano-server") for stage in ("rans", "zstd")]
    loaded = Pipeline.load(pair[0], OFFLINE)
    dataset = open_dataset("digits-scenes", "test", loaded.request)
    pixels, _ = dataset.batch(range(2))
    memory = Memory(1 << 30)
    first = share(loaded, memory, dataset)
    right = first.decode_batch(first.records(first.encode_batch(pixels, [0, 1])))
    lossy = type(loaded.replace(composition=pair[1]).stages.entropy)
    decode = lossy.decode
    monkeypatch.setattr(lossy, "decode", lambda self, data, prior, count: decode(self, data, prior, count)[::-1].copy())
    second = share(loaded.replace(composition=pair[1]), memory, dataset)
    plain = loaded.replace(composition=pair[1])
    wrong = second.decode_batch(second.records(second.encode_batch(pixels, [0, 1])))
    truth = plain.decode_batch(plain.records(plain.encode_batch(pixels, [0, 1])))
    for w, t, r in zip(wrong, truth, right, strict=True):
        np.testing.assert_array_equal(w.logits, t.logits)
        assert not np.array_equal(w.logits, r.logits)


def test_memory_stays_within_its_bound():
    memory = Memory(1 << 20)
    pipeline = Pipeline.load(compose_spec("png+vit-nano-server"), OFFLINE)
    dataset = SharedDataset(open_dataset("digits-scenes", "test", pipeline.request), memory)
    evaluate(share(pipeline, memory, dataset), dataset, limit=40, batch=4)
    assert 0 < memory.pixels.used <= 1 << 18
    assert memory.points.used <= 1 << 19


# -- the matrix ------------------------------------------------------------------------------------------------------


def test_the_matrix_has_every_encoder_that_runs_on_the_data_with_every_stage():
    found = enumerated(backbone=("vit-nano-server",))
    encoders = {c.encoder.name for c in found.cells.values()}
    assert {"cls-attn", "sdt", "mot", "a-mot", "patches", "isr", "jpeg", "webp", "avif", "png", "tensor8"} <= encoders
    assert {c.entropy.name for c in found.cells.values() if c.encoder.name == "sdt"} == set(
        compose_spec("png+vit-nano-server").registry.names("entropy")
    )
    assert sum(c.encoder.name == "png" for c in found.cells.values()) == 1
    reasons = {skip.spec: skip.reason for skip in found.skips}
    assert "made for video" in reasons["stae+vit-nano-server"]
    everything = enumerated()
    assert "does video" in {s.spec: s.reason for s in everything.skips}["vit-base"]
    assert "no weights of deit-tiny" in {s.spec: s.reason for s in everything.skips}["png+deit-tiny"]
    assert not any(c.backbone.name.startswith("timm/") for c in everything.cells.values())


def test_random_weights_and_named_families_widen_the_matrix():
    weights = WeightsRequest.parse(["random"], offline=True)
    found = matrix.enumerate_all("digits-scenes", "test", Choice(encoder=("png",)), {}, weights)
    assert {"deit-tiny", "vit-nano-edge"} <= {c.backbone.name for c in found.cells.values()}
    choice = Choice(encoder=("png",), backbone=("timm/resnet18",))
    named = matrix.enumerate_all("digits-scenes", "test", choice, {}, weights)
    assert list(named.cells) == ["png+timm/resnet18"]


def test_selectors_recoverers_and_knobs():
    base = {"encoder": ("cls-attn",), "backbone": ("vit-nano-server",), "entropy": ("rans",)}
    assert list(enumerated(**base, selector=("random", "margin")).cells) == [
        "cls-attn+random@keep+margin+rans+vit-nano-server"
    ]
    swept = enumerated(**base, knobs="usual")
    assert {c.keep["keep"][0].params["threshold"] for c in swept.cells.values()} == {0.99, 0.97, 0.95, 0.9, 0.8}
    assert len(swept.cells) == 5
    everything = enumerated(**base, everything=True)
    gates = {c.gate.name for c in everything.cells.values() if c.gate}
    assert {"min-entropy", "shannon-entropy", "margin", "always", "never"} <= gates
    assert {c.recoverer.name for c in everything.cells.values()} >= {"none", "mean-fill", "smooth-fill"} - {"none"}
    stae = enumerated("digits-motion", encoder=("stae",), backbone=("vit-nano",), entropy=("rans",), knobs="usual")
    assert len(stae.cells) == 35
    jpeg = enumerated(encoder=("jpeg",), backbone=("vit-nano-server",), knobs="usual")
    assert {c.call["quality"] for c in jpeg.cells.values()} == {10, 25, 40, 60, 75, 90}


def test_a_seed_reaches_what_draws():
    [spec] = [c.spec for c in matrix.given([("mot+mean-fill+vit-nano-server", {})], {}).with_seed(3)]
    assert "seed=3" in spec
    own = matrix.given([("mot+random:seed=1+mean-fill+vit-nano-server", {})], {})
    assert "seed=1" in own.with_seed(3)[0].spec


def test_cells_from_a_file(tmp_path):
    file = tmp_path / "cells.toml"
    file.write_text(
        '[[cell]]\nspec = "stae+rans+vit-nano"\nsweep = {stae.frames = [1, 2], "stae.pixels" = [0.5]}\n'
        '[[cell]]\nspec = "h264+vit-nano"\n'
    )
    found = matrix.given(sweeps.read_cells(file), {})
    assert list(found.cells) == [
        "stae:frames=1,pixels=0.5+rans+vit-nano", "stae:frames=2,pixels=0.5+rans+vit-nano", "h264+vit-nano",
    ]  # fmt: skip


def test_what_cells_need_trained_is_one_run_for_each_set_of_weights():
    found = to_train(
        [
            ("feature-hyperprior+rans+det-nano@d3", {"feature-hyperprior.channels": [8, 24]}),
            ("feature-hyperprior:channels=8+huffman+det-nano@d3", {}),
            ("layered+det-nano@d4", {"layered.layers": [1, 2], "layered.lambda": [2.0]}),
            ("jpeg+det-nano", {"jpeg.quality": [5, 20]}),
        ]
    )
    assert found == {
        "feature-hyperprior-channels=8-rans-det-nano@d3": "feature-hyperprior:channels=8+rans+det-nano@d3",
        "feature-hyperprior-channels=24-rans-det-nano@d3": "feature-hyperprior:channels=24+rans+det-nano@d3",
        "layered-lambda=2.0-rans-det-nano@d4": "layered:lambda=2.0+rans+det-nano@d4",
    }
    with pytest.raises(UsageError, match="set in"):
        to_train([("layered:lambda=2.0+det-nano@d4", {"layered.lambda": [1.0]})])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cell = 3", "[[cell]]"),
        ("[[cell]]\nspecs = 'a'", "cell 1"),
        ("[[cell]]\nspec = 'png+vit-nano'\nsweep = {frames = [1]}", "item.key"),
        ("[[cell]]\nspec = 'png+vit-nano'\nsweep = {png.frames = []}", "png.frames"),
        ("[[cell", "no readable TOML"),
    ],
)
def test_a_wrong_file_of_cells(tmp_path, text, said):
    file = tmp_path / "cells.toml"
    file.write_text(text)
    with pytest.raises(DataError, match=said.replace("[", r"\[")):
        sweeps.read_cells(file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stae:frames=4+rans+vit-nano", "--sweep", "stae.frames=1,2"], "set in"),
        (["jpeg+vit-nano", "--sweep", "stae.frames=1,2"], "no cell has a component 'stae'"),
        (["stae+rans+vit-nano", "--sweep", "stae.frames=40"], "frames of stae"),
        (["jpeg+vit-nano", "--encoder", "jpeg"], "--encoder is for the matrix"),
        (["--task", "classification"], "is of kind video"),
        (["--encoder", "jepg"], "did you mean jpeg"),
        (["--encoder", "cls-attn"], "nothing to run"),
        (["jpeg+vit-nano", "--shard", "3/2"], "--shard 3/2"),
        (["jpeg+vit-nano", "--shard", "2/2"], "nothing is left"),
        (["--knobs", "all", "--max-cells", "10"], "more than 10"),
        (["jpeg+vit-nano", "--retry"], "--resume"),
        (["jpeg+vit-nano", "--address", "here"], "--executor ray"),
    ],
)
def test_wrong_requests_are_one_line_and_leave_nothing(arguments, said, tmp_path):
    message = refused("--data", "digits-motion", "--out", "results", "--offline", *arguments)
    assert said in message
    assert message.splitlines()[0].startswith("error: ")
    assert not (tmp_path / "results").exists()


def test_a_dry_run_shows_the_plan_and_imports_no_torch():
    code = "import sys; from semcodec.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "print({'torch', 'timm', 'torchvision', 'sklearn'} & set(sys.modules), file=sys.stderr)"
    arguments = ["bench", "--data", "digits-scenes", "--dry-run", "--explain-skips", "--encoder", "sdt"]
    arguments += ["--encoder", "stae"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"
    assert "sdt+rans+vit-nano-server" in done.stdout
    assert "stae is made for video" in done.stdout
    assert f"cells     {done.stdout.split('cells')[0].strip().count(chr(10)) + 1}" in done.stdout


# -- order -----------------------------------------------------------------------------------------------------------


def plan() -> list[Cell]:
    return cells(
        *(f"{e}:{q}+{b}" for e, q, b in product(("jpeg", "webp"), (10, 50), ("vit-nano-edge", "vit-nano-server"))),
        *(f"sdt:keep={k}+{e}+vit-nano-server" for k, e in product((9, 25), ("rans", "zstd", "pack"))),
    )


def test_cells_that_share_are_neighbours_and_shards_share_out_all():
    found = plan()
    points = [(c.family, c.point) for c in found]
    assert all(points[i] == points[i + 1] or points[i] not in points[i + 1 :] for i in range(len(points) - 1))
    parts = [shard(found, f"{i}/3") for i in (1, 2, 3)]
    assert sorted(c.digest for part in parts for c in part) == sorted(c.digest for c in found)
    homes = {(c.family, c.point): i for i, part in enumerate(parts) for c in part}
    assert all(homes[c.family, c.point] == i for i, part in enumerate(parts) for c in part)


@pytest.mark.parametrize("workers", [1, 2, 5, 40])
def test_a_queue_hands_out_each_cell_once_and_keeps_points_together(workers):
    found = plan()
    queue, given, hands = Queue(found), [], {}
    idle = list(range(workers))
    while idle:
        worker = idle.pop(0)
        cell = queue.take(worker)
        if cell is not None:
            given.append(cell)
            hands.setdefault((cell.family, cell.point), set()).add(worker)
            idle.append(worker)
    assert sorted(c.digest for c in given) == sorted(c.digest for c in found)
    assert all(len(who) == 1 for who in hands.values())


def test_time_left_is_told_once_it_is_known():
    found = cells(*(f"sdt:keep={k}+{e}+vit-nano-server" for k, e in product((9, 25), ("rans", "zstd"))))
    left = Remaining(found, 1)
    left.done(Done(0, found[0], {}, 10.0))
    assert left.seconds() is None  # nothing is known of cells that share
    left.done(Done(0, found[1], {}, 2.0))
    assert left.seconds() == 12.0


# -- the folder ------------------------------------------------------------------------------------------------------

HEADER = {"data": "d", "split": "test", "limit": 8, "seed": 0, "batch": 32, "weights": []}


def line(cell: str, **more: object) -> dict:
    return {"record": 1, "cell": cell, "spec": cell, **more}


def test_half_a_record_is_passed_over_and_cut_off(tmp_path):
    with records.Folder(tmp_path / "r", HEADER) as folder:
        folder.append(line("a"))
        folder.append(line("b"))
    file = tmp_path / "r" / records.RECORDS
    whole = file.read_bytes()
    for half in (b'{"record": 1, "ce', b'{"cell": "c"}', b"\x00\x00\x00", b"garbage\n"):
        file.write_bytes(whole + half)
        notes: list[str] = []
        assert [r["cell"] for r in records.read(tmp_path / "r", notes)] == ["a", "b"]
        assert "half a record" in notes[0]
        with pytest.warns(UserWarning, match="half a record"):
            records.read(tmp_path / "r")
        with records.Folder(tmp_path / "r", HEADER, resume=True, notes=notes) as folder:
            assert set(folder.known) == {"a", "b"}
        assert file.read_bytes() == whole
    file.write_bytes(b"garbage\n" + whole)
    with pytest.raises(DataError, match="line 1"):
        records.read(tmp_path / "r")


def test_a_cell_that_ran_again_counts_once(tmp_path):
    with records.Folder(tmp_path / "r", HEADER) as folder:
        folder.append(line("a", failed="why"))
        folder.append(line("a", top1=1.0))
    assert records.read(tmp_path / "r") == [line("a", top1=1.0)]


def test_folders_that_cannot_be_gone_on_with(tmp_path):
    with records.Folder(tmp_path / "r", HEADER) as folder:
        folder.append(line("a"))
        with pytest.raises(UsageError, match="another run"):
            records.Folder(tmp_path / "r", HEADER, resume=True)
    with pytest.raises(UsageError, match="holds 1 records; add --resume"):
        records.Folder(tmp_path / "r", HEADER)
    with pytest.raises(UsageError, match="limit 8, not limit 9"):
        records.Folder(tmp_path / "r", {**HEADER, "limit": 9}, resume=True)
    path = tmp_path / "r" / records.PLAN
    path.write_text(json.dumps({**HEADER, "bench": 7}))
    for act in (lambda: records.read(tmp_path / "r"), lambda: records.Folder(tmp_path / "r", HEADER, resume=True)):
        with pytest.raises(DataError, match="form 7, this version reads form 1"):
            act()
    path.write_text("no json")
    with pytest.raises(DataError, match="cannot be read"):
        records.read(tmp_path / "r")
    path.unlink()
    with pytest.raises(DataError, match=r"without plan\.json"):
        records.Folder(tmp_path / "r", HEADER, resume=True)
    with pytest.raises(DataError, match="no results folder"):
        records.read(tmp_path)
    assert (tmp_path / "r" / records.RECORDS).read_text() == json.dumps(line("a")) + "\n"


def test_no_space_left_keeps_what_was_measured(tmp_path):
    """A limit on the size of files stops a write in its middle, as a full disk does."""
    code = """
import resource, signal, sys
from pathlib import Path
from semcodec.evaluation.records import Folder
from semcodec.errors import DataError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Folder(Path("r"), {"data": "d"}) as folder:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    folder.append({"cell": "a"})
    try:
        folder.append({"cell": "b", "spec": "x" * 200})
    except DataError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the 1 records before are kept" in done.stdout
    assert "--resume" in done.stdout
    assert [r["cell"] for r in records.read(tmp_path / "r")] == ["a"]
    assert (tmp_path / "r" / records.RECORDS).read_text() == '{"cell": "a"}\n'


# -- workers ---------------------------------------------------------------------------------------------------------

NAUGHTY = """
import os, signal, time
from semcodec.component import Component, Param
from semcodec.hookspecs import hookimpl
from semcodec.interfaces import Encoder
from semcodec.specs import EncoderSpec

def spec(features, params):
    return EncoderSpec({}, features)

class Naughty(Encoder):
    def __init__(self, features, **params): ...
    def encode(self, features, analysis, masks, params):
        if params["does"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if params["does"] == "hang":
            time.sleep(600)
        if params["does"] == "grow":
            held = []
            while True:
                held.append(b"x" * (1 << 26))
                time.sleep(0.02)
        raise ValueError("boom\\nand more")
    def write(self, latent, sink): ...
    def read(self, source): ...
    def restore(self, latent): ...

@hookimpl
def semcodec_components():
    yield Component("encoder", "naughty", "naughty_codec:Naughty", "fails", "naughty_codec:spec",
                    (Param("does", str, "raise", "what"),), positional="does", traits={"entropy": "none"})
"""


@pytest.fixture
def naughty(tmp_path, monkeypatch):
    """A plugin whose encoder dies, hangs, grows or raises, installed for worker processes."""
    site = tmp_path / "site"
    (site / "naughty_codec-1.0.dist-info").mkdir(parents=True)
    (site / "naughty_codec.py").write_text(NAUGHTY)
    info = site / "naughty_codec-1.0.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: naughty-codec\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[semcodec]\nnaughty = naughty_codec\n")
    monkeypatch.syspath_prepend(str(site))


def test_cells_that_die_hang_grow_or_raise_are_records_with_the_reason(naughty):
    specs = ["png+vit-nano-server", "naughty+vit-nano-server", "png+no-such-backbone"]
    specs += ["naughty:die+vit-nano-server", "naughty:grow+vit-nano-server", "naughty:hang+vit-nano-server"]
    todo = [Cell(spec, f"{i}", "one", spec) for i, spec in enumerate(specs)]
    settings = Settings("digits-scenes", limit=2, offline=True, memory=3 << 30)
    done = [*run(todo[:-1], Local(settings), 1), *run(todo[-1:], Local(settings, timeout=2), 1)]
    found = [one.record for one in done]
    assert [one.cell.spec for one in done] == specs
    assert found[0]["samples"] == 2
    reasons = [record.get("failed", "") for record in found]
    assert reasons[1] == "ValueError: boom"
    assert "no-such-backbone" in reasons[2]
    assert "signal 9" in reasons[3]
    assert "more than 3 GB" in reasons[4]
    assert "not done after 2 s" in reasons[5]
    assert found[3] == {"record": 1, "cell": "3", "seed": 0, "spec": specs[3], "data": "digits-scenes",
                        "failed": reasons[3]}  # fmt: skip


def bench(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "semcodec", "bench", "--data", "digits-scenes", "--offline", *map(str, arguments)]


@pytest.mark.slow
def test_killed_in_the_middle_and_gone_on_with_the_records_are_those_of_an_undisturbed_run(tmp_path):
    what = ["--encoder", "sdt", "--encoder", "jpeg", "--encoder", "webp", "--backbone", "vit-nano-server",
            "--limit", 4, "--knobs"]  # fmt: skip
    file = tmp_path / "killed" / records.RECORDS
    process = subprocess.Popen(bench(*what, "--out", "killed"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while time.monotonic() < end and (not file.exists() or file.read_bytes().count(b"\n") < 5):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = records.read(tmp_path / "killed", [])
    assert len(before) >= 5
    subprocess.run(bench(*what, "--out", "killed", "--resume"), check=True, capture_output=True)
    done = subprocess.run(
        bench(*what, "--out", "whole", "-j", 2, "--format", "json"), check=True, capture_output=True, text=True
    )
    killed, whole = (
        {r["cell"]: {k: v for k, v in r.items() if k != "stages_ms"} for r in records.read(tmp_path / name)}
        for name in ("killed", "whole")
    )
    assert killed == whole
    assert len(before) < len(whole) == len(done.stdout.splitlines())
    assert {json.loads(text)["cell"] for text in done.stdout.splitlines()} == set(whole)
    assert len(file.read_text().splitlines()) == len(whole)  # nothing ran twice


def test_what_is_there_is_not_run_again_and_results_are_shown(tmp_path):
    result = CliRunner().invoke(main, ["bench", "jpeg+vit-nano-server", "--data", "digits-scenes", "--limit", "3",
                                       "--out", "r", "--offline"])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "jpeg+vit-nano-server" in result.stdout
    [record] = records.read(Path("r"))
    assert record["samples"] == 3
    assert timeless(record) == timeless(
        one_by_one(cells("jpeg+vit-nano-server")[0], Settings("digits-scenes", limit=3))
    )
    assert json.loads(Path("r", records.PLAN).read_text())["data"] == "digits-scenes"
    assert Path("r", records.SKIPS).read_text() == ""
    again = CliRunner().invoke(main, ["bench", "jpeg+vit-nano-server", "--data", "digits-scenes", "--limit", "3",
                                      "--out", "r", "--offline", "--resume", "--format", "json"])  # fmt: skip
    assert json.loads(again.stdout) == record


MANY = "layered+rans+cls-nano@d3+det-nano@d3+embed-nano@d3"


def test_a_stream_for_several_tasks_is_a_cell_for_each_of_the_same_packets(tmp_path, monkeypatch):
    coded = []
    monkeypatch.setattr(reuse.SharedPipeline, "_encode_anew", _noted(reuse.SharedPipeline._encode_anew, coded))
    settings = Settings("digits-scenes", limit=6, batch=4, offline=True)
    plan = matrix.given([(MANY, {})], {"layered.layers": [1, 2]}, tasks=["classification", "detection"])
    todo = ordered(cell_of(c, "digits-scenes", "test", 6, 0) for c in plan.with_seed(0))
    assert [cell.label.rpartition(" ")[2] for cell in todo] == ["classification", "detection"] * 2
    assert len({cell.digest for cell in todo}) == 4 and len({cell.point for cell in todo}) == 2
    worker = Worker(settings)
    found = [worker.measure(cell) for cell in todo]
    assert len(coded) == 4  # two batches at two points
    for cell, record in zip(todo, found, strict=True):
        pipeline = Pipeline.load(compose_spec(cell.spec), OFFLINE).alone(cell.task)
        dataset = open_dataset("digits-scenes", "test", pipeline.request)
        assert timeless(record) == timeless(evaluate(pipeline, dataset, limit=6, batch=4))


def _noted(method, ran: list):
    def run(self, *arguments):
        ran.append(arguments)
        return method(self, *arguments)

    return run


def test_tasks_of_specs_are_named_and_weighed(tmp_path):
    """From the command line to the report and the plan, and on with --resume."""
    options = ["--data", "digits-scenes", "--limit", "6", "--offline", "--out", "r"]
    weighed = ["--task", "classification=1,retrieval=3"]
    told = CliRunner().invoke(main, ["bench", MANY, *options, *weighed])
    assert told.exit_code == 0, told.output
    heads = [line.split("  ")[0] for line in told.stdout.splitlines() if "95 % interval" in line]
    assert len(heads) == 3 and "weighted mean %" in told.stdout and "recall@1 %" in told.stdout
    found = {record["task"]: record for record in records.read(Path("r"))}
    assert list(found) == ["classification", "retrieval"]
    assert len({record["bytes_total"] for record in found.values()}) == 1
    more = CliRunner().invoke(main, ["bench", MANY, *options, "--resume", "--format", "json"])
    assert more.exit_code == 0, more.output
    rows = [json.loads(line) for line in more.stdout.splitlines()]
    assert sorted(row["task"] for row in rows) == ["classification", "detection", "retrieval"]
    assert rows[0] == found["classification"]  # it was there, and only what was missing ran
    page = CliRunner().invoke(main, ["report", "r", "-o", "r.html", "--pictures", *weighed])
    assert page.exit_code == 0 and "no picture" not in page.stderr, page.output
    assert Path("r.html").read_text().count("data:image") >= 4  # the source and what arrived, of the mean and of each
    plan = ["plan", "--results", "r", "--rate-mbps", "1", "--deadline-ms", "100000", "--format", "json"]
    best = json.loads(CliRunner().invoke(main, [*plan, *weighed]).stdout)["best"]
    assert best["accuracy"] == pytest.approx((found["classification"]["top1"] + 3 * found["retrieval"]["recall1"]) / 4)
    one = json.loads(CliRunner().invoke(main, [*plan, "--task", "retrieval"]).stdout)["best"]
    assert one["accuracy"] == found["retrieval"]["recall1"]
    for more, says in (
        ([], "has the tasks classification and retrieval and detection: name one with --task, or weigh them"),
        (["--task", "video"], "has no task 'video'; it has classification, retrieval, detection"),
        (["--task", "classification", "--task", "retrieval"], "one score is planned for: weigh the tasks"),
    ):
        refusal = CliRunner().invoke(main, [*plan, *more])
        assert refusal.exit_code == 2 and says in refusal.stderr, refusal.output
    for asked, says in (
        (
            "",
            "has the tasks classification and retrieval and detection: name one with task, or weigh them, as in task=",
        ),
        (",task=video", "has no task 'video'; it has classification, retrieval, detection"),
        (",task='retrieval=0'", "task=retrieval=0: a weight is a number above 0"),
        (",task='classification=1,retrieval=3'", None),
        (",task=retrieval", None),
    ):
        spec = MANY.replace("layered", f"layered+deadline:100000,rate=1,profile=r{asked}")
        done = CliRunner().invoke(
            main, ["encode", spec, "digits-scenes:0", "-o", "-", "--task", "retrieval", "--offline"]
        )
        assert done.exit_code == (2 if says else 0) and (says or "") in done.stderr, done.output


def test_tasks_that_a_stream_has_not_are_one_line():
    assert "has no task 'video'; it has classification, detection, retrieval" in refused(
        MANY, "--data", "digits-scenes", "--out", "r", "--task", "video"
    )
    assert "weights of tasks are for specs with several backbones" in refused(
        "--data", "digits-scenes", "--out", "r", "--task", "classification=1"
    )


def test_the_exit_code_tells_some_failures_from_all(tmp_path):
    """3 where some cells failed, 1 where all did; where stderr is no terminal there is a line a cell."""
    works, fails = "png+resnet-nano", "pca+resnet-nano@layer2"  # of which no weights are here
    options = ["--data", "digits-scenes", "--limit", "1", "--offline"]
    for specs, code in (([works, fails], 3), ([fails], 1), ([works], 0)):
        told = CliRunner().invoke(main, ["bench", *specs, *options, "--out", str(tmp_path / str(code))])
        assert told.exit_code == code, told.output
        lines = [line for line in told.stderr.splitlines() if line.startswith(tuple("123"))]
        assert len(lines) == len(specs)
        assert lines[0].startswith(f"1/{len(specs)}  ")
        assert all(("failed: no weights for" in line) == (fails in line) for line in lines)


def test_too_large_a_plan_is_refused_before_it_is_composed(monkeypatch):
    made = []
    before = matrix.at
    monkeypatch.setattr(matrix, "at", lambda *args: made.append(1) or before(*args))
    sweep = ["--sweep", f"jpeg.quality={','.join(map(str, range(1, 101)))}"]
    for specs in (["jpeg+resnet-nano"], ["--encoder", "jpeg"]):
        options = ["--data", "digits-scenes", "--dry-run", "--max-cells", "20", *sweep, "--offline"]
        told = CliRunner().invoke(main, ["bench", *specs, *options])
        assert told.exit_code == 2
        assert "more than 20 cells, and 100 points of jpeg alone" in told.stderr
        assert len(made) <= 21
        made.clear()
