"""What a plugin may do while it is loaded: take some time, print to stderr, and fail by its own name.

The bounds hold what is written in Python. What ends the process from elsewhere, a fault in an extension module say, is
named by the traceback that is written then.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from types import FrameType
from typing import NoReturn

SECONDS = 30.0
"""That a plugin may take to load and to say what it has."""
COMPONENTS = 1000
"""That a plugin may have."""


class TooSlow(BaseException):
    """A plugin is not done in time; no ``Exception``, so that its own handlers let it pass."""


@contextmanager
def supervised() -> Iterator[None]:
    """Load a plugin inside: prints go to stderr, and ``os._exit`` and what never ends are exceptions."""
    with prints_to_stderr(), _named_faults(), _no_exit(), _in_time():
        yield


def prints_to_stderr() -> AbstractContextManager[object]:
    """What plugins print is no part of what a command says. In the main thread alone: there is one stdout for all."""
    return redirect_stdout(sys.stderr) if _in_main_thread() else nullcontext()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _named_faults() -> Iterator[None]:
    if faulthandler.is_enabled():
        yield
        return
    try:
        faulthandler.enable(2)
    except (OSError, ValueError, RuntimeError):  # no stderr
        yield
        return
    try:
        yield
    finally:
        faulthandler.disable()


@contextmanager
def _no_exit() -> Iterator[None]:
    """``os._exit`` raises SystemExit here, and nowhere else: what a plugin kept of it ends children and the end."""
    leave, here, loading = os._exit, (os.getpid(), threading.get_ident()), True

    def refuse(status: int) -> NoReturn:
        if loading and (os.getpid(), threading.get_ident()) == here:
            raise SystemExit(f"os._exit({status})")
        leave(status)

    os._exit = refuse
    try:
        yield
    finally:
        os._exit, loading = leave, False


@contextmanager
def _in_time() -> Iterator[None]:
    """Raises TooSlow, again and again; only where signals reach Python, which is the main thread."""
    if not hasattr(signal, "setitimer") or not _in_main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise TooSlow(f"not loaded after {SECONDS:g} s")

    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, SECONDS, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # someone else's alarm goes on
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, left - (time.monotonic() - began)), interval)
