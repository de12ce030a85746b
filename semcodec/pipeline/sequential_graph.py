"""A convolutional network of timm's as a chain of modules, so that it can be cut between any two.

Found by looking, for any family: an image without data runs through ``forward_features`` once, and a module is cut
into its children where each child takes the very tensor that the one before it gave, untouched. Then running the
children one after another is what the module computes, bit for bit. Containers alone are looked into
(``nn.Sequential`` and timm's stages): what is left whole is a block, or an operation of the stem.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

INPUT, STEM = "input", "stem"


@dataclass(frozen=True)
class Chain:
    """links: names of the modules in order, which give what the model's ``forward_head`` takes.

    cuts: by name, in order, after how many links each is; "input" is not among them.
    shapes: by cut, (C, H, W) of one sample's features there.
    """

    links: tuple[str, ...]
    cuts: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]


class _Seen:
    """What passed through a module: tensors, with how often they had been written over by then."""

    def __init__(self) -> None:
        self.given: Any = None
        self.made: Any = None
        self.calls = 0

    def take(self, given: Sequence[Any], named: Mapping[str, Any]) -> None:
        self.calls += 1
        self.given = _state(given[0]) if len(given) == 1 and not named else None

    def give(self, made: Any) -> None:
        self.made = _state(made)

    @property
    def usable(self) -> bool:
        return self.calls == 1 and self.given is not None and self.made is not None


def _state(value: Any) -> tuple[Tensor, int] | None:
    return (value, value._version) if isinstance(value, Tensor) else None


def _same(a: tuple[Tensor, int] | None, b: tuple[Tensor, int] | None) -> bool:
    return a is not None and b is not None and a[0] is b[0] and a[1] == b[1]


def find(model: nn.Module, shape: Sequence[int]) -> Chain | None:
    """Of a model for images of ``shape`` (C, H, W); None where its features are no chain of maps with blocks in it."""
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
        return None
    seen = _run(model, shape)
    if seen is None:
        return None
    names = _expanded(model, "", seen)
    blocks = [name for name in names or () if _is_block(model, name)]
    if not names or not blocks:
        return None
    cuts = _cuts(names, blocks)
    shapes = {cut: tuple(seen[names[at - 1]].made[0].shape[1:]) for cut, at in cuts.items()}
    return Chain(tuple(names), cuts, shapes) if all(len(found) == 3 for found in shapes.values()) else None


class _Trunk(nn.Module):
    model: Any  # a Module with the methods of timm's, which torch does not declare

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.model.forward_features(x)
        return features


def _run(model: nn.Module, shape: Sequence[int]) -> dict[str, _Seen] | None:
    """What passes through each module, by name, when an image without data runs through a copy without data."""
    seen = {name: _Seen() for name in _candidates(model, "")}
    hooks = []
    for name, record in seen.items():
        module = model.get_submodule(name)
        listen = partial(lambda record, _, given, named: record.take(given, named), record)
        hooks.append(module.register_forward_pre_hook(listen, with_kwargs=True))
        hooks.append(module.register_forward_hook(partial(lambda record, _, __, made: record.give(made), record)))
    training = model.training
    try:
        trunk = _Trunk(model).eval()
        nothing = {  # by module, each once: functional_call would not put back what it met under a second name
            f"{name}.{own}": torch.empty_like(tensor, device="meta")
            for name, module in trunk.named_modules()
            for own, tensor in (*module._parameters.items(), *module._buffers.items())
            if tensor is not None
        }
        image = torch.empty(1, *shape, device="meta")
        whole = seen[""] = _Seen()
        whole.take([image], {})
        with torch.no_grad():
            whole.give(torch.func.functional_call(trunk, nothing, (image,), tie_weights=False))
    except Exception:  # a model that does not run without data
        return None
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    return seen


def _is_container(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) or type(module).__name__.endswith("Stage")


def _candidates(module: nn.Module, name: str) -> Iterator[str]:
    for child, inside in module.named_children():
        full = f"{name}.{child}" if name else child
        yield full
        if _is_container(inside):
            yield from _candidates(inside, full)


def _expanded(model: nn.Module, name: str, seen: Mapping[str, _Seen]) -> list[str] | None:
    """The links that a module consists of; None for the root where they are no chain."""
    module = model.get_submodule(name) if name else model
    if name and not _is_container(module):
        return [name]
    links: list[str] = []
    at = seen[name].given
    for child, _ in module.named_children():
        full = f"{name}.{child}" if name else child
        if not seen[full].calls:
            continue
        if not seen[full].usable or not _same(seen[full].given, at):
            break
        links += _expanded(model, full, seen) or []
        at = seen[full].made
    else:
        if _same(at, seen[name].made):
            return links
    return [name] if name else None


def _is_block(model: nn.Module, name: str) -> bool:
    """A module of several within a container, other than a stem's or what only makes maps smaller."""
    module = model.get_submodule(name)
    inside = sum(1 for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear))
    containers = name.split(".")[:-1]
    return bool(containers) and inside > 1 and not any("stem" in part or part == "downsample" for part in containers)


def _cuts(links: Sequence[str], blocks: Sequence[str]) -> dict[str, int]:
    """The stem ends before the first block, a stage where the last of its blocks does."""
    stem = links.index(blocks[0])
    cuts = {STEM: stem} if stem else {}
    for block in blocks:
        at = links.index(block) + 1
        cuts[block] = at
        if stage := _ended(block, blocks):
            cuts[stage] = at
    return cuts


def _ended(block: str, blocks: Sequence[str]) -> str | None:
    """The largest container of blocks, other than that of all, whose last is ``block``."""
    parts = block.split(".")
    for depth in range(1, len(parts)):
        prefix = ".".join(parts[:depth]) + "."
        members = [name for name in blocks if name.startswith(prefix)]
        if members[-1] == block and len(members) < len(blocks):
            return prefix[:-1]
    return None
