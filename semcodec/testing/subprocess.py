"""A second process that does what a component does here: started once, on first use, and asked for one after another.

It hashes strings otherwise than this process, so that orders of sets differ, and has the same number of threads.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from typing import IO, Any

from semcodec.component import Component
from semcodec.testing.acts import digests
from semcodec.testing.subject import CheckFailed, Subject


def elsewhere(component: Component, companions: Sequence[Component]) -> dict[str, str]:
    """The ``digests`` of the component there. Raises CheckFailed with the reason where there are none."""
    import torch

    there = _process()
    assert there.stdin is not None and there.stdout is not None
    try:
        pickle.dump((component, companions, torch.get_num_threads()), there.stdin)
        there.stdin.flush()
        result = pickle.load(there.stdout)
    except (EOFError, OSError) as error:
        _process.cache_clear()
        raise CheckFailed(f"another process that is asked for it ends with exit code {there.wait()}") from error
    if isinstance(result, str):
        raise CheckFailed(f"another process cannot use it: {result}")
    found: dict[str, str] = result
    return found


@cache
def _process() -> subprocess.Popen[bytes]:
    """Ends when its input does, with this process."""
    seed = os.environ.get("PYTHONHASHSEED", "0")
    other = str((int(seed) + 1) % 2**32) if seed.isdigit() else "1"
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-m", "semcodec.testing.subprocess"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": other},
    )


def _serve(requests: IO[bytes], results: IO[bytes]) -> None:
    from semcodec.composition.registry import Registry

    while True:
        try:
            component, companions, threads = pickle.load(requests)
        except EOFError:
            return
        try:
            result: Any = _digests(component, Registry.of(companions), threads)
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
        pickle.dump(result, results)
        results.flush()


def _digests(component: Component, registry: Any, threads: int) -> dict[str, str]:
    import torch

    torch.set_num_threads(threads)
    return digests(Subject(component, registry))


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed shall not come between the answers
    _serve(sys.stdin.buffer, answers)
