"""Safetensors files that are complete or not there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from semcodec._files import whole_path
from semcodec.errors import first_line


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file that is complete or not there. Raises OSError."""
    with whole_path(path) as written:
        try:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, written, dict(metadata))
        except SafetensorError as error:  # its own kind even for a full disk
            number = re.search(r"\(os error (\d+)\)", str(error))
            if number is None:
                raise OSError(first_line(error)) from error
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(written)) from error
        written.chmod(0o644)  # safetensors makes files that others cannot read
