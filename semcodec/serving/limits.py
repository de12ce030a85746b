"""What a server allows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """max_batch: records that are decoded together. batch_wait_s: how long the first of them waits for others.

    max_streams: sessions at a time, connected or kept. max_samples_per_s: of one stream; more are read later, not lost.
    window: messages of a stream that may be in flight; queue: of all streams together, by which windows narrow.
    idle_s: without a message, after which a connection is closed, and for which a session without one is kept.
    opening_s: from connecting to the first message. drain_s: for what is in flight when the server ends.
    """

    max_batch: int = 16
    batch_wait_s: float = 0.002
    max_streams: int = 1024
    max_samples_per_s: float | None = None
    window: int = 32
    queue: int = 512
    idle_s: int = 120
    opening_s: float = 10.0
    drain_s: float = 30.0

    def window_of(self, streams: int) -> int:
        """The window of each of so many streams: a power of two, so that it seldom changes."""
        share = max(1, min(self.window, self.queue // max(1, streams)))
        return self.window if share == self.window else 1 << (share.bit_length() - 1)
