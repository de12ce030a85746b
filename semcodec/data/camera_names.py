"""Which inputs are cameras; reads none, so that a device of files needs nothing that reads video."""

from __future__ import annotations

import os
import stat


def is_camera(text: str) -> bool:
    """Whether an input is read as it comes, at its own pace: ``-``, a URL, a device or a pipe."""
    if text == "-" or "://" in text:
        return True
    try:
        mode = os.stat(text).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)
