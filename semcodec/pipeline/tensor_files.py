"""Safetensors files that are complete or not there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from semcodec._files import whole_path


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file that is complete or not there. Raises OSError."""
    with whole_path(path) as written:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, written, dict(metadata))
        written.chmod(0o644)  # safetensors makes files that others cannot read
