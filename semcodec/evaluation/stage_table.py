"""A pipeline as a table: per stage where it runs, what goes in and out, and what it costs.

``outline`` knows what the components declare and imports no torch; ``explain`` also runs each stage once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from semcodec.composition.binding import Bound
from semcodec.composition.composition import Composition
from semcodec.specs import FeatureSpec, TensorSpec
from semcodec.tasks.table import get_task

if TYPE_CHECKING:
    from semcodec.pipeline.pipeline import Pipeline

Port = Mapping[str, str] | None
"""What goes in or out of a stage: by tensor name, its dtype and shape; None where it is not known."""

BYTES: Port = {"packet": "bytes"}


@dataclass(frozen=True)
class StageRow:
    """One line of the table.

    parameters, macs: of this stage for one sample; None where nothing was built or counted.
    bytes: of what the stage gives, at the composition's knobs, as its tensors are held (bits for bools);
    for the link the packet's, which are known once something was encoded.
    """

    stage: str
    where: Literal["device", "link", "server"]
    component: str
    takes: Port
    gives: Port
    parameters: int | None = None
    macs: int | None = None
    bytes: int | None = None
    license: str = ""


def outline(composition: Composition) -> list[StageRow]:
    """The stages in the order they run, from declarations alone."""
    c, s = composition, composition.stages
    encoder, entropy = c.encoder, c.entropy
    features, latent, restored = _port(s.features), _port(s.latent), _port(s.restored)
    rows = [_row("point", "device", c.point, {}, dict.fromkeys(c.call, "set"))] if c.point else []
    rows.append(_row("head", "device", c.backbone, _port(s.input), features, s.features))
    if c.encoder.component.traits.get("targets") or c.encoder.component.traits.get("predicts"):
        found = dict.fromkeys(encoder.component.traits.get("targets", ()), "scores")
        if encoder.component.traits.get("predicts"):
            found["prediction"] = "logits"
        rows.append(_row("analyse", "device", encoder, features, found))
    if c.gate:
        rows.append(_row("gate", "device", c.gate, {"prediction": "logits"}, {"send": "bool[]"}))
    for target, (selector, budget) in c.keep.items():
        kept = "as scored" if budget is None else f"{budget} kept" if isinstance(budget, int) else f"{budget:.0%} kept"
        row = _row(f"select_{target}", "device", selector, {"scores": "?"}, {"mask": kept})
        rows.append(replace(row, component=f"{encoder.name}, {selector.name}"))
    rows.append(_row("encode", "device", encoder, features, latent, s.latent))
    if entropy:
        rows.append(_row("entropy_encode", "device", entropy, latent, BYTES))
    rows.append(StageRow("link", "link", "", BYTES, BYTES))
    if entropy:
        rows.append(_row("entropy_decode", "server", entropy, BYTES, latent))
    rows.append(_row("restore", "server", encoder, latent if entropy else BYTES, restored, s.restored))
    rows.append(_row("recover", "server", c.recoverer, restored, _port(s.recovered), s.recovered))
    tails = [c] if c.seen or len(c.tails) == 1 else [c.alone(name) for name in c.tails]
    rows += [_row("tail", "server", one.backbone, _port(s.recovered), get_task(one.task).port(None)) for one in tails]
    return rows


def explain(pipeline: Pipeline, pixels: Any = None) -> list[StageRow]:
    """``outline`` with parameters and multiply-accumulates, counted by running a sample through.

    pixels: uint8, with a batch axis of one; zeros where left out, of which it means nothing how many units a Selector
    without a budget keeps: that is then said to be as scored. Of several tails each has a row.
    """
    c = pipeline.composition
    if len(c.tails) > 1 and c.seen is None:
        each = [explain(pipeline.alone(name), pixels) for name in c.tails]
        return [*each[0], *(rows[-1] for rows in each[1:])]
    import numpy as np

    from semcodec.evaluation.cost import Meter

    selectors = pipeline.stages.selectors
    meter, spies = Meter(), {target: _spy(selector) for target, selector in selectors.keep.items()}
    probe = pipeline.replace(selectors=replace(selectors, keep=spies, gate=None))  # the sample must get to the server
    wanted = pipeline.request
    frames = () if wanted.frames is None else (wanted.frames,)
    real = pixels is not None
    pixels = pixels if real else np.zeros((1, *frames, wanted.height, wanted.width, 3), np.uint8)
    probe.decode_batch(probe.records(probe.encode_batch(pixels, [0], meter)), meter)

    rows = []
    for row in outline(pipeline.composition):
        target = row.stage.removeprefix("select_")
        if row.stage == "tail":
            row = replace(row, gives=get_task(pipeline.composition.task).port(len(pipeline.classes)))
        elif target in spies and (real or pipeline.composition.keep[target][1] is not None):
            row = replace(row, **spies[target].ports())
        if row.where != "link":
            row = replace(row, parameters=meter.parameters.get(row.stage, 0), macs=meter.macs.get(row.stage, 0))
        rows.append(row)
    return rows


def _spy(selector: Any) -> Any:
    """The selector, which also remembers what it was given and what it chose."""
    from semcodec.interfaces import Selector

    class Spy(Selector):
        seen: tuple[TensorSpec, int] | None = None

        def keep(self, scores: Any, budget: Any, sequence: Any) -> Any:
            mask = selector.keep(scores, budget, sequence)
            spec = TensorSpec(tuple(scores.shape[1:]), str(scores.dtype).removeprefix("torch."))
            self.seen = spec, int(mask.sum())
            return mask

        def ports(self) -> dict[str, Port]:
            if self.seen is None:  # the budget covers everything, so nothing is scored
                return {"takes": {}, "gives": {"mask": "all kept"}}
            spec, kept = self.seen
            mask = replace(spec, dtype="bool")
            return {"takes": {"scores": str(spec)}, "gives": {"mask": f"{mask}, {kept:,} kept"}}

    return Spy()


def _row(
    stage: str,
    where: Literal["device", "link", "server"],
    bound: Bound,
    takes: Port,
    gives: Port,
    sized: FeatureSpec | None = None,
) -> StageRow:
    license_ = bound.component.license
    return StageRow(stage, where, bound.name, takes, gives, bytes=nbytes(sized), license=license_)


def _port(features: FeatureSpec | None) -> Port:
    return None if features is None else {name: str(spec) for name, spec in features.items()}


def nbytes(features: FeatureSpec | None) -> int | None:
    """Bytes of one sample's tensors, bools as bits; None where a shape is open or unknown."""
    if features is None or any(None in spec.shape for spec in features.values()):
        return None
    return sum(-(-spec.size // 8) if spec.dtype == "bool" else spec.nbytes for spec in features.values())
