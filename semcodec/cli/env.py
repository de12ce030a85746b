"""``semcodec env``."""

from __future__ import annotations

from typing import Any

import click

from semcodec._version import __version__
from semcodec.cli import options
from semcodec.cli.output import ABSENT, echo_fields, echo_json


@click.command()
@options.as_json
def command(form: str) -> None:
    """Show versions, threads, folders and plugin packages, as a report of a problem should have them."""
    found = environment()
    if form == "json":
        echo_json(found)
        return
    packages = ", ".join(f"{name} {version or ABSENT}" for name, version in found["packages"].items())
    plugins = ", ".join(f"{name} {version}" for name, version in found["plugins"].items())
    fields = {**found, "packages": packages, "plugins": plugins or "none"}
    fields["variables"] = ", ".join(f"{name}={value}" for name, value in found["variables"].items()) or "none"
    echo_fields(fields.items())


def environment() -> dict[str, Any]:
    """What matters for a run, without importing any of it."""
    import os
    import platform
    import re
    from importlib.metadata import PackageNotFoundError, entry_points, requires, version

    from semcodec._cache import cache_folder
    from semcodec.hookspecs import GROUP

    packages: dict[str, str | None] = {}
    try:
        needed = requires("semcodec") or []
    except PackageNotFoundError:  # run from a folder that was never installed
        needed = []
    for requirement in needed:
        name = re.split(r"[^A-Za-z0-9._-]", requirement)[0]
        if name == "semcodec":
            continue
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "semcodec": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "cache": str(cache_folder("weights") or ""),
        "packages": packages,
        "plugins": {ep.dist.name: ep.dist.version for ep in entry_points(group=GROUP) if ep.dist},
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith("SEMCODEC_") or name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        },
    }
