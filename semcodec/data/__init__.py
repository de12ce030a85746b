"""Data sets by name or folder, and single inputs. Importing this imports nothing heavy.

``open_dataset("digits-motion", "test", InputRequest(16, 96, 96)).batch([0, 1, 2])`` gives pixels and labels.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "SPLITS": "base",
    "Dataset": "base",
    "Digest": "base",
    "Input": "inputs",
    "Part": "parts",
    "check_dataset": "datasets",
    "check_input": "inputs",
    "classes_of": "inputs",
    "describe": "description",
    "open_dataset": "datasets",
    "open_input": "inputs",
    "open_unlabelled": "datasets",
    "open_windows": "inputs",
    "rows": "datasets",
}
"""By public name, the module that has it, which is imported when the name is asked for."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"semcodec.data.{_HOMES[name]}"), name)
    from semcodec._moved import moved_name

    return moved_name(__name__, name)
