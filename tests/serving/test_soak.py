"""Half an hour of cuts: nothing grows, and every file is answered once.

SEMCODEC_SOAK_S is another number of seconds.
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from serving_process import Relay, ServerProcess

import semcodec

SECONDS = float(os.environ.get("SEMCODEC_SOAK_S", "1800"))
SPEC = "jpeg:40+vit-nano-server"
MEGABYTE = 10**6


def own_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 900)
def test_nothing_grows_and_every_file_is_answered_once(tmp_path):
    """Four devices, of which each sends file after file and begins a new link every few hundred, through links that are
    cut or stall at random. What is held is compared between a sixth of the time and the end."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    end = time.monotonic() + SECONDS
    counts: list[tuple[int, int, int]] = []
    errors: list[BaseException] = []

    def device(url: str) -> None:
        try:
            while time.monotonic() < end:
                with semcodec.connect(url, SPEC, offline=True, patience_s=120) as link:
                    answers = list(link.stream((pixels for _ in range(400)), fps=40))
                    statistics = link.statistics
                assert sorted(answer.sequence for answer in answers) == list(range(400))
                assert {answer.outcome for answer in answers} == {"answered"}
                counts.append((len(answers), statistics["connections"], statistics["resent"]))
        except BaseException as error:
            errors.append(error)

    with ServerProcess(tmp_path, SPEC, "--idle-s", "10") as server, Relay(server.port) as relay:
        threads = [threading.Thread(target=device, args=(relay.url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        draw, early = random.Random(0), None
        while any(thread.is_alive() for thread in threads):
            time.sleep(draw.uniform(1.0, 3.0))
            if draw.random() < 0.05:
                relay.stalled = True
                time.sleep(draw.uniform(0.5, 5.0))
                relay.stalled = False
            elif time.monotonic() < end:
                relay.cut()
            if early is None and time.monotonic() > end - SECONDS * 5 / 6:
                early = server.memory(), own_memory()
        if errors:
            raise errors[0]
        assert early is not None
        grown = server.memory() - early[0], own_memory() - early[1]
        # Sessions whose goodbye was cut off are forgotten when they have been idle.
        until = time.monotonic() + 40
        while server.metric("semcodec_sessions_detached") or server.metric("semcodec_streams"):
            assert time.monotonic() < until
            time.sleep(0.5)
        files, connections, resent = (sum(values) for values in zip(*counts, strict=True))
        print(
            f"\n{files:,} files in {SECONDS:.0f} s over {connections:,} connections, {relay.cuts:,} cuts, {resent:,} "
            f"sent again; memory {grown[0] / 1e6:+.1f} MB at the server, {grown[1] / 1e6:+.1f} MB here"
        )
        assert files >= 400 * len(threads)
        assert relay.cuts >= SECONDS / 10
        assert grown[0] < 30 * MEGABYTE
        assert grown[1] < 60 * MEGABYTE
        assert server.descriptors() < 60
        assert server.threads() < 40
        assert server.stop() == 0
