"""The command line: what it prints, what it writes, and what it says and leaves behind when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cli_toys
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import semcodec.composition.composition
from semcodec._files import whole_file
from semcodec.cli import main
from semcodec.composition.composition import compose_spec
from semcodec.composition.registry import Registry, get_registry, missing
from semcodec.container.v2 import ENDING
from semcodec.evaluation.stage_table import explain, outline
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.weights import WeightsRequest
from semcodec.training.train import save

SPEC = "stae:frames=2+rans+vit-nano:32"
RANDOM = ("--weights", "random")
SAMPLE = "digits-motion:3"
KEYS = {
    "spec", "task", "input", "sequence", "prediction", "logits", "label", "top1", "bytes_total", "bytes_payload",
    "bytes_side", "bytes_header", "bytes_local", "bytes_stream_header", "file_bytes", "raw_float32_bytes",
    "raw_uint8_bytes", "ratio_float32", "ratio_uint8", "stages_ms", "layers", "weights",
}  # fmt: skip


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """An empty folder, an empty cache, one thread."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMCODEC_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def answer(*arguments: object) -> dict:
    """What a command that succeeds prints as JSON, and nothing else on stdout."""
    result = call(*arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(code: int, *arguments: object) -> str:
    """What a command that fails says: one line "error: ..." on stderr, nothing on stdout, no traceback."""
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    first, *more = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert not more or "^" in more[-1]
    return result.stderr


@pytest.fixture
def toys(monkeypatch):
    registry = Registry.of([*get_registry(), *cli_toys.COMPONENTS])
    monkeypatch.setattr(semcodec.composition.composition, "get_registry", lambda: registry)


def picture(path: Path, value: int, spot: int | None = None) -> Path:
    pixels = np.full((24, 24, 3), value, np.uint8)
    pixels[0, 0] = value if spot is None else spot
    Image.fromarray(pixels).save(path)
    return path


# -- the table ---------------------------------------------------------------------------------------------------------


def test_parameters_and_macs_are_those_of_the_models():
    pipeline = Pipeline.load(compose_spec("stae:frames=4,pixels=0.4+rans+vit-nano"), WeightsRequest({"": "random"}))
    rows = {row.stage: row for row in explain(pipeline)}
    modules = pipeline.stages.modules().values()
    assert sum(row.parameters or 0 for row in rows.values()) == sum(p.numel() for m in modules for p in m.parameters())

    width, classes, tubelets = 128, 10, 2
    stem = sum(
        9 * inside * out * side**2 for inside, out, side in ((9, 32, 32), (32, 64, 16), (64, 96, 8), (96, width, 4))
    )
    stem += width * width * 4**2
    tokens = tubelets * 4**2
    block = tokens * 12 * width**2 + 2 * tokens**2 * width  # qkv, projection, MLP; then both products of attention
    assert rows["tail"].macs == tubelets * stem + 4 * block + width * classes
    assert rows["select_pixels"].macs == 4 * 64 * 64 * 9 * 2
    linear = [m for m in pipeline.stages.encoder.frame_attention.modules() if isinstance(m, torch.nn.Linear)]
    assert rows["select_frames"].macs == 2 * sum(m.weight.numel() for m in linear)  # of mean and maximum
    assert rows["select_pixels"].takes == {"scores": "float32[4x4096]"}


def test_attention_is_counted_where_torch_itself_does_not(monkeypatch):
    from torch.utils.flop_counter import flop_registry

    pipeline = Pipeline.load(compose_spec(SPEC), WeightsRequest({"": "random"}))
    expected = [row.macs for row in explain(pipeline)]
    monkeypatch.delitem(flop_registry, torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, raising=False)
    assert [row.macs for row in explain(pipeline)] == expected


def test_stages_that_the_knobs_skip_cost_nothing():
    pipeline = Pipeline.load(compose_spec("stae:frames=16,pixels=1.0+rans+vit-nano:32"), WeightsRequest({"": "random"}))
    rows = {row.stage: row for row in explain(pipeline)}
    assert rows["recover"].macs == rows["select_pixels"].macs == rows["select_frames"].parameters == 0
    assert rows["select_frames"].gives == {"mask": "all kept"}
    assert rows["head"].bytes == 4 * 16 * 3 * 32 * 32 + 8 * 16


def test_the_outline_declares_what_explain_finds():
    composition = compose_spec(SPEC)
    pipeline = Pipeline.load(composition, WeightsRequest({"": "random"}))
    for declared, found in zip(outline(composition), explain(pipeline), strict=True):
        assert (declared.stage, declared.where, declared.bytes) == (found.stage, found.where, found.bytes)
        assert declared.parameters is declared.macs is None


def test_a_dry_run_shows_unknown_specs_as_such(monkeypatch):
    from dataclasses import replace

    registry = Registry.of([replace(c, spec=None) if c.name == "vit-nano" else c for c in get_registry()])
    monkeypatch.setattr(semcodec.composition.composition, "get_registry", lambda: registry)
    shown = call("compose", "--dry-run", "tensor8+vit-nano")
    assert shown.exit_code == 0
    head = next(line for line in shown.stdout.splitlines() if line.startswith("head"))
    assert head.split() == ["head", "device", "vit-nano", "?", "?", "-", "-", "-", "Apache-2.0"]
    assert answer("compose", "--dry-run", "tensor8+vit-nano")["stages"][0]["takes"] is None


def test_compose_names_every_source_of_weights_and_every_licence(toys):
    shown = call("compose", "--dry-run", "stae+rans+vit-small", "--weights", "recoverer=random").stdout
    assert "encoder    stae+vit-small@input" in shown
    assert "give --weights encoder=PATH" in shown
    assert "recoverer  cnn-3d2d+vit-small@input  random" in shown
    assert "hub: MCG-NJU/videomae-small-finetuned-kinetics" in shown
    assert "note" not in shown
    assert "nibbles is under AGPL-3.0" in call("compose", "--dry-run", "nibbles+brightness").stdout


# -- one sample through everything -------------------------------------------------------------------------------------


def test_compose_encode_and_decode_agree():
    composed = answer("compose", SPEC, "--input", SAMPLE, *RANDOM)
    assert composed.keys() >= KEYS | {"stages", "licenses", "paper"}
    encoded = answer("encode", SPEC, SAMPLE, "-o", "a.sem", "--check", *RANDOM)
    assert encoded.keys() == KEYS
    decoded = answer("decode", "a.sem", *RANDOM)
    assert decoded.keys() == KEYS

    size = os.path.getsize("a.sem")
    for found in (composed, encoded, decoded):
        assert found["file_bytes"] == size == found["bytes_total"] + found["bytes_stream_header"]
        assert found["bytes_total"] == sum(found[f"bytes_{part}"] for part in ("payload", "side", "header"))
        assert found["logits"] == composed["logits"]
        assert found["ratio_float32"] == 4 * 16 * 3 * 32 * 32 / found["bytes_total"]
        assert found["ratio_uint8"] == found["ratio_float32"] / 4
        for name in ("prediction", "spec", "task", "bytes_payload", "bytes_side", "bytes_header", "weights", "layers"):
            same = {**found[name], "name": 0, "top5": 0} if name == "prediction" else found[name]
            assert same == ({**composed[name], "name": 0, "top5": 0} if name == "prediction" else composed[name])
    assert encoded["label"] == composed["label"] == "down"
    assert composed["top1"] == float(composed["prediction"]["name"] == "down")
    assert (decoded["label"], decoded["top1"]) == (None, None)
    probabilities = [p for _, p in composed["prediction"]["top5"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert probabilities[0] == pytest.approx(composed["prediction"]["probability"])
    assert set(composed["stages_ms"]) >= {"head", "select_frames", "encode", "entropy_encode", "restore", "tail"}
    assert set(decoded["stages_ms"]) == {"entropy_decode", "read", "restore", "recover", "tail"}
    assert composed["weights"]["backbone"]["source"] == "random"


def test_another_process_decodes_to_the_same_logits():
    encoded = answer("encode", SPEC, SAMPLE, "-o", "a.sem", "--check", *RANDOM)
    command = [sys.executable, "-m", "semcodec", "decode", "a.sem", *RANDOM, "--format", "json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["logits"] == encoded["logits"]


def test_several_inputs_make_one_file_of_records():
    encoded = answer("encode", SPEC, SAMPLE, "digits-motion:4", "-o", "two.sem", "--check", *RANDOM)
    decoded = answer("decode", "two.sem", *RANDOM)
    assert [r["sequence"] for r in decoded["records"]] == [0, 1]
    assert [r["logits"] for r in decoded["records"]] == [r["logits"] for r in encoded["records"]]
    assert encoded["file_bytes"] == decoded["file_bytes"] == os.path.getsize("two.sem")
    inspected = answer("inspect", "two.sem")
    assert [r["bytes_total"] for r in inspected["records"]] == [r["bytes_total"] for r in decoded["records"]]
    table = call("decode", "two.sem", *RANDOM).stdout
    assert "record 1" in table
    assert "random, so the answer means nothing" in table
    assert "2 records" in call("inspect", "two.sem").stdout


def test_the_table_tells_what_was_recognised():
    shown = call("compose", SPEC, "--input", SAMPLE, *RANDOM).stdout
    found = answer("compose", SPEC, "--input", SAMPLE, *RANDOM)
    assert f"recognised  {found['prediction']['name']}" in shown
    assert "wrong: it is down" in shown or found["top1"] == 1
    assert f"{found['bytes_total']:,} = {found['bytes_payload']:,} payload" in shown
    assert f"{found['file_bytes']:,} with the stream header" in shown


# -- layers, gates -----------------------------------------------------------------------------------------------------


def test_a_stream_cut_after_a_layer_says_so(toys):
    whole = answer("encode", "nibbles+pack+brightness", picture(Path("a.png"), 200), "-o", "a.sem", "--check")
    assert whole["prediction"]["name"] == "bright"
    assert whole["layers"] == [2, 2]
    data = Path("a.sem").read_bytes()
    Path("cut.sem").write_bytes(data[: len(data) - 24 * 24 * 3 // 2 - ENDING])
    cut = answer("decode", "cut.sem")
    assert cut["layers"] == [1, 2]
    assert cut["file_bytes"] == os.path.getsize("cut.sem")
    assert "layers      1/2" in call("decode", "cut.sem").stdout
    assert "1/2" in call("inspect", "cut.sem").stdout


def test_what_the_gate_keeps_is_answered_by_the_device(toys):
    dark, spot = picture(Path("dark.png"), 100), picture(Path("spot.png"), 100, spot=255)
    encoded = answer("encode", "nibbles+doubtful:0.99+pack+brightness", dark, spot, "-o", "g.sem", "--check")
    decoded = answer("decode", "g.sem")
    for found in (encoded, decoded):
        sent, kept = found["records"]
        assert (sent["prediction"]["where"], sent["prediction"]["name"]) == ("server", "dark")
        assert (kept["prediction"]["where"], kept["prediction"]["name"]) == ("device", "bright")
        assert (kept["bytes_total"], kept["logits"], kept["ratio_float32"]) == (0, None, None)
        assert found["file_bytes"] == os.path.getsize("g.sem")
        assert kept["bytes_local"] > 0 == sent["bytes_local"]
    assert "by the device itself" in call("decode", "g.sem").stdout
    assert "local: class 1" in call("inspect", "g.sem").stdout
    stages = [row["stage"] for row in answer("compose", "nibbles+doubtful+pack+brightness")["stages"]]
    assert stages[:4] == ["head", "analyse", "gate", "encode"]


def test_records_before_the_damage_are_printed():
    call("encode", SPEC, SAMPLE, SAMPLE, "-o", "two.sem", *RANDOM)
    data = bytearray(Path("two.sem").read_bytes())
    data[-10] ^= 1
    Path("two.sem").write_bytes(data)
    result = call("decode", "two.sem", *RANDOM, "--format", "json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["sequence"], found["file_bytes"]) == (0, len(data))
    assert result.stderr == f"error: {found['error']}\n"
    assert found["error"].startswith(("packet 1", "record 1"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("eval", SPEC, "--data", "digits-motion", "--limit", 1, "-o", "-"),
        ("report", "records.jsonl", "-o", "-"),
        ("plan", "--profile", "stae", "--trace", "markov:seed=1", "--deadline-ms", 100, "--save-trace", "-"),
        ("send", SPEC, SAMPLE, "--to", "ws://127.0.0.1:1", "--record", "-"),
    ],
)
def test_what_is_written_to_files_alone_makes_none_of_the_name_of_stdout(arguments):
    Path("records.jsonl").write_text("")
    result = call(*arguments)
    assert result.exit_code == 2
    assert (
        result.stderr
        == "error: - would be stdout, and this is written to a file alone: name one, or ./- for that very name\n"
    )
    assert not Path("-").exists()


def test_what_others_wrote_moves_no_terminal():
    evil = "\x1b]0;owned\x07\u202e"
    Path("p.toml").write_text(
        f"title = {json.dumps(evil)}\n[[point]]\nlabel = {json.dumps(evil)}\nbytes = 10\naccuracy = 0.5\n"
    )
    told = call("plan", "--profile", "p.toml", "--rate-mbps", 1, "--deadline-ms", 9)
    assert told.exit_code == 0, told.output
    wrong = call("plan", "--profile", "p.toml", "--rate-mbps", 1, "--deadline-ms", 9, "--assume", f"{evil}=1")
    assert wrong.exit_code == 2
    for text in (told.stdout, wrong.stderr):
        assert "\\x1b]0;owned\\x07\\u202e" in text
        assert "\x1b" not in text and "\u202e" not in text


# -- eval, lists -------------------------------------------------------------------------------------------------------


def test_eval_prints_means_and_what_was_evaluated():
    options = (SPEC, "--data", "digits-motion", "--limit", 3, "--batch", 2, *RANDOM)
    found = answer("eval", *options)
    assert found["samples"] == 3
    single = [answer("compose", SPEC, "--input", f"digits-motion:{i}", *RANDOM)["bytes_total"] for i in range(3)]
    assert found["bytes_total"] == pytest.approx(np.mean(single), abs=3)  # sequence numbers differ
    assert found.keys() >= {"top1", "top1_interval", "data_digest", "stages_ms", "weights", "bytes_stream_header"}
    shown = call("eval", *options).stdout
    assert found["data_digest"] in shown
    assert "95 % interval" in shown


def test_a_sweep_goes_on_where_it_was():
    options = ("eval", SPEC, "--data", "digits-motion", "--limit", 1, *RANDOM, "-o", "r.jsonl")
    first = call(*options, "--sweep", "stae.frames=1,2")
    records = [json.loads(line) for line in first.stdout.splitlines()]
    assert [r["knobs"]["frames"] for r in records] == [1, 2]
    path = Path("r.jsonl")
    path.write_text(path.read_text() + '{"key": "half a li')
    second = call(*options, "--sweep", "stae.frames=1,2,4")
    assert [json.loads(line)["knobs"]["frames"] for line in second.stdout.splitlines()] == [4]
    assert [json.loads(line)["knobs"]["frames"] for line in path.read_text().splitlines()] == [1, 2, 4]
    third = call(*options, "--sweep", "stae.frames=4")
    assert (third.exit_code, third.stdout) == (0, "")
    assert "has every point" in third.stderr


def test_train_writes_weights_that_are_found(tmp_path):
    card = answer("train", "vit-nano:32", "--data", "digits-motion", "-o", "out", "--samples-scale", 1e-6)
    assert {p.name for p in Path("out").iterdir()} >= {"weights.safetensors", "card.json"}
    weights = ("--weights", "backbone=out", "--weights", "random")
    found = answer("compose", SPEC, "--input", SAMPLE, *weights)
    assert found["weights"]["backbone"]["source"] == "out"
    assert found["weights"]["encoder"]["source"] == "random"
    assert card["keys"] == {"backbone": "vit-nano:32"}


BUILT_IN = {(component.kind, component.name): component for component in get_registry()}


def test_lists_and_their_details():
    rows = answer("plugins", "list")
    assert {"stae", "rans", "top-k", "vit-base", "cnn-3d2d"} <= {row["name"] for row in rows}
    ours = [row for row in rows if row["distribution"] == "semcodec"]
    for row in ours:  # what needs a program or an extra may miss it
        assert row["status"] == ("missing" if missing(BUILT_IN[row["kind"], row["name"]]) else "ok"), row
    assert "frame budget" in call("plugins", "show", "stae").stdout
    assert answer("plugins", "show", "backbone/vit-nano")["params"][0]["name"] == "side"
    assert [row["name"] for row in answer("data", "list")] == ["digits-motion", "digits-scenes"]
    assert "orbit" in call("data", "show", "digits-motion").stdout
    environment = answer("env")
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert "semcodec" in environment["plugins"]


# -- what is wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("compose",), ("compose", "--dry-run"), ("encode", "-o", "x.sem", SAMPLE)])
def test_a_typo_in_a_spec_has_a_caret_and_a_suggestion(command):
    name, *options = command
    said = refused(2, name, "stea+rans+vit-nano", *options)
    assert "did you mean stae?" in said
    assert said.splitlines()[1:] == ["  stea+rans+vit-nano", "  ^^^^"]
    assert not Path("x.sem").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("compose", "stae:frame=2+vit-nano"), "did you mean frames?"),
        (("compose", "stae:frames=99+vit-nano"), "from 1 to 16"),
        (("compose", "stae+rans"), "no backbone"),
        (("compose", SPEC, "--dry-run", "--input", SAMPLE), "leave out one"),
        (("compose", SPEC, "--weights", "a", "--weights", "b"), "two files"),
        (("encode", SPEC, SAMPLE, "-o", "."), "is a folder"),
        (("eval", SPEC, "--data", "digits-motion", "--sweep", "frames"), "ITEM.KEY="),
        (("eval", SPEC, "--data", "digits-motion", "--sweep", "stae.frames=1,x", *RANDOM), "takes an integer"),
        (("eval", SPEC, "--data", "digits-motion", "--split", "dev", *RANDOM), "train and test"),
        (("train", "jpeg+vit-nano", "--data", "digits-motion", "-o", "out"), "nothing to train"),
        (("plugins", "show", "stea"), "did you mean stae?"),
        (("plugins", "list", "--kind", "codec"), "--kind is one of"),
        (("compose",), "error: missing argument 'SPEC'; see main compose --help"),
        (("compose", SPEC, "--inputs", SAMPLE), "no such option '--inputs'. Did you mean"),
        (("compose", SPEC, SPEC), "error: got unexpected extra argument"),
        (("eval", SPEC, "--data", "digits-motion", "--limit", "0"), "error: invalid value for '--limit': 0 is not in"),
        (("--fast", "compose", SPEC), "error: no such option '--fast'; see main --help"),
        (("plugins", "listing"), "error: no such command 'listing'"),
    ],
)
def test_a_wrong_request(arguments, says):
    assert says in refused(2, *arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("compose", SPEC, "--input", "clip.mp4"), "no such file"),
        (("compose", SPEC, "--input", "digits-motoin:0"), "did you mean digits-motion?"),
        (("compose", SPEC, "--input", "digits-motion:1000"), "0 to 999"),
        (("compose", SPEC, "--input", SAMPLE), "--weights random"),
        (("compose", SPEC, "--weights", "nowhere.safetensors"), "no such weights file"),
        (("eval", SPEC, "--data", "nowhere", *RANDOM), "no such data set"),
        (("decode", "nowhere.sem"), "nowhere.sem: No such file"),
        (("inspect", "nowhere.sem"), "nowhere.sem: No such file"),
        (("encode", SPEC, SAMPLE, "-o", "no/where.sem", *RANDOM), "no/where.sem: No such file"),
        (("eval", SPEC, "--data", "digits-motion", "-o", "no/where.jsonl"), "no/where.jsonl: No such file"),
        (("data", "show", "nowhere"), "no such data set"),
        (("report", "no/where"), "no/where is not there; name a folder"),
    ],
)
def test_what_is_not_there(arguments, says):
    assert says in refused(1, *arguments)


def test_a_broken_video():
    Path("broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(range(256)))
    assert "broken.mp4" in refused(1, "encode", SPEC, SAMPLE, "broken.mp4", "-o", "x.sem", *RANDOM)
    assert [p.name for p in Path().iterdir() if "sem" in p.name] == []


def test_a_file_of_other_lines_is_not_appended_to():
    Path("notes.md").write_text("# notes\n")
    refused(1, "eval", SPEC, "--data", "digits-motion", "-o", "notes.md", *RANDOM)
    assert Path("notes.md").read_text() == "# notes\n"


def test_weights_of_another_model():
    other = compose_spec("stae+rans+vit-nano")
    modules = Pipeline.load(other, WeightsRequest({"": "random"})).stages.modules()
    Path("other").mkdir()
    keys = {slot: other.weights_key(slot) for slot in modules}
    save(modules, {"keys": keys, "classes": [f"class {i}" for i in range(10)]}, Path("other"))
    said = refused(1, "compose", SPEC, "--weights", "backbone=other")
    assert "holds no weights of vit-nano:32" in said
    # The same architecture under the right name, from another training.
    spec = "stae:frames=1+rans+vit-nano"
    answer("encode", spec, SAMPLE, "-o", "a.sem", "--check", *RANDOM)
    with torch.no_grad():
        next(modules["recoverer"].parameters()).add_(1)
    save(modules, {"keys": keys, "classes": [f"class {i}" for i in range(10)]}, Path("other"))
    assert "recoverer: the stream was made with" in refused(1, "decode", "a.sem", "--weights", "other")


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_a_damaged_stream(damage):
    call("encode", SPEC, SAMPLE, "-o", "a.sem", *RANDOM)
    data = bytearray(Path("a.sem").read_bytes())
    data[len(data) // 2] ^= 1
    Path("bad.sem").write_bytes({"flip": bytes(data), "cut": data[:-1], "empty": b"", "text": b"hello, world"}[damage])
    refused(1, "decode", "bad.sem", *RANDOM)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk():
    assert "/dev/full: No space left on device" in refused(1, "encode", SPEC, SAMPLE, "-o", "/dev/full", *RANDOM)
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "semcodec", "plugins", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: No space left on device"]


def test_a_file_is_whole_or_as_it_was():
    path = Path("a.sem")
    path.write_bytes(b"before")

    def fill(error: BaseException | None = None) -> None:
        with whole_file(path) as file:
            file.write(b"after")
            if error:
                raise error

    for error in (OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()):
        with pytest.raises(type(error)):
            fill(error)
        assert path.read_bytes() == b"before"
        assert [p.name for p in Path().iterdir()] == ["a.sem"]
    fill()
    assert path.read_bytes() == b"after"
    assert [p.name for p in Path().iterdir()] == ["a.sem"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written():
    Path("locked").mkdir(mode=0o500)
    assert "locked/a.sem: Permission denied" in refused(1, "encode", SPEC, SAMPLE, "-o", "locked/a.sem", *RANDOM)


def test_interrupts_and_closed_pipes(monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("semcodec.training.train.train", interrupted)
    Path("out").mkdir()
    Path("out/checkpoint.safetensors").touch()
    result = call("train", "vit-nano", "--data", "digits-motion", "-o", "out")
    assert result.exit_code == 130
    assert "the same command goes on from there" in result.stderr

    command = [sys.executable, "-m", "semcodec", "plugins", "list"]
    piped = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert piped.stdout and piped.stderr
    piped.stdout.close()
    assert piped.stderr.read() == ""
    assert piped.wait() == 141
    piped.stderr.close()


def test_cells_are_trained_each_into_its_folder(monkeypatch):
    done = []

    def trained(spec: str, data: str, out: Path, **how: object) -> dict[str, object]:
        done.append((spec, str(out), how["scale"]))
        return {"spec": spec, "metrics": [{"step": "match", "loss": 0.5}]}

    monkeypatch.setattr("semcodec.training.train.train", trained)
    Path("cells.toml").write_text(
        '[[cell]]\nspec = "layered+rans+det-nano@d3"\nsweep = {layered.lambda = [1.0, 2.0], layered.layers = [1, 2]}\n'
        '[[cell]]\nspec = "jpeg+det-nano"\n'
    )
    options = ("--data", "digits-scenes", "-o", "runs", "--samples-scale", 0.5)
    cards = answer("train", "--cells", "cells.toml", *options)
    assert [card["spec"] for card in cards] == [spec for spec, _, _ in done]
    assert done == [
        ("layered:lambda=1.0+rans+det-nano@d3", "runs/layered-lambda=1.0-rans-det-nano@d3", 0.5),
        ("layered:lambda=2.0+rans+det-nano@d3", "runs/layered-lambda=2.0-rans-det-nano@d3", 0.5),
    ]
    Path("cells.toml").write_text('[[cell]]\nspec = "jpeg+det-nano"\n')
    assert "none of its cells" in refused(2, "train", "--cells", "cells.toml", *options)
    assert "name what to train" in refused(2, "train", *options)
    assert "name what to train" in refused(2, "train", "vit-nano", "--cells", "cells.toml", *options)


def test_samples_and_settings_of_a_training_are_read(monkeypatch):
    told = []
    monkeypatch.setattr(
        "semcodec.training.train.train",
        lambda *_, **how: told.append(how) or {"spec": "x", "metrics": [{"step": "distil", "loss": 0.5}]},
    )
    options = ("train", "layered+det-nano@d3", "--data", "digits-scenes", "-o", "runs")
    named = ("--samples", "match=0", "--samples", "whole clips=20", "--distil", "crop=0.6", "--distil", "mix=no")
    answer(*options, "--objective", "distil", *named)
    assert told[0]["samples"] == {"match": 0, "whole clips": 20}
    assert told[0]["distillation"].told() == {"crop": 0.6, "mix": False}
    assert "expects STEP=N" in refused(2, *options, "--samples", "match")
    assert "given twice" in refused(2, *options, "--samples", "match=1", "--samples", "match=2")
    assert "a number of samples" in refused(2, *options, "--samples", "match=-1")
    assert "distillation has features, lr" in refused(2, *options, "--distil", "crops=1")


def test_debug_shows_where_an_error_came_from():
    result = call("--debug", "compose", "stea+vit-nano")
    assert isinstance(result.exception, semcodec.SemcodecError)
    done = subprocess.run(
        [sys.executable, "-m", "semcodec", "--debug", "plugins", "show", "stea"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" in done.stderr


def test_an_unknown_command_is_answered_by_the_nearest():
    result = call("compsoe", SPEC)
    assert result.exit_code == 2
    assert "did you mean compose?" in result.stderr
