"""The names that timm has, from a list that ships here, so that a misspelt one is refused without timm and torch.

``python -m semcodec_plugins.timm_models.names`` writes the list anew from the timm that is installed.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files

from semcodec.data.notes import note
from semcodec.errors import UsageError, did_you_mean

LIST = "names.txt"


@cache
def listed() -> tuple[str, frozenset[str]]:
    """The version of timm that the list was made from, and the names of its models, without tags."""
    first, *names = (files(__package__) / LIST).read_text(encoding="utf-8").split("\n")
    return first.removeprefix("# timm ").strip(), frozenset(filter(None, names))


def check(model: str) -> None:
    """Raise UsageError for a name that timm has not. A newer timm may have others: a note says so."""
    made_from, names = listed()
    name = model.partition(".")[0]
    if name in names:
        return
    try:
        here = version("timm")
    except PackageNotFoundError:
        here = made_from
    if _ordered(here) > _ordered(made_from):
        note(f"timm/{name}: not among the names of timm {made_from}, which are listed here; timm {here} may have it")
        return
    hint = did_you_mean(name, names, "timm.list_models() has all", most=3)
    raise UsageError(f"timm {made_from} has no model {name!r}: {hint}")


def _ordered(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)[:3]]


def current() -> str:
    """What the list would be for the timm that is installed."""
    import timm

    return "\n".join([f"# timm {timm.__version__}", *sorted(timm.list_models())]) + "\n"


if __name__ == "__main__":
    from pathlib import Path

    Path(str(files("semcodec_plugins.timm_models") / LIST)).write_text(current(), encoding="utf-8")
