"""Safetensors files that are complete or not there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file that is complete or not there."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, dict(metadata))
        temporary.chmod(0o644)  # safetensors makes files that others cannot read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
