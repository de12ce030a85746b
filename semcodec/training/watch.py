"""A run to be watched in TensorBoard: scalars while it goes on, pictures of a sample at the end of every step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from semcodec.errors import PluginError, SemcodecError, first_line
from semcodec.training.loop import Moment

EVERY = 10
"""Iterations from one point of a curve to the next."""

Draw = Callable[[Any], Iterable[tuple[str, Any]]]
"""Titles and pictures, uint8 (H, W, 3), of a pipeline."""


def check_tensorboard() -> None:
    """Raise PluginError where TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise PluginError("--tensorboard needs tensorboard: pip install 'semcodec[watch]'") from None


class TensorBoard:
    """An ``on_step`` that writes events into a folder. A run that goes on goes on in the same curves.

    draw: what is shown of a pipeline when a step is over; nothing where left out.
    """

    def __init__(self, folder: Path, draw: Draw | None = None) -> None:
        """Raises PluginError."""
        check_tensorboard()
        self.folder, self.draw = folder, draw
        self._writer: Any = None

    def __call__(self, moment: Moment) -> None:
        at = moment.before + moment.iteration
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # What an earlier run wrote of iterations that are done anew is no longer so.
            self._writer = SummaryWriter(str(self.folder), purge_step=at)
        if moment.finished:
            self._show(moment, at)
        elif moment.iteration % EVERY == 0 or moment.iteration == moment.iterations:
            for name, value in {**moment.means, "learning rate": moment.rate}.items():
                self._writer.add_scalar(f"{moment.step}/{name}", value, at)

    def close(self) -> None:
        """Write what is left to be written."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _show(self, moment: Moment, at: int) -> None:
        if self.draw is None or moment.pipeline is None:
            return
        try:
            with torch.random.fork_rng(devices=[]):
                pictures = list(self.draw(moment.pipeline()))
        except (SemcodecError, ArithmeticError, RuntimeError, ValueError) as error:
            # After a first step a codec may not be one yet, that writes bytes.
            self._writer.add_text("pictures", f"{moment.step}: none yet ({first_line(error)})", at)
            return
        for title, pixels in pictures:
            self._writer.add_image(f"{moment.step}/{title.partition(':')[0]}", pixels, at, dataformats="HWC")
