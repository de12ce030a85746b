"""Checks of Encoders, in a pipeline around each stand-in that they fit, at every choice of their parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO

import numpy as np
import torch
from torch import Tensor, nn

from semcodec.component import Component
from semcodec.composition.registry import import_target
from semcodec.container.packets import read_packets
from semcodec.errors import SemcodecError
from semcodec.interfaces import Encoder
from semcodec.pipeline.exported import DEVICE
from semcodec.pipeline.pipeline import Pipeline
from semcodec.specs import TensorSpec
from semcodec.tasks.table import get_task
from semcodec.testing.cases import Case, cases
from semcodec.testing.device_half import check_device_half
from semcodec.testing.encoder_masks import check_masks
from semcodec.testing.forgery import check_damage, check_forgery
from semcodec.testing.subject import SAMPLES, Act, CheckSkipped, Subject, no_draws, require, skip_unless
from semcodec.testing.tensors import (
    close,
    comparable,
    copied,
    detached,
    has_parameters,
    octets,
    require_features,
    require_gradient,
    require_partial,
    same,
    spoiled,
    weighed,
)
from semcodec.types import Latent, Partial

ROUNDING = 0.01
"""Share of a network's integers that may differ by one between batch sizes."""


def checks(component: Component) -> Iterator[Callable[[Subject], None]]:
    """The checks of Encoders, in the order in which a failure is best understood."""
    yield check_builds
    yield check_spec
    yield check_round_trip
    if "error" in component.traits:
        yield check_error
    if "max_bytes" in component.traits:
        yield check_size
    yield check_repeatable
    yield check_batch
    yield check_masks
    yield check_restore
    yield check_states
    yield check_not_finite
    yield check_damage
    yield check_forgery
    yield check_gradient
    if DEVICE in component.traits:
        yield check_device_half


def acts(subject: Subject) -> list[Act]:
    """A packet and what is restored of it, at every choice of a word, without those of numbers."""

    def act(case: Case) -> Act:
        def do(encoder: Encoder, number: int) -> bytes:
            there = case.asking(encoder)
            [latent] = there.select(copied(given[number]), [number]).latents
            data = there.pack(latent, number).data
            [(_, partial)] = there.receive(data)
            return data + octets(partial.features, partial.present)

        given = [case.features(1, first=number) for number in range(SAMPLES)]
        return Act(case.composition.spec, case.encoder, do)

    numbers = {p.name for p in subject.component.params if p.type in (int, float)}
    return [act(case) for case in cases(subject) if not numbers & case.setting.keys()]


def whole_acts(subject: Subject) -> list[Act]:
    """A packet and the server's answer to it, of a whole pipeline around every backbone, at the same settings."""

    def act(case: Case) -> Act:
        def do(pipeline: Pipeline, number: int) -> bytes:
            [encoded] = pipeline.encode_batch(given[number : number + 1], [number])
            [answer] = pipeline.decode_batch([*read_packets(BytesIO(encoded.data), pipeline.header)])
            values = get_task(pipeline.composition.task).numbers(answer)
            assert values is not None  # no gate kept it on the device
            said: bytes = values.tobytes()
            return encoded.data + said

        given = case.pixels(SAMPLES)
        return Act(case.composition.spec, case.pipeline, do)

    numbers = {p.name for p in subject.component.params if p.type in (int, float)}
    return [act(case) for case in cases(subject) if not numbers & case.setting.keys()]


def check_builds(subject: Subject) -> None:
    """Some backbone takes it, with everything else at its defaults."""
    cases(subject)


def check_spec(subject: Subject) -> None:
    """What comes out is what the spec function says; every target has as many units as are scored.

    Latents are compared where the Encoder's arrays go by the names of its spec.
    """
    for case in cases(subject):
        with case.name_failures():
            latent_spec = case.composition.stages.latent
            assert latent_spec is not None
            prepared = case.prepare(1)
            for target in subject.component.traits.get("targets", ()):
                scores = case.encoder.scores(prepared.analysis, target, prepared.masks)
                units = case.encoder.units.get(target)
                require(units == scores.shape[-1], f"scores {scores.shape[-1]} {target}, units says {units}")
            [latent] = prepared.latents
            for name, array in latent.symbols.items():
                integers = isinstance(array, np.ndarray) and array.dtype.kind in "iub"
                require(integers, f"the latent's {name!r} is no integer array")
            require(_plain(latent.side), "the latent's side information is not plain data")
            seen = {n: TensorSpec(array.shape, array.dtype.name) for n, array in latent.symbols.items()}
            if seen.keys() == latent_spec.keys():
                wrong = [f"{n} is {seen[n]}, declared is {s}" for n, s in latent_spec.items() if not s.accepts(seen[n])]
                require(not wrong, f"the latent's {'; '.join(wrong)}")
            require_partial(case.encoder.restore(latent), case.restored, "what is restored")
            for name, values in case.encoder.figures(prepared.features).items():
                right = len(values) == 1 and np.isfinite(values[0])
                require(right, f"the figure {name!r} of one sample is {values}")


def check_round_trip(subject: Subject) -> None:
    """Reading a packet gives the Latent that was written: both are restored to the same bits."""
    for case in cases(subject):
        with case.name_failures():
            [latent] = case.prepare(1).latents
            written = case.encoder.restore(latent)
            [(_, read)] = case.receive(case.pack(latent).data)
            require(same(read.features, written.features), "features restored after the trip are not those before it")
            require(same(read.present, written.present), "masks restored after the trip are not those before it")


def check_error(subject: Subject) -> None:
    """What was sent is restored to within the declared bound: the trait ``error``, 0 for exactly."""
    compared = False
    for case in cases(subject):
        bound = _declared(subject, case, "error")
        with case.name_failures():
            features = case.features(2)
            for row, latent in enumerate(case.select(copied(features), range(2)).latents):
                [(_, partial)] = case.receive(case.pack(latent, row).data)
                for name, tensor in partial.features.items():
                    given = features[name][row : row + 1]
                    if tensor.shape != given.shape:
                        continue  # some frames of a clip, say
                    compared = True
                    apart = (tensor.double() - given.double()).abs()
                    if name in partial.present:
                        apart = apart * partial.present[name]
                    worst = float(apart.max())
                    require(worst <= bound, f"{name} is off by {worst:.3g}, more than {bound:.3g}")
    require(compared, "restores other shapes than it is given, which have no error")


def check_size(subject: Subject) -> None:
    """A packet takes no more than the declared bound, the trait ``max_bytes``, of noise and of nothing too."""
    for case in cases(subject):
        bound = _declared(subject, case, "max_bytes")
        with case.name_failures():
            draw, usual = np.random.default_rng(0), case.pixels(1)
            for what, pixels in (
                ("a usual sample", usual),
                ("noise", draw.integers(0, 256, usual.shape, np.uint8)),
                ("black", np.zeros_like(usual)),
            ):
                [encoded] = case.pipeline.encode_batch(pixels, [0])
                size = encoded.bytes_payload + encoded.bytes_side
                require(size <= bound, f"{what} takes {size} bytes, more than {bound}")


def _declared(subject: Subject, case: Case, trait: str) -> float:
    """A trait that is a number or names a function of (features, params)."""
    value = subject.component.traits[trait]
    if isinstance(value, str):
        function = import_target(value, subject.component.name)
        value = function(case.composition.stages.features, case.composition.encoder.params)
    return float(value)


def check_repeatable(subject: Subject) -> None:
    """The same input gives the same bytes, also outside inference mode; nothing else in the process changes."""
    for case in cases(subject):
        with case.name_failures():
            pixels = case.pixels(2)
            first = [record.data for record in case.pipeline.encode_batch(pixels, [0, 1])]
            again = [record.data for record in case.pipeline.encode_batch(pixels, [0, 1])]
            require(first == again, "the same pixels give other bytes the second time")
            with no_draws():
                prepared = case.prepare(2, inference=False)
                bytes_now = [case.pack(latent, i).data for i, latent in enumerate(prepared.latents)]
                case.receive(bytes_now[0])
            require(bytes_now == first, "the same pixels give other bytes outside inference mode")
            features = case.features(2)
            before = copied(features)
            prepared = case.select(features, [0, 1])
            require(same(features, before), "alters its input")
            masks = copied(prepared.masks)
            case.encode(prepared)
            require(same(prepared.masks, masks), "alters the masks")
            _require_mode_kept(case)


def _require_mode_kept(case: Case) -> None:
    if not isinstance(case.encoder, nn.Module):
        return
    for training in (True, False):
        case.encoder.train(training)
        try:
            [latent] = case.prepare(1).latents
            case.encoder.restore(latent)
            kept = all(module.training is training for module in case.encoder.modules())
        finally:
            case.encoder.eval()
        require(kept, "switches between training and evaluation by itself")


def check_batch(subject: Subject) -> None:
    """A sample's packet does not depend on the samples beside it: from equal masks, byte for byte.

    Networks may round otherwise in another batch size; then few integers differ, each by one.
    """
    for case in cases(subject):
        with case.name_failures():
            numbers = [3, 5, 9]
            batch = case.prepare(len(numbers), numbers)
            require(len(batch.latents) == len(numbers), f"{len(batch.latents)} latents of {len(numbers)} samples")
            before = [comparable([latent.symbols, latent.side]) for latent in batch.latents]
            sent = case.pipeline.encode_batch(case.pixels(len(numbers)), numbers)
            for row, number in enumerate(numbers):
                alone = case.row(batch, row)
                for target, scores in alone.scores.items():
                    require(close(scores, batch.scores[target][row : row + 1]), f"scores of {target} depend on others")
                [latent] = case.encode(alone)
                learned = isinstance(case.encoder, nn.Module) and any(True for _ in case.encoder.parameters())
                equal = _compare(latent, batch.latents[row], ROUNDING if learned else 0.0)
                data = case.pack(latent, number).data
                require(data == sent[row].data or not equal, f"sample {row} alone gives other bytes than in a batch")
            after = [comparable([latent.symbols, latent.side]) for latent in batch.latents]
            require(after == before, "what a sample sends changes when others are encoded")


def check_restore(subject: Subject) -> None:
    """Samples are restored alike alone and together, each in its place, and stay as they are when others are."""
    for case in cases(subject):
        with case.name_failures(), torch.inference_mode():
            latents, encoder = case.prepare(SAMPLES).latents, case.encoder
            alone = []
            for latent in latents:
                partial = encoder.restore(latent)
                alone.append((partial, copied(partial.features)))
            together = encoder.restore_batch(latents)
            require(len(together) == len(latents), f"restores {len(together)} samples of {len(latents)}")
            for row, ((one, before), other) in enumerate(zip(alone, together, strict=True)):
                require(same(one.features, before), "features of one sample change when others are restored")
                equal = one.features.keys() == other.features.keys() and all(
                    close(tensor, other.features[name]) for name, tensor in one.features.items()
                )
                require(equal and same(one.present, other.present), f"sample {row} is restored otherwise with others")


def check_states(subject: Subject) -> None:
    """``device_state`` and ``server_state`` name all weights that each end uses: any others may be there or not.

    ``decoder_state`` names some where restoring depends on any.
    """
    for case in cases(subject):
        encoder = case.encoder
        if not isinstance(encoder, nn.Module) or not encoder.state_dict():
            continue
        with case.name_failures(), torch.inference_mode():
            [latent] = case.prepare(1).latents
            data, restored = case.pack(latent).data, encoder.restore(latent)

            def restores(other: Encoder, latent: Latent = latent, wanted: Partial = restored) -> bool:
                found = other.restore(latent)
                return same(found.features, wanted.features) and same(found.present, wanted.present)

            if encoder.device_state() is not None:
                there = case.asking(spoiled(encoder, encoder.device_state()))
                sent = there.pack(there.prepare(1).latents[0]).data
                require(sent == data, "a device uses weights that device_state() does not name")
            if encoder.server_state() is not None:
                named = restores(spoiled(encoder, encoder.server_state()))
                require(named, "restoring uses weights that server_state() does not name")
            tied = encoder.decoder_state() or restores(spoiled(encoder, ()))
            require(tied, "restoring depends on weights, and decoder_state() names none: streams are tied to nothing")


def _compare(a: Latent, b: Latent, rounding: float) -> bool:
    """Whether two latents are equal; fails where they differ by more than rounding."""
    require(a.symbols.keys() == b.symbols.keys(), "a sample alone gives other symbols than in a batch")
    equal = bool(comparable(a.side) == comparable(b.side))
    require(equal or rounding, "a sample alone gives other side information than in a batch")
    for name, array in a.symbols.items():
        other = b.symbols[name]
        require(array.shape == other.shape, f"{name} of a sample alone has another shape than in a batch")
        apart = np.abs(array.astype(np.int64) - other.astype(np.int64))
        few = not apart.any() or (int(apart.max()) <= 1 and float((apart > 0).mean()) <= rounding)
        require(few, f"{name} of a sample alone differs from that in a batch")
        equal = equal and not bool(apart.any())
    return equal


def check_not_finite(subject: Subject) -> None:
    """NaN and infinity in the input are refused in words, or documented ("NaN" in a docstring) and never come out."""
    target = subject.registry.load(subject.component)
    said = f"{inspect.getdoc(target)} {inspect.getdoc(target.encode)}"
    for case in cases(subject):
        for bad in (float("nan"), float("inf")):
            with case.name_failures():
                features = case.features(1)
                for tensor in features.values():
                    if tensor.is_floating_point():
                        tensor[tuple(side // 2 for side in tensor.shape)] = bad
                try:
                    prepared = case.select(features, [0])
                    [latent] = case.encode(prepared)
                except SemcodecError:
                    continue
                require("NaN" in said, f"{bad} in the input is neither refused nor spoken of in a docstring")
                [(_, read)] = case.receive(case.pack(latent).data)
                require_partial(read, case.restored, f"what is restored of {bad}")


def check_gradient(subject: Subject) -> None:
    """A gradient reaches every parameter by ``forward_train``, which gives features of the same form as ``restore``,
    and bits a sample. Values are not compared: training may put noise in the place of rounding.
    """
    case, *_ = cases(subject)
    encoder = case.encoder
    skip_unless(has_parameters(encoder) and not subject.component.traits.get("models"), "has no parameters of its own")
    assert isinstance(encoder, nn.Module)
    skip_unless(
        type(encoder).forward_train is not Encoder.forward_train,
        "its recipe trains it in another way than by forward_train()",
    )
    features = case.features(2, whole=True)

    def loss(learner: nn.Module) -> Tensor:
        assert isinstance(learner, Encoder)
        total = torch.zeros(())
        try:
            coded = learner.forward_train(copied(features), np.random.default_rng(0))
        except SemcodecError as reason:
            raise CheckSkipped(f"forward_train() waits for its recipe: {reason}") from reason
        require(coded, "forward_train() gives no operating point")
        for partial, bits in coded:
            require_features(detached(partial.features), case.restored, "what forward_train() gives", batch=2)
            total = total + weighed(partial.features)
            if bits is not None:
                right = bits.shape == (2,) and bool((bits >= 0).all())
                require(right, f"bits a sample are two numbers of at least 0, not {bits.tolist()}")
                total = total + bits.sum()
        return total

    with case.name_failures():
        require_gradient(encoder, loss)


def _plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str | bytes | np.ndarray | np.generic)
