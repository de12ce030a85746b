"""Several processes learn what one does, and a run goes on with another number of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from semcodec.errors import UsageError
from semcodec.training import processes

HELPERS = Path(__file__).parents[1] / "helpers"
JOB = """
import sys
from pathlib import Path
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from semcodec.data.base import Dataset
from semcodec.training import processes
from semcodec.training.checkpoint import state_dict
from semcodec.training.loop import Job, Step, fit
from safetensors.torch import save_file

class Clips(Dataset):
    name, kind, classes, varies = "clips", "video", ["dark", "bright"], True
    def __len__(self):
        return 30
    def batch(self, indices):
        rng = np.random.default_rng(7)
        pixels = rng.integers(0, 256, (30, 2, 4, 4, 3), dtype=np.uint8)
        return pixels[indices], (np.arange(30) % 2)[indices]
    def ids(self, indices):
        return [str(i) for i in indices]

out, stop = Path(sys.argv[1]), int(sys.argv[2])
processes.begin()
torch.manual_seed(0)
net = nn.Sequential(nn.Flatten(), nn.Linear(96, 8), nn.GELU(), nn.Linear(8, 2))
job, calls, seen = Job({"backbone": net}, Clips()), [0], []

def loss(batch):
    calls[0] += 1
    if calls[0] == stop:
        raise KeyboardInterrupt
    return cross_entropy(net(batch.pixels), batch.labels), {"samples": float(len(batch.labels))}

def look(batch):
    seen.append(len(batch.labels))
    return torch.zeros(()), {}

steps = [Step("learn", [net], loss, 100, 1e-2, batch=5), Step("look", [], look, 10, 0.0, batch=5)]
fit(steps, job, out, every_s=0, half=False)
assert seen == [5, 5]  # where nothing learns, each process sees everything
if processes.is_first():
    save_file(state_dict({"backbone": net}), out / "learned.safetensors")

"""


DISTIL = """
import sys
from pathlib import Path
import torch
from feature_jobs import job_of
from safetensors.torch import save_file
from semcodec.training import distillation, loop, processes
from semcodec.training.checkpoint import state_dict
from semcodec.training.loop import fit

out, stop, spec, iterations = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
processes.begin()
torch.manual_seed(0)
loop.gains_by_bfloat16 = lambda device: False
job, calls = job_of(spec), [0]
job.dataset.kind = "image"
steps = distillation.steps(job, 0.1)

def stopping(loss):
    def stopped(batch):
        calls[0] += 1
        if calls[0] == stop:
            raise KeyboardInterrupt
        return loss(batch)
    return stopped

for step in steps:
    step.samples, step.loss = step.batch * iterations, stopping(step.loss)
fit(steps, job, out, every_s=0, half=False)
if processes.is_first():
    modules = {**job.modules, **job.auxiliary}
    save_file({name: t.clone() for name, t in state_dict(modules).items()}, out / "learned.safetensors")
"""


def learn(folder: Path, count: int, *words: object, job: str = JOB) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    (folder / "job.py").write_text(job)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [*(start if count > 1 else [sys.executable]), str(folder / "job.py"), str(folder), *map(str, words)]
    path = os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)


def weights(folder: Path, count: int, *words: object, job: str = JOB) -> dict[str, torch.Tensor]:
    done = learn(folder, count, *(words or (0,)), job=job)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "learned.safetensors")


@pytest.mark.slow
def test_two_processes_learn_what_one_does_and_go_on_where_one_stopped(tmp_path):
    alone, together = weights(tmp_path / "one", 1), weights(tmp_path / "two", 2)
    for name, t in alone.items():
        torch.testing.assert_close(together[name], t, atol=1e-5, rtol=0)
    one, two = ((tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two"))
    assert len(one) == len(two)
    assert learn(tmp_path / "other", 1, 9).returncode != 0
    assert (tmp_path / "other" / "checkpoint.safetensors").exists()
    went_on = weights(tmp_path / "other", 2)
    for name, t in alone.items():
        torch.testing.assert_close(went_on[name], t, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "iterations"),
    [("bottlenetpp+det-nano@d3", 10), ("layered:blocks=1,levels=2+vit-nano-server@block2", 1)],
)
def test_distillation_and_its_average_are_those_of_one_process(tmp_path, spec, iterations):
    """Four pictures in one, spreads of channels, what teachers see and noise are of the whole batch.

    Of values that are rounded one batch alone agrees: a last bit decides where they fall.
    """
    words = (0, spec, iterations)
    alone = weights(tmp_path / "one", 1, *words, job=DISTIL)
    assert learn(tmp_path / "two", 1, iterations + 1, *words[1:], job=DISTIL).returncode != 0
    assert (tmp_path / "two" / "checkpoint.safetensors").exists()
    together = weights(tmp_path / "two", 2, *words, job=DISTIL)
    assert any(name.startswith("average.") for name in alone)
    for name, t in alone.items():
        torch.testing.assert_close(together[name], t, atol=1e-5, rtol=0)


def test_a_process_names_its_own_gpu(monkeypatch):
    assert processes.own("cuda") == "cuda"
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [processes.own(name) for name in ("cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:0", "cpu"]


def test_each_process_has_its_part_of_a_batch(monkeypatch):
    assert processes.share_of(7) == slice(0, 7)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(processes, "count", lambda: 3)
        monkeypatch.setattr(processes.distributed, "get_rank", lambda rank=rank: rank)
        parts += list(range(8))[processes.share_of(8)]
        with pytest.raises(UsageError, match="too small for 3 processes"):
            processes.share_of(2)
    assert parts == list(range(8))
