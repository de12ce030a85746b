"""What notebooks show of a record and of a sample: the tables and panels of the command line, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from semcodec import _html
from semcodec.panels import Panel
from semcodec.tasks.table import task_of

if TYPE_CHECKING:
    from semcodec.pipeline.device import Encoded
    from semcodec.pipeline.pipeline import Pipeline
    from semcodec.tasks.prediction import Prediction

WIDEST = 900
"""Pixels of a panel."""


class Record(dict[str, Any]):
    """The record of an evaluation; a notebook shows it as the table of ``semcodec eval``."""

    def _repr_html_(self) -> str:
        return table_of([self])


def table_of(records: Iterable[Mapping[str, Any]]) -> str:
    """Records as a table, a line each."""
    rows, heads = [], []
    for r in records:
        metric = task_of(r).metric
        low, high = (metric.shown(bound) for bound in r[f"{metric.key}_interval"])
        share = r.get("device_share")
        heads.append(metric.head)
        rows.append(
            (
                _html.Raw(_html.code(r["spec"])), metric.shown(r[metric.key]), f"{low:.1f} - {high:.1f}",
                float(r["bytes_total"]), r.get("ratio_uint8"), None if share is None else f"{share:.3f}",
                float(sum(r["stages_ms"].values())),
                f"{r['data']}, {r['samples']:,} samples",
            )
        )  # fmt: skip
    head = " or ".join(dict.fromkeys(heads))
    return _html.table(("spec", head, "95 % interval", "bytes", "x 8-bit", "share", "ms", "data"), rows)


@dataclass(frozen=True)
class Shown:
    """One sample on its way: its panels, its packet and the answer. A notebook draws them."""

    spec: str
    panels: Sequence[Panel]
    packet: Encoded
    answer: Prediction
    classes: Sequence[str]

    def _repr_html_(self) -> str:
        from semcodec.evaluation.thumbnails import data_url
        from semcodec.painting import paint

        figures = []
        for panel in self.panels:
            picture = paint(panel)
            width = min(WIDEST, max(240, picture.shape[1]))
            figures.append(
                f'<figure style="display:inline-block;margin:0 12px 8px 0"><figcaption>{escape(panel.title)}'
                f'</figcaption><img alt="{escape(panel.title)}" src="{data_url(picture, width)}" '
                f'style="max-width:100%"></figure>'
            )
        told = f"{self.answer.name}, {self.answer.probability:.1%}, from {self.packet.bytes_total:,} bytes"
        head = f"<p>{_html.code(self.spec)}: <b>{escape(told)}</b></p>"
        return head + "".join(figures) + self._others()

    def _others(self) -> str:
        """The five most probable classes as bars."""
        if self.answer.logits is None:
            return ""
        logits = self.answer.logits.astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        best = np.argsort(shares)[::-1][:5]
        rows = [(self.classes[i], _html.Raw(_html.bar(float(shares[i]), f"{shares[i]:.1%}"))) for i in best]
        return _html.table(("class", ""), rows)


def show(pipeline: Pipeline, sample: Any) -> Shown:
    """Send one sample, as ``Pipeline.encode`` takes it, through real bytes. Raises as that does."""
    from semcodec.data.inputs import read
    from semcodec.evaluation.sample_panels import make_panels

    pixels, size = read(sample, pipeline.request)
    [packet] = pipeline.encode_batch(pixels, [0], sizes=size and [size])
    [answer] = pipeline.decode_batch(pipeline.records([packet]))
    return Shown(pipeline.spec, make_panels(pipeline, pixels, size), packet, answer, pipeline.classes)
