"""Which part of a long file is looked at, and in what windows."""

from __future__ import annotations

from dataclasses import dataclass

from semcodec.errors import UsageError


@dataclass(frozen=True)
class Part:
    """Of a video file.

    start, duration: in seconds; without a duration up to the end. window, stride: in frames; without a window the part
    is one, without a stride a window begins where the one before ends. Raises UsageError for what is none.
    """

    start: float = 0.0
    duration: float | None = None
    window: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < 1e9 or (self.duration is not None and not 0 < self.duration < 1e9):
            raise UsageError("a part of a video begins at 0 seconds or later and lasts more than none")
        if (self.window is not None and self.window < 1) or (self.stride is not None and self.stride < 1):
            raise UsageError("a window and a stride are 1 frame or more")
        if self.stride is not None and self.window is None:
            raise UsageError("a stride is from one window to the next: give a window too")
