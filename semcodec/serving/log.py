"""A server's log: one line an event on stderr, as words or as JSON."""

from __future__ import annotations

import sys
import time
import traceback
from typing import Any, TextIO

from semcodec._json import to_json


class Log:
    """form: "text" or "json". Values are of this program or were checked: no secret and no control character."""

    def __init__(self, form: str = "text", file: TextIO | None = None) -> None:
        self.form, self.file = form, file

    def __call__(self, event: str, **values: Any) -> None:
        """One line."""
        now = time.time()
        if self.form == "json":
            line = to_json({"time": round(now, 3), "event": event, **values})
        else:
            told = " ".join(f"{name}={value}" for name, value in values.items())
            line = f"{time.strftime('%H:%M:%S', time.localtime(now))} {event}" + (f" {told}" if told else "")
        print(line, file=self.file or sys.stderr, flush=True)

    def fault(self, error: BaseException) -> None:
        """An error that is ours, with where it was raised."""
        where = "".join(traceback.format_exception(error))
        self("fault", error=f"{type(error).__name__}: {error}".splitlines()[0], traceback=where)
