"""Checks of how a component behaves as a guest in the process, the same for every kind.

Each kind's module says by ``acts(subject)`` what its components do; here they do it silently, as copies, in several
threads at once and in another process.
"""

from __future__ import annotations

import copy
import io
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import torch
from torch import Tensor, nn

from semcodec.component import Component
from semcodec.testing.accelerators import CHECKS, check_accelerator
from semcodec.testing.acts import acts_of, digests
from semcodec.testing.side_effects import witness
from semcodec.testing.subject import Act, CheckFailed, Subject, describe, require
from semcodec.testing.subprocess import elsewhere

THREADS, ROUNDS, FEWEST, ROUNDS_S = 2, 20, 3, 0.5
"""How many threads there are, each with a sample of its own, and how often each goes through it; what is slow goes
through it ``FEWEST`` times and on for ``ROUNDS_S`` seconds, since threads meet by the time that they are at it."""
BYTES = ("encoder", "entropy", "selector")
"""Kinds whose results are bytes or choices; sums of floats may round otherwise in another process."""


def checks(component: Component) -> Iterator[Callable[[Subject], None]]:
    """The checks of a guest in the process, in the order in which a failure is best understood."""
    yield check_quiet
    yield check_copies
    yield check_threads
    if component.kind in BYTES:
        yield check_processes
    if component.kind in CHECKS:
        yield check_accelerator


def check_quiet(subject: Subject) -> None:
    """Loading, building and using it prints nothing, asks nothing of the network and changes no priority."""
    acts = acts_of(subject)
    heard = [*subject.heard]
    with witness(heard):
        for act in acts:
            act.do(act.who, 0)
    require(not heard, f"{'; '.join(dict.fromkeys(heard))}")


def check_copies(subject: Subject) -> None:
    """It can be pickled and deep-copied, and the copies do what it does, to the bit."""
    for act in acts_of(subject):
        wanted = act.do(act.who, 0)
        for what, copied in copies(act.who):
            require(act.do(copied, 0) == wanted, f"{act.what}: a {what} gives something else")


def copies(instance: Any) -> Iterator[tuple[str, Any]]:
    """(how, copy). A network's weights, which can always be copied, are shared."""
    shared = {}
    if isinstance(instance, nn.Module):
        shared = {id(t): t for t in (*instance.parameters(), *instance.buffers())}
    try:
        yield "deep copy", copy.deepcopy(instance, dict(shared))
    except Exception as error:
        require(False, f"cannot be deep-copied: {describe(error)}")
    try:
        file = io.BytesIO()
        _Pickler(file, shared).dump(instance)
        file.seek(0)
        restored = _Unpickler(file, shared).load()
    except Exception as error:
        require(False, f"cannot be pickled: {describe(error)}")
    yield "pickled copy", restored


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, shared: dict[int, Tensor]) -> None:
        super().__init__(file)
        self.shared = shared

    def persistent_id(self, obj: Any) -> int | None:
        return id(obj) if id(obj) in self.shared else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, shared: dict[int, Tensor]) -> None:
        super().__init__(file)
        self.shared = shared

    def persistent_load(self, pid: int) -> Tensor:
        return self.shared[pid]


def check_threads(subject: Subject) -> None:
    """Several threads that use one instance at once get the bytes and answers that each would get alone.

    An Encoder is used in whole pipelines, from pixels to logits.
    """
    for act in acts_of(subject, whole=True):
        start = Barrier(THREADS)

        def work(number: int, act: Act = act, start: Barrier = start) -> list[bytes]:
            start.wait()
            found: list[bytes] = []
            until = time.monotonic() + ROUNDS_S
            while len(found) < FEWEST or (len(found) < ROUNDS and time.monotonic() < until):
                found.append(act.do(act.who, number))
            return found

        at_once = f"where {THREADS} threads use it at once"
        with _eager_threads():
            wanted = [act.do(act.who, number) for number in range(THREADS)]
            try:
                with ThreadPoolExecutor(THREADS) as pool:
                    found = list(pool.map(work, range(THREADS)))
            except Exception as error:
                raise CheckFailed(f"{act.what}: {type(error).__name__} {at_once}: {error}") from error
        wrong = [data != wanted[number] for number, given in enumerate(found) for data in given]
        require(not any(wrong), f"{act.what}: other bytes or answers {at_once}, {sum(wrong)} of {len(wrong)} times")


@contextmanager
def _eager_threads() -> Iterator[None]:
    """Threads that often take turns; torch opens none of its own in them, which would wait for each other."""
    before, own = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-4)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        torch.set_num_threads(own)


def check_processes(subject: Subject) -> None:
    """Another process, with other hashes of strings, comes to the same bytes."""
    here = digests(subject)
    there = elsewhere(subject.component, [*subject.registry])
    require(here.keys() == there.keys(), f"another process knows it as {sorted(there)}, not as {sorted(here)}")
    wrong = [what for what in here if here[what] != there[what]]
    require(not wrong, f"{', '.join(wrong)}: another process comes to other bytes")
