"""PyAV, or the line that says how to get it: one place, for all that reads or writes video."""

from __future__ import annotations

from semcodec.errors import PluginError, cure

try:
    import av
    from av.bitstream import BitStreamFilterContext
    from av.error import FFmpegError
except ImportError as error:
    raise PluginError(f"video is read and written by PyAV: {cure(error) or error}") from error

__all__ = ["BitStreamFilterContext", "FFmpegError", "av"]
