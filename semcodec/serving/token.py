"""The word that a device shows and a server knows."""

from __future__ import annotations

import re
from pathlib import Path

from semcodec._files import read_regular
from semcodec.errors import UsageError

MOST = 1024


def read_token(path: Path) -> str:
    """A token file's one line. Raises UsageError for none, OSError where it cannot be read."""
    try:
        text = read_regular(path, MOST + 2).decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not re.fullmatch(rf"[!-~]{{16,{MOST}}}", text):
        raise UsageError(
            f"{path}: a token is one line of 16 to {MOST} visible ASCII characters, as of: openssl rand -hex 32"
        )
    return text
