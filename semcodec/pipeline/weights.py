"""Where each component's weights come from, and what names them.

A slot is "encoder", "recoverer", "backbone" or the parameter that names a Backbone of the Encoder, as "edge". Of
several Backbones that answer each has a slot of its name.

A weights file is safetensors with tensors under ``encoder.``, ``recoverer.`` and ``backbone.``. Its metadata
entry ``semcodec`` is a JSON object: ``keys`` (by slot, what ``Composition.weights_key`` gives), ``classes``
(and ``named``, by slot, where several backbones know different ones), ``digests`` and ``decoding`` (by slot, the
names of the weights and of what decoding uses of them: ``name_weights``), ``end`` where it holds what a device or a
server uses alone, ``shares`` where it leaves out what another model's file ships, and whatever the training card holds.

Looked up per slot, in this order: ``--weights`` (a file, the folder of a run or one of several runs, or
``hf:OWNER/NAME[@REVISION]``, a repository of the hub), the checkpoints
of the Encoder's and the component's own package, the user's cache, the model hub, and ``random`` only when asked for.
Among several files one that was trained as the whole composition comes first.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from semcodec._cache import cache_folder
from semcodec._typed import convert, read_json
from semcodec.composition.binding import Bound
from semcodec.composition.composition import Composition
from semcodec.composition.grammar import parse
from semcodec.composition.registry import get_registry, import_target
from semcodec.composition.resolution import INPUT
from semcodec.errors import UsageError, WeightsError, first_line
from semcodec.pipeline.hub import download
from semcodec.pipeline.repositories import is_named, local_path

if TYPE_CHECKING:
    from torch import Tensor, nn

SLOTS = ("encoder", "recoverer", "backbone")
_SLOT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[./-][A-Za-z0-9_]+)*")
RANDOM = "random"
METADATA = "semcodec"
FILES = ("weights.safetensors", "model.safetensors")
"""What training writes into a folder, and a Hugging Face checkpoint."""
PICKLED = re.compile(r".*(\.tar|-[0-9a-f]{8,64}\.pth)")
"""CompressAI's ``.pth.tar``, and files that are published under their own hash, as torchvision's: torch's form, of
which tensors alone are read, never code."""
SHIPPED = "shipped: "
COUNTED = "num_batches_tracked"
"""Of batch norms, which answers do not depend on: many files leave it out."""


@dataclass(frozen=True)
class Weights:
    """Where one slot's weights are. ``origin`` is what a table shows; ``path`` is None for random ones.

    slot: the one that they have in their file: the "edge" of one pipeline may have been trained as a "backbone".
    """

    slot: str
    origin: str
    path: Path | None
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def classes(self) -> list[str] | None:
        """Names of the slot's classes by the card; None where it has none."""
        return self.card.get("named", {}).get(self.slot) or self.card.get("classes")

    @property
    def digest(self) -> str | None:
        """The name of the slot's weights by the card, None where it has none: see ``name_weights``."""
        return self._named("digests")

    @property
    def decoding_digest(self) -> str | None:
        """The same of what decoding uses of an Encoder: "" where that is nothing."""
        return self._named("decoding") if self.slot == "encoder" else self.digest

    def _named(self, what: str) -> str | None:
        name: str | None = self.card.get(what, {}).get(self.slot)
        return name

    @property
    def shipped(self) -> bool:
        """Whether they come with the package."""
        return self.origin.startswith(SHIPPED)

    @property
    def ours(self) -> bool:
        """Whether the file is in the form that training writes, rather than another library's."""
        return bool(self.card)


Given = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]] | None
"""A path for all slots, or paths by slot."""


@dataclass(frozen=True)
class WeightsRequest:
    """What the user said of weights. ``given``: by slot, or "" for a file that may hold all."""

    given: Mapping[str, str] = field(default_factory=dict)
    offline: bool = False

    @classmethod
    def of(cls, weights: Given | WeightsRequest, offline: bool = False) -> WeightsRequest:
        """From a path for all slots, or paths by slot; a request stays as it is. Raises UsageError for others."""
        if isinstance(weights, WeightsRequest):
            return weights
        try:
            by_slot = weights if isinstance(weights, Mapping) else {} if weights is None else {"": weights}
            return cls({slot: os.fspath(path) for slot, path in by_slot.items()}, offline)
        except TypeError as error:
            raise UsageError(f"weights are a path, or paths by slot ({first_line(error)})") from error

    @classmethod
    def parse(cls, options: Sequence[str], offline: bool = False) -> WeightsRequest:
        """From ``[slot=]PATH`` options. Raises UsageError."""
        given: dict[str, str] = {}
        for option in options:
            slot, equals, path = option.partition("=")
            if not equals or not _may_be_slot(slot) or os.path.exists(option):
                slot, path = "", option
            if slot in given:
                raise UsageError(f"--weights names two files for {slot or 'all slots'}: {given[slot]} and {path}")
            given[slot] = path
        return cls(given, offline)

    def check(self, composition: Composition) -> None:
        """Raise UsageError for a slot that ``composition`` has not."""
        slots = ("encoder", *composition.models, "recoverer", *composition.slots)
        for slot, path in self.given.items():
            if slot and slot not in slots:
                raise UsageError(f"--weights {slot}={path}: {composition.spec} has the slots {', '.join(slots)}")


def _may_be_slot(name: str) -> bool:
    """Whether a word before "=" can name a slot: one with a slash is of a family of models, or begins a path."""
    family, slash, _ = name.partition("/")
    return bool(_SLOT.fullmatch(name)) and (not slash or f"{family}/*" in get_registry().names("backbone"))


def _check_file(path: Path) -> None:
    """Refuse what would be waited for, or mapped without end."""
    if path.exists() and not path.is_file():
        raise WeightsError(f"{path} is a pipe, a device or a folder, and no weights file")


class Card(msgspec.Struct):
    """What is used of a card; it may hold more. Keys and names are by slot."""

    keys: dict[str, str]
    classes: list[str] | None = None
    named: dict[str, list[str]] = {}
    digests: dict[str, str] = {}
    decoding: dict[str, str] = {}
    end: Literal["device", "server"] | None = None
    shares: dict[str, list[str]] = {}


def read_card(path: Path) -> dict[str, Any]:
    """The metadata that training left in a safetensors file; empty for another library's file."""
    _check_file(path)
    if PICKLED.fullmatch(path.name) and path.exists():
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise WeightsError(f"no such weights file: {path}") from None
    except (SafetensorError, OSError, ValueError) as error:
        pickle = "; pickles can run code and are not read: save its state_dict as safetensors"
        hint = pickle if path.suffix in (".pt", ".pth", ".bin") else ""
        raise WeightsError(f"{path} is no readable safetensors file: {first_line(error)}{hint}") from error
    if METADATA not in metadata or metadata[METADATA] == "{}":
        return {}
    try:
        card = read_json(metadata[METADATA], dict[str, Any])
        convert(card, Card)
    except ValueError as error:
        damaged = "was written by semcodec train, but its card is damaged"
        raise WeightsError(f"{path} {damaged}: take another copy ({error})") from error
    return card


def find(
    composition: Composition, slot: str, request: WeightsRequest, *, hub: bool = True, alone: bool = False
) -> Weights | None:
    """The weights of one slot, or None where there are none.

    hub: whether to download. alone: of what nobody named, none that learned together with an encoder.
    """
    named = (request.given.get(slot), request.given.get(""))
    found = _candidates(composition, slot, request, hub)
    return next((w for w in found if not alone or any(named) or "encoder" not in w.card.get("keys", {})), None)


def _candidates(composition: Composition, slot: str, request: WeightsRequest, hub: bool) -> Iterator[Weights]:
    key = composition.weights_key(slot)
    given = request.given.get(slot) or request.given.get("")
    if given == RANDOM:
        yield Weights(slot, RANDOM, None)
    elif given and is_named(given):
        yield from _given(composition, slot, request, given, named_file(given, request.offline))
    elif given and (runs := _runs(Path(given))):
        found = list(_among(composition, slot, {path: f"{given}: {path.parent.name}" for path in runs}))
        if not found and slot in request.given:
            raise WeightsError(f"{given}: none of its {len(runs)} runs holds weights of {key}")
        yield from found
    elif given:
        yield from _given(composition, slot, request, given, named_file(given))
    slots = {"encoder": composition.encoder, "recoverer": composition.recoverer, **composition.slots}
    bound = {**composition.models, **slots}[slot]
    resources = dict.fromkeys((*composition.encoder.component.weights, *bound.component.weights))
    with ExitStack() as stack:
        shipped = [stack.enter_context(as_file(_resource(name))) for name in resources]
        yield from _among(composition, slot, {path: f"{SHIPPED}{path.name}" for path in shipped if path.exists()})
    folder = cache_folder("weights")
    cached = sorted(folder.glob("*.safetensors")) if folder else []
    yield from _among(composition, slot, {path: f"cache: {path.name}" for path in cached})
    if hub and not request.offline and (repository := published(bound)):
        yield Weights(slot, f"hub: {repository}", download(repository))


def _given(composition: Composition, slot: str, request: WeightsRequest, given: str, path: Path) -> Iterator[Weights]:
    """What one file that was named holds of a slot. Raises WeightsError where it was named for that and holds none."""
    key, card = composition.weights_key(slot), read_card(path)
    held = _slot(card, slot, key)
    if held is None and slot in request.given and (_of_pixels(card, slot, key) or _of_head(card, slot, key)):
        held = slot
    if not card or held:
        yield Weights(held or slot, str(given), path, card)
    elif slot in request.given or not any(_slot(card, s, composition.weights_key(s)) for s in slots_of(composition)):
        raise WeightsError(f"{given} holds no weights of {key}, but of {', '.join(card['keys'].values())}")


def slots_of(composition: Composition) -> tuple[str, ...]:
    """The slots of a composition but those of the Encoder's own models."""
    return ("encoder", "recoverer", *composition.slots)


def _among(composition: Composition, slot: str, origins: Mapping[Path, str]) -> Iterator[Weights]:
    """Of several files, first those that were trained as this very composition, the most of it foremost.

    Last an Encoder that learned for more tasks than are asked for, the fewest of them foremost.
    """
    key, encoder = composition.weights_key(slot), composition.weights_key("encoder")
    cards = [(path, read_card(path)) for path in origins]
    for path, card in sorted(cards, key=lambda row: (-_alike(composition, row[1]), _count_tasks(row[1]))):
        held = _slot(card, slot, key) or (slot if slot == "encoder" and _of_more_tasks(card, key) else None)
        # A backbone that learned together with an encoder is of use to that encoder alone.
        other = held == "backbone" and card["keys"].get("encoder", encoder) != encoder
        if held and not other:
            yield Weights(held, origins[path], path, card)


def _alike(composition: Composition, card: Mapping[str, Any]) -> int:
    """How many slots a file holds, if it is of this composition in every one of them."""
    slots = slots_of(composition)
    keys = {slot: key for slot, key in card.get("keys", {}).items() if slot in slots}
    return len(keys) if all(composition.weights_key(slot) == key for slot, key in keys.items()) else 0


def _count_tasks(card: Mapping[str, Any]) -> int:
    return int(card.get("keys", {}).get("encoder", "").count("+"))


def _of_more_tasks(card: Mapping[str, Any], key: str) -> bool:
    """Whether a file holds the same Encoder, which learned for these Backbones and others of one stream."""
    component, _, wanted = key.partition("+")
    other, _, served = card.get("keys", {}).get("encoder", "").partition("+")
    return component == other and set(wanted.split("+")) < set(served.split("+"))


def _resource(name: str) -> Traversable:
    package, _, inside = name.partition(":")
    return files(package) / inside


def published(bound: Bound) -> str | None:
    """The hub's repository of a component's weights, if there is one."""
    hub: str | None = bound.component.traits.get("hub")
    return import_target(hub, bound.name)(**bound.build) if hub and ":" in hub else hub


def _slot(card: Mapping[str, Any], slot: str, key: str) -> str | None:
    """Under which slot a file holds what has this ``key``; a Backbone may be trained alone and used in any part."""
    keys = card.get("keys", {})
    homes = (slot,) if slot in ("encoder", "recoverer") else (slot, "backbone")
    return next((home for home in homes if keys.get(home) == key), None)


def _of_pixels(card: Mapping[str, Any], slot: str, key: str) -> bool:
    """Whether a file holds the same component, of pixels as well, that was trained before another Backbone."""
    component, _, backbone = key.partition("+")
    other, _, where = card.get("keys", {}).get(slot, "").partition("+")
    items = [item for named in (backbone, where) if named for item in parse(named).items]
    return component == other and all(item.target == INPUT for item in items)


def _of_head(card: Mapping[str, Any], slot: str, key: str) -> bool:
    """Whether a file holds the same component at the same cut of another Backbone, and names the head it learned by:

    ``shared_heads.check_encoder`` compares that.
    """
    component, _, backbones = key.partition("+")
    other, _, places = card.get("keys", {}).get(slot, "").partition("+")
    if component != other or "head" not in card or not (backbones and places):
        return False
    return len({item.target for named in (backbones, places) for item in parse(named).items}) == 1


def named_file(text: str, offline: bool = False) -> Path:
    """The weights file that a path, the folder of a run or ``hf:OWNER/NAME`` stands for. Raises WeightsError."""
    path = local_path(text, offline)
    return _in_folder(path) if path.is_dir() else path


def _in_folder(folder: Path) -> Path:
    """The weights of the one run or checkpoint that a folder holds. Raises WeightsError."""
    for name in FILES:
        if (folder / name).exists():
            return folder / name
    raise WeightsError(f"{folder} holds neither {' nor '.join(FILES)}, nor folders that training wrote")


def _runs(folder: Path) -> list[Path]:
    """Weights of the runs in a folder of several; none where it is the folder of one."""
    return [] if any((folder / name).exists() for name in FILES) else sorted(folder.glob(f"*/{FILES[0]}"))


def _unpickled(path: Path) -> dict[str, Tensor]:
    """Tensors of a checkpoint of torch, alone or under its "state_dict"; whatever else it holds is not loaded."""
    import torch

    try:
        found = torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch each raise their own
        raise WeightsError(f"{path} is no readable checkpoint of tensors: {first_line(error)[:120]}") from error
    found = found.get("state_dict", found) if isinstance(found, dict) else {}
    if not found or not all(torch.is_tensor(t) for t in found.values()):
        raise WeightsError(f"{path} holds no state_dict of tensors")
    return dict(found)


def read_tensors(path: Path, prefix: str = "", wanted: Collection[str] | None = None) -> dict[str, Tensor]:
    """Tensors of a safetensors file whose names begin with ``prefix``, without it, as float32.

    wanted: names, without the prefix, of those that are read; no other takes memory. What the file leaves out since it
    is another model's, which its card names (``shared``), is read from what ships of that one.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    _check_file(path)
    try:
        if PICKLED.fullmatch(path.name):
            tensors = _unpickled(path)
        else:
            with safe_open(path, "pt") as file:
                names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
                short = {name.removeprefix(prefix): name for name in names}
                chosen = short if wanted is None else {name: short[name] for name in wanted if name in short}
                tensors = {name: file.get_tensor(long) for name, long in chosen.items()}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"{path} is no readable safetensors file: {first_line(error)}") from error
    for owner, beginnings in ({} if PICKLED.fullmatch(path.name) else read_card(path).get("shares", {})).items():
        tensors = shared(owner, beginnings, prefix, wanted) | tensors
    return {name: t.to(torch.float32) if t.is_floating_point() else t for name, t in tensors.items()}


def shared(
    owner: str, beginnings: Sequence[str], prefix: str = "", wanted: Collection[str] | None = None
) -> dict[str, Tensor]:
    """``read_tensors`` of what ships of another Backbone, of names that begin so with their prefix.

    Raises WeightsError where nothing of that name ships here.
    """
    registry = get_registry()
    resources = registry.find(owner, "backbone").weights if "backbone" in registry.kinds(owner) else ()
    if not resources:
        raise WeightsError(f"weights are named that ship with {owner}, and nothing of that name ships here")
    with as_file(_resource(resources[0])) as path:
        found = read_tensors(path, prefix, wanted)
    return {name: tensor for name, tensor in found.items() if f"{prefix}{name}".startswith(tuple(beginnings))}


def load(module: nn.Module, weights: Weights, wanted: Sequence[str] | None = None) -> None:
    """Fill ``module`` from ``weights``; random ones leave it as it was made. Raises WeightsError.

    wanted: the entries of its state that are filled, of a module that was built without memory; all where left out.
    """
    if weights.path is None:
        return
    if wanted is not None:
        from semcodec.pipeline.halves import fill_part

        tensors = read_tensors(weights.path, f"{weights.slot}.", wanted)
        check_fit({name: t for name, t in module.state_dict().items() if name in wanted}, tensors, weights)
        _refuse_not_finite(tensors, weights.origin)
        fill_part(module, tensors)
        return
    tensors = read_tensors(weights.path, f"{weights.slot}." if weights.ours else "")
    if not weights.ours:
        adapt = getattr(module, "adapt", None)
        if adapt is None:
            raise WeightsError(
                f"{weights.origin} was not written by semcodec train, and {weights.slot} reads no other form"
            )
        tensors = adapt(tensors)
    if "end" in weights.card:
        check_fit(module.state_dict(), tensors, weights)
    fill(module, tensors, weights.origin)


def check_fit(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], weights: Weights) -> None:
    """Raise WeightsError where a file lacks something of a state, or has it in another shape."""
    half = weights.card.get("end")
    lacks = [name for name in state if name not in tensors]
    if lacks and half:
        raise WeightsError(f"{weights.origin} has the {half}'s half alone, which lacks {weights.slot}.{lacks[0]}")
    _refuse(_misfits(state, {name: tensors[name] for name in state if name in tensors}), weights.origin)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """``load_state_dict`` whose errors are one line. What a file may leave out stays as it is."""
    own = module.state_dict()
    left_out = {name: t for name, t in own.items() if name.endswith(COUNTED) and name not in tensors}
    tensors = {**tensors, **left_out}
    _refuse(_misfits(own, tensors), origin)
    _refuse_not_finite(tensors, origin)
    module.load_state_dict(dict(tensors))


def _misfits(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        *(f"{name} is missing" for name in own if name not in tensors),
        *(f"{name} is not part of the model" for name in tensors if name not in own),
        *(
            f"{name} is {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}"
            for name in own
            if name in tensors and own[name].shape != tensors[name].shape
        ),
    ]


def _refuse(misfits: Sequence[str], origin: str) -> None:
    if misfits:
        more = f" and {len(misfits) - 1} more" if len(misfits) > 1 else ""
        raise WeightsError(f"{origin} does not fit the model: {misfits[0]}{more}")


def _refuse_not_finite(tensors: Mapping[str, Tensor], origin: str) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise WeightsError(f"{origin} is of no use: {name} holds NaN or infinity; train it again or take another")


def name_weights(modules: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What a card says of models by slot: ``digests``, and ``decoding``, the digests of what decoding uses of them.

    An Encoder of which decoding uses nothing has "" there.
    """
    digests = {slot: digest(module.state_dict()) for slot, module in modules.items()}
    decoding = {slot: name for slot, name in digests.items() if slot == "recoverer"}
    if "encoder" in modules:
        encoder = modules["encoder"]
        state = getattr(encoder, "decoder_state", encoder.state_dict)()
        decoding["encoder"] = digest(state) if state else ""
    return {"digests": digests, "decoding": decoding}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """16 hex digits that name a set of tensors: names, shapes and float32 values."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        state.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        state.update(value.numpy().tobytes())
    return state.hexdigest()[:16]
