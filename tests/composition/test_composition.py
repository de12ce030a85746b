"""A spec either composes to a pipeline whose stages fit, or is refused with a caret under what is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import COMPONENTS, KEPT, MAP, REGISTRY, toy

from semcodec.component import Param
from semcodec.composition.composition import compose_spec, resolve_backbone
from semcodec.composition.registry import Registry
from semcodec.errors import PluginError, SpecError, UsageError
from semcodec.specs import TensorSpec


def compose(text):
    return compose_spec(text, REGISTRY)


def refusal(text) -> tuple[str, str]:
    """The message and the text that the carets are under."""
    with pytest.raises(SpecError) as caught:
        compose(text)
    error = caught.value
    assert error.span is not None
    assert str(error).splitlines()[1] == f"  {text}"
    return error.message, text[slice(*error.span)]


def test_slots_defaults_and_stages():
    c = compose("two:frames=2+net")
    assert c.spec == str(c) == "two:frames=2+rans+net"
    assert (c.encoder.name, c.recoverer.name, c.entropy.name, c.backbone.name) == ("two", "fill", "rans", "net")
    assert (c.cut, c.task, c.gate) == ("input", "video", None)
    assert list(c.call.items()) == [("frames", 2), ("pixels", 0.5), ("flip", False)]
    budgets = {target: (selector.name, budget) for target, (selector, budget) in c.keep.items()}
    assert budgets == {"frames": ("top-k", 2), "pixels": ("top-k", 0.5)}
    assert c.encoder.build == {"mode": "raw"}
    assert c.given == {"frames"}
    assert compose("two+top-k@pixels:0.5+net").given == {"pixels"}
    assert list(c.encoder.params) == ["mode", "frames", "pixels", "flip"]
    assert c.stages.input["frames"].shape == (16, 3, 8, 8)
    assert c.stages.latent == {"q": TensorSpec((2,), "uint8")}
    assert c.stages.restored == c.stages.recovered == {"frames": TensorSpec((2, 3, 8, 8))}
    assert c.licenses() == dict.fromkeys(("top-k", "fill", "rans", "net"), "Apache-2.0") | {"two": "MIT"}


def test_a_composition_is_a_value():
    a, b = compose("net+zip+two:pixels=0.50"), compose("two+zip+net")
    assert a == b
    assert len({a, b}) == 1
    with pytest.raises(FrozenInstanceError):
        a.cut = "mid"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("net+two", "two+rans+net"),
        ("net@input+rans+fill+two", "two+rans+net"),
        ("two:frames=4,pixels=0.5+net", "two+rans+net"),
        ("two:pixels=1,frames=8.0+net", "two:frames=8,pixels=1.0+rans+net"),
        ("two+top-k@frames:8+net", "two:frames=8+rans+net"),
        ("two+top-k@pixels:1+top-k@frames+net", "two:pixels=1.0+rans+net"),
        ("two:frames=8+dice@frames:seed=3+net", "two:frames=8+dice@frames:seed=3+rans+net"),
        ("two+dice@frames:8,seed=3+net", "two:frames=8+dice@frames:seed=3+rans+net"),
        ("two+share@pixels:0.9+dice@frames+net", "two+dice@frames+share@pixels:0.9+rans+net"),
        ("two+none+zip:6+net", "two+none+zip+net"),
        ("two+fill:steps=2+zip:level=9+net:side=16", "two+fill:steps=2+zip:9+net:side=16"),
        ("whole:quality=40+net@mid", "whole:40+net@mid"),
        ("deep+net", "deep+rans+net"),
        ("deep+net@mid", "deep+rans+net"),
        ("deep+net@input", "deep+rans+net@input"),
        ("guess+net", "guess+rans+net"),
        ("guess+share@patches:0.9+doubt:0.8+net", "guess+rans+net"),
        ("guess+odds+share:0.7+net", "guess+share@patches:0.7+odds+rans+net"),
        ("guess:patches=0.5+net", "guess:patches=0.5+top-k@patches+rans+net"),
        ("guess:patches=1.0+net", "guess+top-k@patches+rans+net"),
        ("guess:edge=5+net", 'guess:edge="5"+rans+net'),
        ("encoder/two+backbone/net", "two+rans+net"),
    ],
)
def test_canonical_spec_is_a_fixed_point(text, canonical):
    c = compose(text)
    assert c.spec == canonical
    again = compose(canonical)
    assert again.spec == canonical
    for slot in ("encoder", "keep", "gate", "recoverer", "entropy", "backbone", "cut", "task", "stages"):
        assert _plain(getattr(again, slot)) == _plain(getattr(c, slot)), slot


def _plain(value):
    """Without the items, whose arguments may stand in either form."""
    if hasattr(value, "build"):
        return value.name, value.build, value.call
    if isinstance(value, dict):
        return {target: (_plain(bound), budget) for target, (bound, budget) in value.items()}
    return value


@pytest.mark.parametrize(
    ("text", "under", "says"),
    [
        ("two+rans", "two+rans", "no backbone; add one of blind, net, still"),
        ("rans+net", "rans+net", "no encoder"),
        ("two+whole+net", "whole", "one encoder is enough, here are two: two and whole"),
        ("two+rans+zip+net", "zip", "one entropy is enough"),
        ("two+none+fill+net", "fill", "one recoverer is enough"),
        ("two+net+still", "still", "still and net cannot share a stream: one takes frames float32[1x3x8x8]"),
        ("too+net", "too", "unknown component 'too': did you mean two?"),
        ("selector/two+net", "selector/two", "'two' is no selector but of kind encoder"),
        ("two@frames+net", "frames", "'@' names the cut of a backbone"),
        ("two+rans@5+net", "5", "'@' names the cut of a backbone"),
        ("two+net@mit", "mit", "net has no cut 'mit'; did you mean mid? its cuts are input, mid"),
        ("deep+still", "deep", "still has no cut 'mid' that deep wants"),
        ("two:frame=4+net", "frame=4", "two has no parameter 'frame'; did you mean frames?"),
        ("two:zzz=4+net", "zzz=4", "its parameters are mode, frames, pixels, flip"),
        ("two:4+net", "4", "two takes no bare value"),
        ("rans:4+two+net", "4", "it has no parameters"),
        ("whole:4,quality=5+net", "quality=5", "quality of whole is given twice"),
        ("two:frames=4.5+net", "frames=4.5", "frames of two takes an integer, not 4.5"),
        ("two:frames=four+net", "frames=four", "takes an integer, not four"),
        ("two:frames=true+net", "frames=true", "takes an integer, not true"),
        ("two:frames=0+net", "frames=0", "frames of two must be from 1 to 16, not 0"),
        ("two:pixels='0.5'+net", "pixels='0.5'", "takes a number"),
        ("two:pixels=nan+net", "pixels=nan", "takes a number, not nan"),
        ("two:mode=rough+net", "mode=rough", "mode of two is one of raw, fine, not rough"),
        ("two:mode=true+net", "mode=true", "takes a word"),
        ("two:flip=1+net", "flip=1", "takes true or false, not 1"),
        ("two+top-k:4+net", "top-k:4", "write top-k@frames or top-k@pixels"),
        ("two+top-k@frame:4+net", "frame", "two has no target 'frame'; did you mean frames?"),
        ("whole+top-k:4+net", "top-k:4", "whole has nothing to select from"),
        ("two:frames=4+top-k@frames:4+net", "4", "the budget of frames is given twice"),
        ("two:frames=4+share@frames:0.5+net", "share@frames:0.5", "share decides by itself how much of frames"),
        ("two+top-k@frames:0.5+net", "0.5", "frames of two takes an integer, not 0.5"),
        ("two+top-k@frames:99+net", "99", "must be from 1 to 16"),
        ("two+top-k@frames:4+dice@frames+net", "dice@frames", "frames is already selected by top-k"),
        ("guess+doubt+odds+net", "odds", "doubt already decides what is sent"),
        ("guess+doubt@patches+net", "patches", "takes no '@'"),
        ("two+doubt+net", "doubt", "the device's own prediction, and two makes none"),
        ("whole+rans+net", "rans", "whole codes its bytes itself"),
        ("net:side=9+two", "net:side=9", "net: side=9 is no multiple of 8"),
        ("two+net@mid", "two", "two cannot follow net@mid: takes frames"),
        ("two+still", "two", "two is made for video, still does classification"),
        ("two+half+net", "half", "expects frames float32[?x3x8x8], gets frames float16[4x3x8x8] from two through half"),
    ],
)  # fmt: skip
def test_refusals_name_the_reason_under_the_guilty_item(text, under, says):
    message, span = refusal(text)
    assert says in message
    assert span == under


def test_without_a_spec_function_the_rest_is_unknown_and_still_checked():
    c = compose("two+blind@anywhere")
    assert (c.cut, c.task) == ("anywhere", None)
    shapes = vars(c.stages) | {"figures": None}
    assert set(shapes.values()) == {None}
    assert c.stages.figures == {}
    assert c.licenses()["blind"] == "AGPL-3.0"
    assert compose("whole+blind").entropy is None
    assert refusal("whole+rans+blind")[1] == "rans"


def test_plugin_faults_are_plugin_errors():
    with pytest.raises(PluginError, match="the spec function of buggy failed: ZeroDivisionError") as caught:
        compose("buggy+net")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    for gives, says in (("features", "dict, where an EncoderSpec is due"), ("tuples", "restored 'maps' as tuple")):
        loose = toy("encoder", "loose", f"gives_{gives}")
        with pytest.raises(PluginError, match=f"the spec function of loose gives {says}"):
            compose_spec("loose+net", Registry.of([*COMPONENTS, loose]))
    idle = Registry.of([*COMPONENTS, toy("selector", "idle")])
    with pytest.raises(PluginError, match="abilities of selector idle"):
        compose_spec("two+idle@frames+net", idle)
    knob = Param("n", int, 1, "a knob")
    odd = toy("encoder", "odd", params=(knob,), traits={"targets": ("n",), "selectors": ("top-k:4",)})
    with pytest.raises(PluginError, match="odd sets the default of n at a selector"):
        compose_spec("odd+net", Registry.of([*COMPONENTS, odd]))


def test_a_name_of_two_kinds_keeps_its_prefix():
    registry = Registry.of([*COMPONENTS, toy("entropy", "two")])
    with pytest.raises(SpecError, match="write encoder/two or entropy/two"):
        compose_spec("two+net", registry)
    c = compose_spec("encoder/two+entropy/two+net", registry)
    assert c.spec == "encoder/two+entropy/two+net"
    assert c.weights_key("encoder") == "two+net@input"


def test_weights_keys_hold_what_selects_weights():
    c = compose("two:mode=fine,frames=2+fill:steps=3+dice@frames+zip:9+net:side=16")
    assert c.weights_key("encoder") == "two:mode=fine+net@input:side=16"
    assert c.weights_key("recoverer") == "fill:steps=3+net@input:side=16"
    assert c.weights_key("backbone") == "net:side=16"
    assert c.weights_key("entropy") == "zip"
    with pytest.raises(UsageError, match="no single selector"):
        c.weights_key("selector")
    with pytest.raises(UsageError, match="no single entropy"):
        compose("whole+net").weights_key("entropy")


def test_with_call_checks_anew():
    c = compose("two:frames=2,mode=fine+dice@frames+net")
    swept = c.with_call(frames=8, pixels=0.25)
    assert swept.spec == "two:frames=8,mode=fine,pixels=0.25+dice@frames+rans+net"
    assert swept.keep["frames"][1] == 8
    assert swept.stages.latent["q"].shape == (8,)
    assert c.call["frames"] == 2
    assert c.with_call(frames=4).spec == "two:mode=fine+dice@frames+rans+net"
    assert compose("whole:40+net").with_call(quality=50).spec == "whole:50+net"
    with pytest.raises(SpecError, match="from 1 to 16"):
        c.with_call(frames=99)
    with pytest.raises(UsageError, match=r"no call parameter 'frame'; did you mean frames\?"):
        c.with_call(frame=1)
    with pytest.raises(UsageError, match="no call parameter 'mode'"):
        c.with_call(mode="raw")
    with pytest.raises(UsageError, match="takes a number, a word or true or false"):
        c.with_call(frames=None)
    with pytest.raises(SpecError, match="takes a number"):
        c.with_call(pixels=float("nan"))
    with pytest.raises(SpecError, match="decides by itself"):
        compose("two+share@frames+net").with_call(frames=4)


def test_with_args_varies_any_component():
    c = compose("two+net")
    assert c.with_args("two", mode="fine").spec == "two:mode=fine+rans+net"
    assert c.with_args("net", side=16).spec == "two+rans+net:side=16"
    assert c.with_args("fill", steps=5).spec == "two+fill:steps=5+rans+net"
    assert compose("two+zip+net").with_args("zip", level=1).spec == "two+zip:1+net"
    assert compose("guess+net").with_args("share", of=0.3).spec == "guess+share@patches:0.3+rans+net"
    both = compose("two+dice@frames+dice@pixels+net")
    assert both.with_args("dice@pixels", seed=2).spec == "two+dice@frames+dice@pixels:seed=2+rans+net"
    with pytest.raises(UsageError, match="write dice@frames or dice@pixels"):
        both.with_args("dice", seed=2)
    with pytest.raises(UsageError, match="no component 'zip'; there are two, top-k, fill, rans, net"):
        c.with_args("zip", level=1)


def test_a_composition_cannot_be_altered_into_a_wrong_one():
    c = compose("two+net")
    with pytest.raises(SpecError):
        replace(c, parsed=replace(c.parsed, items=c.parsed.items[:1]))


def test_resolve_backbone():
    alone = resolve_backbone(" net@mid:side=16", REGISTRY)
    assert (alone.bound.name, alone.bound.build["side"], alone.cut) == ("net", 16, "mid")
    assert alone.spec.accepts("mid") == (MAP,)
    assert resolve_backbone("net", REGISTRY).spec.accepts("input") == (KEPT,)
    assert resolve_backbone("blind", REGISTRY).spec is None
    for text, says in [("two", "of kind encoder"), ("two+net", "single component"), ("net@up", "no cut 'up'")]:
        with pytest.raises(SpecError, match=says):
            resolve_backbone(text, REGISTRY)


POOL = {
    "encoder": ["two", "guess", "whole"],
    "entropy": ["rans", "zip"],
    "recoverer": ["none", "fill"],
    "backbone": ["net", "net@mid"],
    "selector": ["top-k@frames", "dice@frames", "share@pixels", "top-k@patches", "share", "doubt", "odds"],
}
KIND = {item: kind for kind, pool in POOL.items() for item in pool}
TARGETS = {"two": {"frames", "pixels"}, "guess": {"patches"}, "whole": set()}


def legal(items: list[str]) -> bool:
    """The slot rules of the design, written down once more."""
    count = Counter(KIND[item] for item in items)
    if count["encoder"] != 1 or count["backbone"] != 1 or count["entropy"] > 1 or count["recoverer"] > 1:
        return False
    encoder = next(item for item in items if KIND[item] == "encoder")
    gates = [item for item in items if item in ("doubt", "odds")]
    if len(gates) > 1 or (gates and encoder != "guess"):
        return False
    if encoder == "whole" and count["entropy"]:
        return False
    if encoder == "two" and "net@mid" in items:
        return False
    chosen: Counter[str] = Counter()
    for item in items:
        if KIND[item] == "selector" and item not in gates:
            target = item.partition("@")[2] or ("patches" if encoder == "guess" else "?")
            if target not in TARGETS[encoder]:
                return False
            chosen[target] += 1
    return max(chosen.values(), default=0) <= 1


def some(pool: list[str], most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(pool), max_size=most) if pool else st.just([])


def plausible(encoder: str) -> st.SearchStrategy[tuple[list[str], ...]]:
    """One of each, Selectors of the Encoder's own targets, and now and then one item too many."""
    own = [item for item in POOL["selector"] if item.partition("@")[2] in TARGETS[encoder]]
    own += ["share", "doubt", "odds"] if encoder == "guess" else []
    backbone = st.sampled_from(POOL["backbone"]).map(lambda item: [item])
    slots = [backbone, some(POOL["entropy"], 1), some(POOL["recoverer"], 1), some(own, 2)]
    return st.tuples(st.just([encoder]), *slots, st.one_of(st.just([]), st.just([]), some(sorted(KIND), 1)))


parts = st.one_of(*map(plausible, TARGETS), st.tuples(*(some(pool, 2) for pool in POOL.values())))
specs = parts.map(lambda lists: [item for part in lists for item in part]).filter(bool).flatmap(st.permutations)


def test_slot_rules_agree_with_an_independent_oracle():
    seen: Counter[bool] = Counter()

    @settings(derandomize=True, deadline=None, max_examples=600)
    @given(specs)
    def check(items):
        seen[legal(items)] += 1
        try:
            c = compose("+".join(items))
        except SpecError:
            assert not legal(items)
            return
        assert legal(items)
        assert compose(c.spec).spec == c.spec
        assert set(c.keep) == TARGETS[c.encoder.name]

    check()
    assert min(seen[True], seen[False]) > 60, "both sides must be met often"
