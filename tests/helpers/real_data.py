"""Pictures, clips and weights that are not the project's own; a test that needs some skips where they are absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DEIT = "deit_tiny_patch16_224.fp16.safetensors"


def folder(*parts: str) -> str:
    """A file or folder below the one that SEMCODEC_DATA names."""
    root = os.environ.get("SEMCODEC_DATA")
    if not root or not Path(root, *parts).exists():
        pytest.skip(f"SEMCODEC_DATA names no folder with {'/'.join(parts)}")
    return str(Path(root, *parts))


def weights(name: str) -> str:
    """A file of the folder of weights beside that of data."""
    return folder("..", "weights", name)
