"""Where networks run: naming a device, models that are there, times and records, and bfloat16."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import fake_accelerator
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import semcodec
from semcodec.cli import main
from semcodec.coding.module_state import ModuleState
from semcodec.errors import UsageError
from semcodec.pipeline.accelerator import CPU, Accelerator
from semcodec.pipeline.timing import Clock
from semcodec.tensors import as_array, beside

COMPOSITIONS = {
    "stae:frames=2,pixels=0.4+rans+vit-nano": "digits-motion",
    "cls-attn+rans+vit-nano-server": "digits-scenes",
    "aecnn+rans+resnet-nano": "digits-scenes",
    "layered+rans+det-nano@d3": "digits-scenes",
}
"""With weights that ship, of every task and kind of features."""


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# -- naming one --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["gpu", "cuda:", "cuda:x", "CUDA", "cuda:-1", "", "fakegpu"])
def test_unknown_words_are_refused(word):
    with pytest.raises(UsageError, match=r"there is no device .* expects cpu, cuda, mps"):
        Accelerator.find(word)


@pytest.mark.parametrize(
    "command",
    [
        ("compose", "stae+rans+vit-nano"),
        ("encode", "stae+rans+vit-nano", "digits-motion:0", "-o", "x.sem"),
        ("decode", "x.sem"),
        ("eval", "stae+rans+vit-nano", "--data", "digits-motion"),
        ("bench", "stae+rans+vit-nano", "--data", "digits-motion", "--out", "x"),
        ("train", "stae+rans+vit-nano", "--data", "digits-motion", "-o", "x"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_takes_one_and_refuses_what_is_not_there(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if command[0] == "decode":
        done = run("encode", "jpeg+vit-nano-server", "digits-scenes:0", "-o", "x.sem")
        assert done.exit_code == 0, done.stderr
    before = sorted(tmp_path.iterdir())
    unknown = run(*command, "--device", "gpu")
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert unknown.stderr == "error: there is no device 'gpu': expects cpu, cuda, mps, or one of several as in cuda:1\n"
    absent = run(*command, "--device", "cuda:99")
    assert (absent.exit_code, absent.stdout) == (2, "")
    assert absent.stderr.startswith("error: the device cuda:99 is not here: torch ")
    assert absent.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_an_unknown_word_costs_no_import_of_torch():
    code = (
        "import sys; from semcodec.cli import main\n"
        "try: main(['eval', 'stae+rans+vit-nano', '--data', 'digits-motion', '--device', 'gpu'])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "2 False\n"


def test_the_cpu_is_one_whatever_it_is_called():
    assert Accelerator.find() == Accelerator.find("cpu") == Accelerator.find("cpu:0") == CPU
    assert Accelerator.find(torch.device("cpu"), half=True) == replace(CPU, half=True)
    assert Accelerator.find(replace(CPU, half=True)) == replace(CPU, half=True)
    assert CPU.describe() == {}
    assert CPU.signature() == []


# -- the two ends there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", COMPOSITIONS)
def test_a_packet_of_one_device_decodes_on_the_other(spec, fakegpu):
    samples = [f"{COMPOSITIONS[spec]}:{number}" for number in range(2)]
    here, there = semcodec.Device.load(spec), semcodec.Device.load(spec, device=fakegpu)
    home, away = semcodec.Server.load(spec), semcodec.Server.load(spec, device=fakegpu)
    assert here.header == there.header  # names of weights do not depend on where they are
    for number, sample in enumerate(samples):
        packets = [end.encode(sample, number).data for end in (here, there)]
        assert packets[0] == packets[1]  # the pretended kernels are the CPU's own
        answers = [end.decode(packet) for end in (home, away) for packet in packets]
        assert len({answer.name for answer in answers}) == 1
        if answers[0].logits is not None:
            assert all(np.allclose(answer.logits, answers[0].logits, atol=1e-4) for answer in answers)


def test_all_weights_are_moved_once_and_stay_there(fakegpu):
    pipeline = semcodec.compose("cls-attn+rans+vit-nano-server", device=fakegpu)
    states = [module.state_dict() for module in pipeline.stages.modules().values()]
    assert {tensor.device for state in states for tensor in state.values()} == {fakegpu}
    assert pipeline.device.accelerator == pipeline.server.accelerator == pipeline.accelerator
    again = pipeline.replace(composition=pipeline.composition.with_call(keep=4))
    assert again.accelerator == pipeline.accelerator


def test_what_codes_looks_at_a_copy_until_the_tensor_changes(fakegpu):
    module = torch.nn.Module()
    module.register_buffer("counts", torch.arange(4).to(fakegpu))
    state = ModuleState(module)
    first = state["counts"]
    assert state["counts"] is first
    module.counts.add_(1)
    assert state["counts"].tolist() == [1, 2, 3, 4]
    module.counts = torch.zeros(4).to(fakegpu)
    assert state["counts"].tolist() == [0, 0, 0, 0]


def test_arrays_come_and_go_by_one_helper(fakegpu):
    there = torch.zeros(2, device=fakegpu)
    with pytest.raises(TypeError, match="can't convert fakegpu:0"):
        there.numpy()
    moved = beside(np.array([1.5, 2.5]), there)
    assert moved.device == fakegpu
    assert as_array(moved).tolist() == [1.5, 2.5]
    assert as_array(moved.bfloat16()).dtype == np.float32


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("spec", "objective"),
    [
        ("pca-adapt+rans+resnet-nano@layer1", "recipe"),
        ("feature-hyperprior+det-nano@d3", "task"),
        ("isr+sr+vit-nano-server", "recipe"),
        ("bottlenetpp+det-nano@d3", "distil"),
    ],
)
def test_training_there_leaves_weights_for_any_device(spec, objective, fakegpu, tmp_path):
    card = semcodec.train(spec, "digits-scenes", tmp_path, objective=objective, scale=1e-9, device=fakegpu)
    assert (card["accelerator"], card["accelerator_name"]) == ("fakegpu:0", "Make-believe 1")
    trained = semcodec.compose(spec, str(tmp_path))
    assert {slot: trained.digests[slot] for slot in card["digests"]} == card["digests"]
    trained.decode(trained.encode("digits-scenes:0"))


# -- times and records -------------------------------------------------------------------------------------------------


def test_times_wait_for_the_device(fakegpu):
    clock = semcodec.compose("cls-attn+rans+vit-nano-server", device=fakegpu).clock()
    before = fake_accelerator.COUNTERS.synchronised
    with clock("stage"):
        assert fake_accelerator.COUNTERS.synchronised == before + 1
    assert fake_accelerator.COUNTERS.synchronised == before + 2
    waited = []
    with Clock(lambda: waited.append(1))("stage"):
        pass
    assert len(waited) == 2


def test_records_name_the_device_and_those_of_the_cpu_stay_as_they_are(fakegpu):
    [there] = semcodec.sweep("jpeg+vit-nano-server", {}, "digits-scenes", limit=4, device=fakegpu)
    [here] = semcodec.sweep("jpeg+vit-nano-server", {}, "digits-scenes", limit=4)
    told = {"accelerator": "fakegpu:0", "accelerator_name": "Make-believe 1", "precision": "float32"}
    told |= {"accelerator_peak_bytes": 1 << 20}
    assert {name: value for name, value in there.items() if name not in here} == told
    assert there["key"] != here["key"]
    assert (there["correct"], there["bytes_total"]) == (here["correct"], here["bytes_total"])


# -- bfloat16 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", COMPOSITIONS)
def test_bfloat16_changes_networks_and_no_coding(spec):
    half = semcodec.compose(spec, half=True)
    full = half.replace(half=False)
    encoded = [half.encode(f"{COMPOSITIONS[spec]}:{number}", number) for number in range(2)]
    for one in encoded:  # a packet of one precision decodes at the other
        answers = [half.decode(one), full.decode(one)]
        assert answers[0].logits is None or np.allclose(answers[0].logits, answers[1].logits, atol=1.0)
    assert half.header == full.header


def test_eval_tells_what_bfloat16_costs(tmp_path):
    arguments = ("eval", "cls-attn+rans+vit-nano-server", "--data", "digits-scenes", "--limit", 8)
    done = run(*arguments, "--half", "--format", "json")
    record = json.loads(done.stdout)
    assert record["precision"] == "bfloat16"
    assert "accelerator" not in record
    cost, plain = record["half_cost"], json.loads(run(*arguments, "--format", "json").stdout)
    assert (cost["top1"], cost["bytes_total"]) == (plain["top1"], plain["bytes_total"])
    assert cost["difference"] == pytest.approx(plain["top1"] - record["top1"])
    assert {"precision", "half_cost"} == record.keys() - plain.keys()
    assert record["key"] != plain["key"]
    shown = run(*arguments, "--half").stdout
    assert "at float32" in shown
    assert f"of {100 * plain['top1']:.2f} % at float32" in next(x for x in shown.splitlines() if x.startswith("bfloat"))
