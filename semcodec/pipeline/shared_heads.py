"""Models that share a head, whose weights up to the cut are compared: several backbones of one stream, of which one

runs it, and an Encoder that learned behind the head of another backbone than the one it is used with.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from semcodec.composition.composition import Composition
from semcodec.composition.resolution import INPUT
from semcodec.errors import WeightsError
from semcodec.interfaces import Backbone
from semcodec.pipeline import halves
from semcodec.pipeline.weights import Weights, digest, read_tensors


def compare(composition: Composition, tails: Mapping[str, Backbone]) -> None:
    """Raise WeightsError where models that are whole, by name, have other weights before the cut."""
    if len(tails) < 2 or composition.cut == INPUT:
        return
    found = {}
    for name, model in tails.items():
        assert isinstance(model, nn.Module)
        state = model.state_dict()
        found[name] = digest({entry: state[entry] for entry in _before(composition, name, model)})
    _refuse_others(composition, found)


def compare_files(
    composition: Composition, tails: Mapping[str, Backbone], sources: Mapping[str, Weights | None]
) -> None:
    """The same of a server, which holds no head: by the files that its tails came from, where they hold one."""
    if len(tails) < 2 or composition.cut == INPUT:
        return
    found = {}
    for (name, model), slot in zip(tails.items(), _slots(composition, tails), strict=True):
        source = sources.get(slot)
        if source is None or source.path is None or not source.ours or "end" in source.card:
            continue
        assert isinstance(model, nn.Module)
        found[name] = digest(read_tensors(source.path, f"{source.slot}.", _before(composition, name, model)))
    _refuse_others(composition, found)


def name_head(composition: Composition, model: Backbone) -> str | None:
    """The digest of what runs before the cut; None where that is nothing, or where the model does not say."""
    if composition.cut == INPUT or model.head_state(composition.cut) is None:
        return None
    assert isinstance(model, nn.Module)
    state = model.state_dict()
    return digest({entry: state[entry] for entry in _before(composition, composition.backbone.name, model)})


def check_encoder(
    composition: Composition, encoder: Weights | None, name: str, model: Backbone, source: Weights | None
) -> None:
    """Raise WeightsError where an Encoder's weights, of another backbone, learned behind another head than this one.

    name, model, source: of a backbone that is used, of which what is not here is read from where its weights are.
    """
    if encoder is None or encoder.card.get("keys", {}).get("encoder") == composition.weights_key("encoder"):
        return
    wanted = encoder.card.get("head")
    if wanted is None:  # of pixels, or another library's
        return
    assert isinstance(model, nn.Module)
    entries, state = _before(composition, name, model), model.state_dict()
    if not any(state[entry].is_meta for entry in entries):
        found = digest({entry: state[entry] for entry in entries})
    elif source is not None and source.path is not None and source.ours and "end" not in source.card:
        found = digest(read_tensors(source.path, f"{source.slot}.", entries))
    else:
        return  # of a server, which holds no head: the stream's header names the Encoder's weights
    if found != wanted:
        raise WeightsError(
            f"{encoder.origin} learned behind another head than {name}'s up to {composition.cut} ({wanted} and "
            f"{found}): train it anew with --init, or give weights of {composition.weights_key('encoder')}"
        )


def _slots(composition: Composition, tails: Mapping[str, Backbone]) -> list[str]:
    by_name = dict(zip(composition.tails, composition.slots, strict=True))
    return [by_name[name] for name in tails]


def _before(composition: Composition, name: str, model: Backbone) -> list[str]:
    """Names of the state entries that the head uses."""
    assert isinstance(model, nn.Module)
    beginnings = model.head_state(composition.cut)
    if beginnings is None:
        raise WeightsError(
            f"{name} does not say which of its weights are before {composition.cut}, so that others cannot share them"
        )
    return halves.part(list(model.state_dict()), beginnings)


def _refuse_others(composition: Composition, found: Mapping[str, str]) -> None:
    (first, wanted), *others = found.items() or [("", "")]
    for name, there in others:
        if there != wanted:
            raise WeightsError(
                f"{first} and {name} have other weights before {composition.cut} ({wanted} and {there}), so one head "
                f"cannot serve both: train {name} behind the head of {first}, or give both weights that share one"
            )
