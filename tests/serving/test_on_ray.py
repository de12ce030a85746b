"""``semcodec serve --executor ray``: a cluster whose parts are taken away in mid-stream, one of the server's own, and
what is refused."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from serving_process import ServerProcess

import semcodec
from semcodec.cli import main
from semcodec.data.datasets import open_dataset

SPEC = "jpeg:40+vit-nano-server"
TWO_ROUNDS = "sdt:keep=20,sure=0.3+vit-nano-server"
DISTINCT = 50
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


def ray():
    return pytest.importorskip("ray", reason="needs Ray: pip install 'semcodec[ray]'")


def until(true, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "not within the time it should take"
        time.sleep(0.2)


def events(server: ServerProcess, event: str) -> list[dict]:
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def application(server: ServerProcess) -> str:
    return next(line["application"] for line in events(server, "waiting") if "application" in line)


def replicas(server: ServerProcess) -> list[int]:
    """Processes of its replicas."""
    name = f"ray::ServeReplica:{application(server)}:".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(name):
                found.append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.fixture
def cluster() -> Iterator:
    """Two nodes of one CPU each."""
    found = ray()
    whole = pytest.importorskip("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={**NODE, "include_dashboard": False}
    )
    try:
        whole.other = whole.add_node(**NODE)
        yield whole
    finally:
        found.shutdown()
        whole.shutdown()


def fallen(server: ServerProcess, cluster) -> Iterator[str]:
    """What is going on, again and again: replicas are killed until a batch is lost with one, and when there are two
    again a node is."""
    end = time.monotonic() + 300
    yield from ["it answers"] * 5
    known = len(events(server, "replicas"))
    while not events(server, "lost"):
        for one in replicas(server)[:1]:
            os.kill(one, signal.SIGKILL)
        yield from ["one is killed"] * 5
    for up in (1, 2, 1):
        while up not in (seen := [line["up"] for line in events(server, "replicas")[known:]]):
            assert time.monotonic() < end, events(server, "replicas")
            yield f"soon {up} answer"
        known += seen.index(up) + 1  # what came behind it may be what is waited for next
        if up == 2:
            cluster.remove_node(cluster.other, allow_graceful=False)
    yield from ["it answers"] * 10


@pytest.mark.slow
def test_a_replica_and_a_node_that_are_killed_cost_no_answer(cluster, tmp_path):
    """Every sample is answered once, as in one process; the cluster stays, without our deployment."""
    arguments = ("--executor", "ray", "--address", cluster.address, "--replicas", "2", "--log-format", "json")
    pipeline = semcodec.compose(SPEC, offline=True)
    pixels, _ = open_dataset("digits-scenes", "test", pipeline.request).batch(range(DISTINCT))
    due = [pipeline.decode(pipeline.encode(one)).logits for one in pixels]
    with ServerProcess(tmp_path, SPEC, *arguments) as server:
        until(lambda: events(server, "replicas") and events(server, "replicas")[-1]["up"] == 2, 240)
        assert len(replicas(server)) == 2
        steps = fallen(server, cluster)

        def samples() -> Iterator[np.ndarray]:
            """Without end until both are gone."""
            for number in count():
                if number % 20 == 0 and next(steps, None) is None:
                    break
                yield pixels[number % DISTINCT]

        with semcodec.connect(server.url, SPEC, offline=True, logits=True, patience_s=120) as link:
            answers = list(link.stream(samples()))
        assert events(server, "lost")
        assert sorted(answer.sequence for answer in answers) == list(range(len(answers)))
        assert {answer.outcome for answer in answers} == {"answered"}
        for answer in answers:
            assert np.allclose(answer.prediction.logits, due[answer.sequence % DISTINCT], atol=1e-4)
        assert server.metric('semcodec_records_total{outcome="failed"}') == 0
        name = application(server)
        assert server.stop() == 0
    ray().init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    from ray import serve

    assert name not in serve.status().applications
    assert replicas(server) == []


@pytest.mark.slow
def test_a_cluster_of_its_own_answers_two_rounds_and_is_gone_with_the_server(tmp_path):
    ray()
    whole = semcodec.compose(TWO_ROUNDS, offline=True)
    pixels, _ = open_dataset("digits-scenes", "test", whole.request).batch(range(12))
    with ServerProcess(tmp_path, TWO_ROUNDS, "--executor", "ray", "--log-format", "json") as server:
        assert server.get("/readyz")[0] == 200
        assert "to be started here" in events(server, "waiting")[0]["message"]
        with semcodec.connect(server.url, TWO_ROUNDS, offline=True, logits=True) as link:
            answers = sorted(link.stream(pixels), key=lambda answer: answer.sequence)
            server.get("/v1/streams")
            link.send(pixels[0])
            name = json.loads(server.get("/v1/streams")[1])["streams"][0]["name"]
            panels = json.loads(server.get(f"/v1/streams/{name}/panels")[1])["panels"]
        assert [panel["title"] for panel in panels] != []
        assert {answer.rounds for answer in answers} == {1, 2}
        for number, answer in enumerate(answers):
            assert answer.outcome == "answered", answer.error
            here = whole.decode(whole.encode_batch(pixels[number : number + 1], [number])[0])
            assert np.allclose(answer.prediction.logits, here.logits, atol=1e-4)
        running = replicas(server)
        assert running
        assert server.stop() == 0
    until(lambda: not any(Path(f"/proc/{one}").exists() for one in running), 20)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "here:6379"], "--address, --replicas and --num-gpus are for --executor ray"),
        (["--replicas", "2"], "--address, --replicas and --num-gpus are for --executor ray"),
        (["--num-gpus", "0.5"], "--address, --replicas and --num-gpus are for --executor ray"),
        (["--executor", "ray", "--device", "cuda"], "instead of --device cuda, --num-gpus"),
        (["--executor", "ray", "--device", "mps", "--num-gpus", "1"], "instead of --device mps, --num-gpus"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    done = CliRunner().invoke(main, ["serve", SPEC, *options])
    assert done.exit_code == 2
    assert message in done.stderr


@pytest.mark.parametrize("address", ["ray://here:10001", "here", ":6379", "here:"])
def test_what_is_no_address(address):
    ray()
    done = CliRunner().invoke(main, ["serve", SPEC, "--port", "0", "--executor", "ray", "--address", address])
    assert done.exit_code == 2
    assert f"--address {address}: expects HOST:PORT" in done.stderr


def test_no_cluster_is_one_line_at_once():
    ray()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    done = CliRunner().invoke(main, ["serve", SPEC, "--port", "0", "--executor", "ray", "--address", address])
    assert done.exit_code == 1
    assert re.fullmatch(rf"error: no Ray cluster at {address}: .*refused\n", done.stderr, re.IGNORECASE)
    assert time.monotonic() - began < 30


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = CliRunner().invoke(main, ["serve", SPEC, "--port", "0", "--executor", "ray"])
    assert done.exit_code == 1
    assert done.stderr.endswith("--executor ray needs Ray with Serve: pip install 'semcodec[ray]'\n")
