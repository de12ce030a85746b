"""``semcodec serve`` and ``semcodec send`` from the outside: TLS, limits, draining, logs, inputs, what is printed."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from serving_process import TOKEN, ServerProcess, free_port

import semcodec
from semcodec.cli import main
from semcodec.errors import LinkError

SPEC = "jpeg:40+vit-nano-server"
PIXELS = np.zeros((96, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder) -> Iterator[ServerProcess]:
    """With TLS and a token, two streams at most, and 100 samples a second of each."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    (folder / "token").write_text(TOKEN)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    options = ["--token-file", str(folder / "token"), "--log-format", "json", "--max-streams", "2"]
    options += ["--max-samples-per-s", "100", "--tls-cert", str(folder / "cert.pem"), "--tls-key"]
    with ServerProcess(folder, SPEC, *options, str(folder / "key.pem")) as process:
        yield process


def send(folder: Path, server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``semcodec send`` in a process of its own."""
    command = [sys.executable, "-m", "semcodec", "send", SPEC, *arguments, "--to", server.url, "--offline"]
    command += ["--token-file", str(folder / "token"), "--ca", str(folder / "cert.pem")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


def test_a_data_set_is_sent_over_tls_and_scored(folder, server):
    record = folder / "out.jsonl"
    done = send(folder, server, "digits-scenes", "--limit", "20", "--format", "json", "--record", str(record))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    answers, summary = lines[:-1], lines[-1]["summary"]
    assert [json.loads(line) for line in record.read_text().splitlines()] == answers
    assert sorted(answer["input"] for answer in answers) == sorted(f"digits-scenes/test/{i}" for i in range(20))
    expected = semcodec.compose(SPEC, offline=True).evaluate("digits-scenes", limit=20)
    assert summary["top1"] == expected["top1"] == sum(answer["top1"] for answer in answers) / 20
    assert summary["bytes_total"] == expected["bytes_total"]
    assert summary["bits"] == 8 * summary["bytes_total"]
    assert (summary["samples"], summary["sent"], summary["answered"]) == (20, 20, 20)
    assert (summary["late"], summary["failed"], summary["dropped"], summary["resent"]) == (0, 0, 0, 0)
    assert summary["bytes_up"] > 20 * summary["bytes_total"]
    for part in ("total", "device", "link", "queue", "server"):
        ms = summary["ms"][part]
        assert 0 <= ms["p50"] <= ms["p95"] <= ms["p99"]
    assert len(answers[0]["logits"]) == 10


def test_files_and_folders_are_sent(folder, server):
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(3):
        Image.new("RGB", (200, 100), (80 * number, 0, 0)).save(pictures / f"{number}.png")
    inputs = [str(pictures), str(pictures / "1.png"), "digits-scenes:3"]
    trust = ["--token-file", str(folder / "token"), "--ca", str(folder / "cert.pem")]
    command = ["send", SPEC, *inputs, "--to", server.url, *trust, "--deadline-ms", "60000", "--offline"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    for named in ("0.png", "1.png", "2.png", "digits-scenes/test/3  1  "):
        assert named in done.output
    assert "5 of 5 samples: 5 answered" in done.output
    assert "accuracy" not in done.output
    (pictures / "0a.png").write_bytes(b"no picture")
    stopped = CliRunner().invoke(main, command)
    assert stopped.exit_code == 1 and "1 of 1 samples: 1 answered" in stopped.output
    gone_on = CliRunner().invoke(main, [*command, "--keep-going"])
    assert gone_on.exit_code == 1 and "5 of 5 samples: 5 answered" in gone_on.output
    assert f"passed over {pictures / '0a.png'}: " in gone_on.stderr


def test_a_film_on_stdin_is_a_camera(folder, server):
    """The newest picture is sent, and those in whose place it was are counted."""
    film = BytesIO()
    with av.open(film, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(60):
            picture = np.full((96, 128, 3), 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    trust = ["--token-file", str(folder / "token"), "--ca", str(folder / "cert.pem")]
    command = ["send", SPEC, "-", "--to", server.url, *trust, "--format", "json", "--offline"]
    done = CliRunner().invoke(main, command, input=film.getvalue())
    assert done.exit_code == 0, done.output
    *answers, last = [json.loads(line) for line in done.stdout.splitlines()]
    summary = last["summary"]
    assert len(answers) == summary["answered"] >= 1
    assert summary["answered"] + summary["dropped"] == 60
    assert all(answer["input"].startswith("-@") for answer in answers)
    assert "top1" not in summary


def test_a_server_that_one_does_not_trust_is_not_sent_to(folder, server):
    with pytest.raises(LinkError, match=r"cannot be reached \(.*certificate"):
        semcodec.connect(server.url, SPEC, token=TOKEN, offline=True).__enter__()
    with pytest.raises(LinkError, match="cannot be reached"):
        semcodec.connect(server.url.replace("wss", "ws"), SPEC, token=TOKEN, offline=True).__enter__()


def test_no_more_streams_than_allowed_and_none_faster(folder, server):
    def opened():
        return semcodec.connect(server.url, SPEC, token=TOKEN, ca=folder / "cert.pem", offline=True, patience_s=0.5)

    with opened() as first, opened():
        first.send(PIXELS)
        began = time.monotonic()
        with pytest.raises(LinkError, match="2 streams are open, and no more are allowed; try again later"):
            opened().__enter__()
        assert time.monotonic() - began >= 0.5, "it tries again for as long as it has patience"
        began = time.monotonic()
        assert sum(answer.outcome == "answered" for answer in first.stream(PIXELS for _ in range(61))) == 61
        assert time.monotonic() - began >= 0.55
    with opened() as again:
        assert again.send(PIXELS).outcome == "answered"


def test_sigterm_answers_what_is_in_flight_takes_no_more_and_ends_with_0(folder, server):
    """Last of the tests that use the server."""
    trust = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
    https = server.url.replace("wss", "https")
    assert opener.open(f"{https}/readyz", timeout=20).status == 200
    answers, error = [], None
    link = semcodec.connect(server.url, SPEC, token=TOKEN, ca=folder / "cert.pem", offline=True, patience_s=1.0)
    code: list[int] = []
    with link as open_link:
        try:
            for answer in open_link.stream(PIXELS for _ in range(10_000)):
                answers.append(answer)
                if len(answers) == 20:
                    ending = threading.Thread(target=lambda: code.append(server.stop()))
                    ending.start()
        except LinkError as raised:
            error = raised
    ending.join()
    assert code == [0]
    assert "cannot be reached" in str(error)
    assert 20 <= len(answers) < 10_000
    assert {answer.outcome for answer in answers} == {"answered"}
    log = [json.loads(line) for line in server.log.read_text().splitlines()]
    events = [line["event"] for line in log]
    assert events[0] == "listening"
    assert events[-1] == "stopped"
    assert {"opened", "draining", "detached"} <= set(events)
    received = [line for line in log if line["event"] == "detached"][-1]
    assert received["received"] == received["answered"], "nothing that was read is left unanswered"
    assert TOKEN not in server.log.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", SPEC, "--tls-cert", "x"], "--tls-cert and --tls-key go together"),
        (["serve", SPEC, "--tls-cert", "none.pem", "--tls-key", "none.pem"], "no such file: none.pem"),
        (["serve", "jpeg:1+vit-nano-server", SPEC], "two SPECs name the same models"),
        (["serve", "nothing+vit-nano-server"], "nothing"),
        (["serve", SPEC, "--host", "no.such.host.invalid"], "cannot listen at no.such.host.invalid:8765"),
        (["send", SPEC, "-", "digits-scenes", "--to", "ws://127.0.0.1:1"], "- has no end, and there are other inputs"),
        (["send", SPEC, "-", "--fps", "3", "--to", "ws://127.0.0.1:1"], "a camera keeps its own pace"),
        (["send", SPEC, "digits-scenes:0", "--to", "http://127.0.0.1:1"], "a server's address is ws://HOST:PORT"),
        (["send", SPEC, "digits-scenes:0", "--to", "ws://127.0.0.1:99999"], "ws://127.0.0.1:99999"),
        (["send", SPEC, "digits-scenes", "--window", "4", "--to", "ws://127.0.0.1:1"], "is a data set"),
    ],
)
def test_wrong_requests_are_one_line_and_exit_2(arguments, said):
    done = CliRunner().invoke(main, [*arguments, "--offline"])
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digits-scenes:0"], "cannot be reached (Connect call failed"),
        (["nothing.png"], "no such file or data set: nothing.png"),
        (["file:///nothing.ts"], "cannot be read as video"),
    ],
)
def test_what_is_not_there_is_one_line_and_exit_1(arguments, said):
    url = f"ws://127.0.0.1:{free_port()}"
    done = CliRunner().invoke(main, ["send", SPEC, *arguments, "--to", url, "--offline"])
    assert done.exit_code == 1, done.output
    assert said in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "token", ["", "short", "two words of a token", "a-token\nof-two-lines-of-text", "tökens-of-16-characters"]
)
def test_a_token_is_one_line_that_cannot_be_guessed(tmp_path, token):
    (tmp_path / "token").write_text(token)
    done = CliRunner().invoke(main, ["serve", SPEC, "--token-file", str(tmp_path / "token")])
    assert done.exit_code == 2
    assert "a token is one line of 16 to 1024 visible ASCII characters" in done.output


def test_a_port_that_is_taken_is_one_line(server):
    done = CliRunner().invoke(
        main, ["serve", SPEC, "--port", "1" if os.geteuid() else str(free_port()), "--host", "1.2.3.4"]
    )
    assert done.exit_code == 2
    assert "cannot listen at 1.2.3.4" in done.output


def test_without_the_extra_the_command_says_what_to_install(monkeypatch):
    from semcodec.serving import extras

    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    for arguments, extra in (
        (["serve", SPEC], "serve"),
        (["send", SPEC, "digits-scenes:0", "--to", "ws://h:1"], "device"),
    ):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 1
        assert f"pip install 'semcodec[{extra}]'" in done.output
