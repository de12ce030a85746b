"""Who prints, asks the network or takes priority, seen from inside the process and from outside of Python alike."""

from __future__ import annotations

import io
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any
from unittest.mock import patch

SHOWN = 80
"""Characters of what was printed that a message repeats."""


def _policy() -> int | None:
    """By which the calling thread is scheduled; None where that is not to be told."""
    return os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None


POLICY = _policy()
"""Before any component was loaded, as what one of them changes stays changed."""


@contextmanager
def witness(heard: list[str]) -> Iterator[None]:
    """Append to ``heard`` what is printed inside and which addresses are asked for, each as one phrase.

    Also a change of priority: at real-time priority, which some libraries take where root runs them, a process keeps
    all others off the cores. No address is reached: asking fails as without a network. Warnings are no prints.
    """
    asked: list[str] = []

    def refuse(address: Any) -> None:
        asked.append(f"asks the network for {address!r}")
        raise OSError("there is no network while components are checked")

    def connect(self: socket.socket, address: Any) -> None:
        refuse(address)

    def look_up(host: Any, *arguments: Any, **others: Any) -> None:
        refuse(host)

    with ExitStack() as stack:
        written = [stack.enter_context(_descriptor(number)) for number in (1, 2)]
        out, err = io.StringIO(), io.StringIO()
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(patch.object(socket.socket, "connect", connect))
        stack.enter_context(patch.object(socket.socket, "connect_ex", connect))
        stack.enter_context(patch.object(socket, "getaddrinfo", look_up))
        try:
            yield
        finally:
            for name, texts in (("stdout", (out.getvalue(), written[0]())), ("stderr", (err.getvalue(), written[1]()))):
                heard += [f"prints {text.strip()[:SHOWN]!r} to {name}" for text in texts if text.strip()]
            heard += asked
            if _policy() != POLICY:
                heard.append(f"changes how the process is scheduled: by policy {_policy()}, not {POLICY}")


@contextmanager
def _descriptor(number: int) -> Iterator[Any]:
    """Divert what C code writes; gives a function that reads it."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        before = os.dup(number)
    except OSError:  # closed, as under a daemon
        yield lambda: ""
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), number)

        def written() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield written
        finally:
            os.dup2(before, number)
            os.close(before)
