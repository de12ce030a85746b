"""Two rounds over a real network: the answers of one process, from a device without the server's model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
from serving_process import Relay, ServerProcess

import semcodec
from semcodec.data.datasets import open_dataset

SPECS = ("sdt:keep=20,sure=0.3+vit-nano-server", "a-mot:first=20,keep=40,sure=2.3+vit-nano-server")
SAMPLES = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), *SPECS) as process:
        yield process
        assert process.stop() == 0


@pytest.mark.parametrize("spec", SPECS)
def test_answers_are_those_of_one_process(server, spec):
    whole = semcodec.compose(spec, offline=True)
    pixels, _ = open_dataset("digits-scenes", "test", whole.request).batch(range(SAMPLES))
    with semcodec.connect(server.url, spec, offline=True, logits=True) as link:
        assert all(tensor.is_meta for tensor in link.device.encoder.server.parameters())
        answers = sorted(link.stream(pixels), key=lambda answer: answer.sequence)
    rounds = [answer.rounds for answer in answers]
    assert {1, 2} == set(rounds), "the server must have been sure of some and not of others"
    for number, answer in enumerate(answers):
        due = whole.encode_batch(pixels[number : number + 1], [number])[0]
        assert answer.outcome == "answered", answer.error
        assert np.allclose(answer.prediction.logits, whole.decode(due).logits, atol=1e-4)
        assert answer.rounds == 1 or answer.encoded.kept["keep"] == due.kept["keep"]
        assert (answer.reply_bytes > 0) == (answer.rounds == 2)
        assert answer.ms["look"] > 0 or answer.rounds == 1
        assert answer.total_ms > 0
        # What a file counts as a reply, and of sdt as a request, is not sent up; the head of a packet is, twice.
        assert abs(answer.encoded.bytes_total - due.bytes_total) < 24


@pytest.mark.parametrize("spec", SPECS)
def test_a_link_that_is_cut_between_two_rounds_loses_nothing(server, spec):
    with Relay(server.port) as relay, semcodec.connect(relay.url, spec, offline=True) as link:
        pixels, _ = open_dataset("digits-scenes", "test", link.request).batch(range(SAMPLES))
        answers = []
        for number, answer in enumerate(link.stream(pixel for _ in range(4) for pixel in pixels)):
            answers.append(answer)
            if number % 6 == 5:
                relay.cut()
                time.sleep(0.05)
    assert sorted(answer.sequence for answer in answers) == list(range(4 * SAMPLES))
    assert {answer.outcome for answer in answers} == {"answered"}
    assert relay.cuts > 1
    assert server.metric("semcodec_replies_total") > 0


def test_nothing_is_encoded_once_a_stream_is_left(server, monkeypatch):
    with semcodec.connect(server.url, SPECS[0], offline=True) as link:
        pixels, _ = open_dataset("digits-scenes", "test", link.request).batch(range(SAMPLES))
        submit, encoding = link.submit, []

        def slowly(*args, **options):
            encoding.append(True)
            time.sleep(0.05)
            future = submit(*args, **options)
            encoding.pop()
            return future

        monkeypatch.setattr(link, "submit", slowly)
        for _ in range(5):
            answers = link.stream(pixel for _ in range(100) for pixel in pixels)
            assert next(answers).outcome == "answered"
            answers.close()
            assert not encoding
            time.sleep(0.1)
            assert not encoding


def test_the_command_prints_bytes_both_ways(server):
    command = [sys.executable, "-m", "semcodec", "send", SPECS[0], "digits-scenes", "--limit", "6", "--to", server.url]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--format", "json", "--offline"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    *answers, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert {answer["rounds"] for answer in answers} == {1, 2}
    assert all((answer["reply_bytes"] > 0) == (answer["rounds"] == 2) for answer in answers)
    assert last["summary"]["bytes_up"] > sum(answer["bytes_total"] for answer in answers)
    assert last["summary"]["bytes_down"] > sum(answer["reply_bytes"] for answer in answers) > 0
