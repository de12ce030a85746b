"""Whether a server can be reached at all, known in seconds rather than after a client's many tries."""

from __future__ import annotations

import socket
import threading

from semcodec.errors import SemcodecError, UsageError, first_line

HUB = "https://huggingface.co"
"""Where the hub is, unless ``HF_ENDPOINT`` names another."""
PATIENCE = 5.0
"""Seconds in which a server answers at all."""


def unreachable(address: str) -> str | None:
    """Why no connection to the server of an address, or to the proxy that stands for it, can be made; None if it can.

    Known after a few seconds, whatever the name server does.
    """
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    asked = urlsplit(address)
    proxy = getproxies().get(asked.scheme)
    if proxy and not proxy_bypass(asked.hostname or ""):
        asked = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    found = [f"{asked.hostname} does not answer"]

    def connect() -> None:
        port = asked.port or (80 if asked.scheme == "http" else 443)
        try:
            socket.create_connection((asked.hostname or "", port), PATIENCE).close()
        except OSError as error:
            found[:] = [f"{asked.hostname} cannot be reached: {error.strerror or error}"]
        else:
            found.clear()

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return next(iter(found), None)


def check_cluster(address: str) -> None:
    """Raise UsageError for what is no address of a Ray cluster, SemcodecError where nobody listens.

    Ray itself would ask for ten minutes. "auto" is for Ray to find.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdecimal():
        raise UsageError(f"--address {address}: expects HOST:PORT of a Ray cluster's head, or auto")
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise SemcodecError(f"no Ray cluster at {address}: {first_line(error)}") from error
