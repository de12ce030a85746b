"""A real ``semcodec serve`` in a process of its own, what breaks the link to it, and a stream that must not notice."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

TOKEN = "a-token-that-only-tests-know"
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class ServerProcess:
    """``semcodec serve`` on loopback; ``url`` once it answers. folder: for its log."""

    def __init__(self, folder: Path, *arguments: str, port: int = 0) -> None:
        self.folder, self.arguments, self.port = folder, arguments, port
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "SEMCODEC_CACHE": ""}
        command = [sys.executable, "-m", "semcodec", "serve", *self.arguments, "--offline", "--port", str(self.port)]
        self.log = self.folder / f"serve-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, self.log.read_text()
        self.port = int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """As a power cut does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def get(self, path: str, token: str | None = TOKEN) -> tuple[int, str]:
        """Over HTTP: status and text."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with NO_PROXY.open(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """One value of /metrics, named with its labels."""
        lines = self.get("/metrics")[1].splitlines()
        [value] = [line.rpartition(" ")[2] for line in lines if line.rpartition(" ")[0] == name]
        return float(value)

    def memory(self) -> int:
        """Bytes that are resident."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()


class Relay:
    """Carries bytes to a server as a bad link does: ``cut`` breaks every connection, ``stalled`` holds all back."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.stalled = False
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._cut = threading.Event()
        self._ended = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        self._cut.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._thread.join()

    def _run(self) -> None:
        while not self._ended:
            ready = self._selector.select(0.02)
            if self._cut.is_set():
                self._cut.clear()
                self.cuts += bool(self._pairs)
                for one in list(self._pairs):
                    self._drop(one)
                continue
            if self.stalled:
                time.sleep(0.02)
                continue
            for key, _ in ready:
                self._pass(key.fileobj)  # type: ignore[arg-type]
        for one in list(self._pairs):
            self._drop(one)
        self._listener.close()

    def _pass(self, one: socket.socket) -> None:
        if one is self._listener:
            near, _ = one.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                return
            for a, b in ((near, far), (far, near)):
                self._pairs[a] = b
                self._selector.register(a, selectors.EVENT_READ)
        elif one in self._pairs:
            try:
                data = one.recv(1 << 16)
                if data:
                    self._pairs[one].sendall(data)
                    return
            except OSError:
                pass
            self._drop(one)

    def _drop(self, one: socket.socket) -> None:
        for end in (one, self._pairs.get(one)):
            if end is not None and self._pairs.pop(end, None) is not None:
                self._selector.unregister(end)
                # A reset rather than an orderly end, as when a link breaks.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                end.close()


class Witness:
    """Another stream, beside whatever is done to the server: at the end every sample of it has had its answer in time.

    link: an open ``Link``. sample: what it sends, again and again.
    """

    def __init__(self, link, sample, most_ms: float = 3000.0) -> None:
        self.link, self.sample, self.most_ms = link, sample, most_ms
        self.answers: list = []
        self._error: BaseException | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self._ended.wait(0.02):
                self.answers.append(self.link.send(self.sample))
        except BaseException as error:
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        time.sleep(0.2)
        self._ended.set()
        self._thread.join(30)
        if error is not None:
            return
        if self._error is not None:
            raise self._error
        assert len(self.answers) >= 2
        assert {answer.outcome for answer in self.answers} == {"answered"}
        assert max(answer.total_ms for answer in self.answers[1:]) < self.most_ms
