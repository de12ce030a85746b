"""What a server counts, in the form of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

TIMES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
STAGES = ("queue", "look", "decode", "recover", "tail")


class Metrics:
    """Counters, gauges and histograms of one server, in a registry of their own."""

    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.streams = Gauge("semcodec_streams", "Sessions that have a connection.", registry=own)
        self.detached = Gauge("semcodec_sessions_detached", "Sessions kept without a connection.", registry=own)
        self.queued = Gauge("semcodec_queued", "Records that wait.", registry=own)
        self.opened = Counter("semcodec_sessions", "Sessions that were opened.", registry=own)
        self.resumed = Counter("semcodec_sessions_resumed", "Connections that went on with a session.", registry=own)
        self.refused = Counter("semcodec_refused", "Connections that were refused.", ["code"], registry=own)
        self.received = Counter("semcodec_messages_received", "Messages of devices.", registry=own)
        self.sent = Counter("semcodec_messages_sent", "Messages to devices.", registry=own)
        self.bytes_received = Counter("semcodec_bytes_received", "Bytes of devices' messages.", registry=own)
        self.bytes_sent = Counter("semcodec_bytes_sent", "Bytes of messages to devices.", registry=own)
        self.outcomes = Counter("semcodec_records", "Records by how they ended.", ["outcome"], registry=own)
        self.asked = Counter("semcodec_replies", "First rounds after which more was asked for.", registry=own)
        self.batch = Histogram(
            "semcodec_batch_size", "Records that were decoded together.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=own
        )
        seconds = Histogram(
            "semcodec_stage_seconds", "Seconds of a record in the queue, of a batch in a stage.", ["stage"],
            buckets=TIMES, registry=own,
        )  # fmt: skip
        self.stages = {stage: seconds.labels(stage) for stage in STAGES}
        self.ended = {kind: self.outcomes.labels(kind) for kind in ("answered", "late", "failed")}

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
