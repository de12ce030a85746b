"""What the two ends trust: the word that a device shows, and the certificates that a server may have."""

from __future__ import annotations

import os
import re
import ssl
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


def trusting(ca: str | os.PathLike[str]) -> ssl.SSLContext:
    """TLS that trusts the certificates of a PEM file alone. Raises UsageError for a file that is none, OSError."""
    with open(ca, "rb"):
        pass
    try:
        return ssl.create_default_context(cafile=os.fspath(ca))
    except ssl.SSLError as error:
        raise UsageError(f"{os.fspath(ca)}: holds no certificates ({error.reason or error})") from error
