"""What is named as a device without torch, and imports it."""

from __future__ import annotations

import torch  # noqa: F401
from conformance.in_numpy import RowsInNumpy

__all__ = ["RowsInNumpy"]
