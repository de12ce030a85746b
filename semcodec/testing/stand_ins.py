"""Small weightless backbones that the checks put around an Encoder or a Recoverer; no torch.

Sides differ, so that a swapped height and width shows. Where none of them fits, registered backbones are tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from semcodec.component import Component
from semcodec.composition.composition import resolve_backbone
from semcodec.composition.grammar import format_value, parse_item
from semcodec.composition.registry import Registry, missing
from semcodec.errors import SemcodecError
from semcodec.specs import BackboneSpec, FeatureSpec, TensorSpec

FRAMES, HEIGHT, WIDTH = 8, 32, 48
POOL = 4
CHANNELS = 6
CLIP = {"frames": TensorSpec((FRAMES, 3, HEIGHT, WIDTH)), "index": TensorSpec((FRAMES,), "int64")}
KEPT = {"frames": TensorSpec((None, 3, HEIGHT, WIDTH)), "index": TensorSpec((None,), "int64")}
IMAGE = {"image": TensorSpec((3, HEIGHT, WIDTH))}
MAPS = TensorSpec((CHANNELS, HEIGHT // POOL, WIDTH // POOL))
COARSE = TensorSpec((CHANNELS, HEIGHT // POOL // 2, WIDTH // POOL // 2))
PATCH = 8
PATCHES = {"patches": TensorSpec((None, 3, None, None)), "index": TensorSpec((None,), "int64")}
GRID = HEIGHT // POOL, WIDTH // POOL
TOKENS = TensorSpec((GRID[0] * GRID[1], CHANNELS), grid=GRID)


def clips(params: Mapping[str, Any]) -> BackboneSpec:
    """Of the clips, any number of whose frames may be sent."""
    return BackboneSpec("video", {"frames": CLIP["frames"]}, {"input": CLIP}, tail={"input": (KEPT,)})


def images(params: Mapping[str, Any]) -> BackboneSpec:
    """Of the images, with cuts of each form."""
    cuts: dict[str, FeatureSpec] = {
        "input": IMAGE,
        "maps": {"maps": MAPS},
        "pyramid": {"fine": MAPS, "coarse": COARSE},
        "tokens": {"tokens": TOKENS},
    }
    return BackboneSpec("classification", IMAGE, cuts)


def patches(params: Mapping[str, Any]) -> BackboneSpec:
    """Of the images of which patches may be sent."""
    return BackboneSpec("classification", IMAGE, {"input": IMAGE}, tail={"input": (IMAGE, PATCHES)}, patch=PATCH)


STAND_INS = tuple(
    Component(
        kind="backbone",
        name=f"stand-in-{name}",
        target=f"semcodec.testing.stand_in_models:{name.capitalize()}",
        spec=f"semcodec.testing.stand_ins:{name}",
        summary=f"a backbone of {name} without weights, for checks",
    )
    for name in ("clips", "images", "patches")
)


def with_stand_ins(registry: Registry) -> Registry:
    """A registry with the stand-ins added."""
    return Registry.of([*registry, *(c for c in STAND_INS if c.name not in registry.names("backbone"))])


def smallest(component: Component, registry: Registry) -> tuple[str, BackboneSpec]:
    """Item text and spec of a backbone for as small an input as its ``side`` allows.

    Raises SemcodecError for a backbone that is not installed whole or whose spec is known only once it is built.
    """
    side = component.param("side")
    sides = [] if side is None else [s for s in (side.low, *sorted(side.values)) if s is not None]
    texts = [f"backbone/{component.name}:side={format_value(int(s))}" for s in sides]
    for text in (*texts, f"backbone/{component.name}"):
        try:
            spec = resolve_backbone(text, registry).spec
        except SemcodecError:
            continue
        if spec is not None and not missing(component):
            return text, spec
    raise SemcodecError(f"backbone {component.name} cannot be used without more ado")


def example(registry: Registry, text: str) -> tuple[str, str, FeatureSpec]:
    """The place that "resnet-nano@layer2.0" names. Raises SemcodecError where there is none."""
    item = replace(parse_item(text), kind="backbone")
    backbone = str(replace(item, target=None))
    spec = resolve_backbone(backbone, registry).spec
    if spec is None:
        raise SemcodecError(f"the example {text} has no spec before it is built")
    cut = item.target or next(iter(spec.cuts))
    if cut not in spec.cuts:
        raise SemcodecError(f"the example {text} has no such cut: there are {', '.join(spec.cuts)}")
    return backbone, cut, spec.cuts[cut]


def at_cut(backbone: str, cut: str) -> str:
    """The backbone's item text with a cut: "backbone/vit-nano@input:side=32"."""
    name, colon, args = backbone.partition(":")
    return f"{name}@{cut}{colon}{args}"


def surroundings(registry: Registry, component: Component) -> Iterator[list[tuple[str, str, FeatureSpec]]]:
    """Places to put a stage: (backbone item, cut, features there).

    The one that its trait ``example`` names, alone. Otherwise first those of clips and images together, then the one
    of patches, whose input is an image as well, then each registered one alone, the smaller before the larger.
    """
    if "example" in component.traits:
        yield [example(registry, component.traits["example"])]
        return
    for group in (STAND_INS[:2], STAND_INS[2:]):
        yield [
            (f"backbone/{component.name}", cut, features)
            for component in group
            for cut, features in smallest(component, registry)[1].cuts.items()
        ]
    found = []
    for component in registry:
        if component.kind == "backbone" and component not in STAND_INS:
            try:
                text, spec = smallest(component, registry)
            except SemcodecError:
                continue
            # Weights that ship with a package are small, so the model is.
            found.append((not component.weights, sum(t.size for t in spec.input.values()), text, spec))
    for _, _, text, spec in sorted(found, key=lambda row: row[:3]):
        for cut, features in spec.cuts.items():
            yield [(text, cut, features)]
