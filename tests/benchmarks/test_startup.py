"""How soon ``semcodec --help`` answers, beside the least that a command line with plugins must do.

Run with ``pytest tests/benchmarks/test_startup.py -s`` to see the ratio; the goal is 1.5.
"""

from __future__ import annotations

import subprocess
import sys
import time

ROUNDS = 7
GOAL = 1.5
HELP = [sys.executable, "-m", "semcodec", "--help"]
LEAST = [
    sys.executable,
    "-c",
    "import click, pluggy; from importlib.metadata import entry_points; entry_points(group='semcodec')",
]


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def test_help_answers_almost_as_soon_as_its_imports():
    seconds(HELP), seconds(LEAST)  # files into the cache
    # Side by side, and the best of each: what else the machine does only ever adds.
    pairs = [(seconds(HELP), seconds(LEAST)) for _ in range(ROUNDS)]
    ours, least = (min(times) for times in zip(*pairs, strict=True))
    print(f"\nsemcodec --help {1000 * ours:.0f} ms, click + pluggy + entry points {1000 * least:.0f} ms:", end=" ")
    print(f"ratio {ours / least:.2f} (goal {GOAL})")
    assert ours <= GOAL * least
