"""Which libraries the two ends need beside semcodec's own."""

from __future__ import annotations

from importlib.util import find_spec

from semcodec.errors import PluginError


def check_serve() -> None:
    """Raise PluginError where a library of the server is missing."""
    _check("serve", "starlette", "uvicorn", "websockets", "prometheus_client")


def check_device() -> None:
    """Raise PluginError where a library of the device is missing."""
    _check("device", "websockets")


def _check(extra: str, *modules: str) -> None:
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise PluginError(f"needs {', '.join(missing)}: pip install 'semcodec[{extra}]'")
