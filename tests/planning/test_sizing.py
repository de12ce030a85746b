"""How many streams a server carries: the arithmetic, and in a slow test a load run on this machine."""

from __future__ import annotations

import asyncio
import json
import statistics
import time

import pytest
from click.testing import CliRunner
from serving_process import ServerProcess

from semcodec.cli import main
from semcodec.errors import UsageError
from semcodec.planning.latency import OperatingPoint
from semcodec.planning.sizing import MESSAGE_MS, size

POINT = OperatingPoint("p", 0.9, 1934, {}, {"entropy_decode": 0.6, "recover": 1.0, "tail": 8.0})


def test_a_process_carries_what_its_time_allows():
    one = size(POINT, 1000, 10, use=0.5)
    assert (one.decode_ms, one.networks_ms, one.message_ms) == (0.6, 9.0, MESSAGE_MS)
    assert one.sample_ms == pytest.approx(10.0)
    assert (one.per_process, one.processes) == (5, 200)
    assert one.up_mbps == pytest.approx(1000 * 10 * 8e-6 * 2000)
    assert one.down_mbps == pytest.approx(1000 * 10 * 8e-6 * 86)


def test_an_accelerator_speeds_networks_alone():
    assert size(POINT, 1, 10, speed=9).sample_ms == pytest.approx(2.0)
    assert size(POINT, 1, 10, speed=1e6).sample_ms == pytest.approx(1.0, abs=1e-3)


def test_with_a_gate_only_what_is_sent_counts():
    gated = OperatingPoint("g", 0.9, 1934, {}, dict(POINT.server_ms), sent=0.25)
    assert size(gated, 100, 10).per_process == pytest.approx(4 * size(POINT, 100, 10).per_process, abs=4)
    assert size(gated, 100, 10).up_mbps == pytest.approx(size(POINT, 100, 10).up_mbps / 4)


def test_a_stream_that_no_process_carries():
    one = size(POINT, 10, 1000)
    assert (one.per_process, one.processes) == (0, 0)


@pytest.mark.parametrize("wrong", [{"streams": 0}, {"fps": 0.0}, {"fps": float("nan")}, {"speed": -1.0}, {"use": 1.5}])
def test_wrong_figures_are_refused(wrong):
    with pytest.raises(UsageError):
        size(POINT, **{"streams": 1, "fps": 1.0, **wrong})


def test_the_command_sizes_every_point():
    done = CliRunner().invoke(
        main, ["plan", "--profile", "stae", "--streams", "1000", "--fps", "2", "--format", "json"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["streams"] == 1000
    assert all(point["per_process"] * point["processes"] >= 1000 for point in found["points"])
    shown = CliRunner().invoke(main, ["plan", "--profile", "stae", "--streams", "1000"])
    assert "1,000 streams of 10 samples a second" in shown.output
    for wrong in (["--streams", "5", "--rate-mbps", "3"], ["--fps", "3", "--rate-mbps", "3", "--deadline-ms", "9"]):
        done = CliRunner().invoke(main, ["plan", "--profile", "stae", *wrong])
        assert done.exit_code == 2, done.output


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("spec", ["jpeg+vit-nano-server", "layered+det-nano@d3"])
def test_a_load_run_is_foretold_to_a_fifth(spec, tmp_path, monkeypatch):
    """By processor time, since others may use the machine: 32 streams that send as fast as they are answered."""
    import semcodec
    from semcodec.evaluation.records import FORM, PLAN, RECORDS
    from semcodec.pipeline import server as server_module
    from semcodec.pipeline import timing

    clock = type("Clock", (), {"perf_counter": staticmethod(time.process_time)})
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(server_module, "time", clock)
    [record] = semcodec.sweep(spec, {}, "digits-scenes", limit=96, offline=True)
    (tmp_path / PLAN).write_text(json.dumps({"bench": FORM}))
    (tmp_path / RECORDS).write_text(json.dumps(record) + "\n")
    plan = ["plan", "--results", str(tmp_path), "--streams", "32", "--fps", "1", "--use", "1", "--format", "json"]
    done = CliRunner().invoke(main, plan)
    assert done.exit_code == 0, done.output
    [found] = json.loads(done.stdout)["points"]
    from serving_load import cpu_seconds, load, records_of

    with ServerProcess(tmp_path, spec) as process:
        hello, records = records_of(spec)
        asyncio.run(load(process.url, hello, records, 32))
        taken = []
        for _ in range(3):
            begun = cpu_seconds(process)
            answered = asyncio.run(load(process.url, hello, records, 32))
            taken.append(1000 * (cpu_seconds(process) - begun) / answered)
    measured = statistics.median(taken)
    print(f"\n{spec}: {measured:.2f} ms of the processor a sample, {found['sample_ms']:.2f} foretold")
    assert found["sample_ms"] == pytest.approx(measured, rel=0.2)
