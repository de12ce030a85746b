"""Toys of the other kinds: one that keeps every promise, then those that each break one."""

from __future__ import annotations

import os
import sys
import threading
import time
import zlib

import numpy as np
import torch

from semcodec.errors import CorruptStream, SemcodecError
from semcodec.interfaces import EntropyStage, Recoverer, Selector
from semcodec.priors import Indexed
from semcodec.testing.stand_in_models import Clips, Images, Patches
from semcodec.testing.stand_ins import FRAMES


def wait_for_others():
    """Gives other threads time to do the same; nothing in the main thread, which is alone."""
    if threading.current_thread() is not threading.main_thread():
        time.sleep(0.01)


def mark_of_process():
    """0 or 1: by the seed of string hashes, that differs from process to process, so that every run is alike."""
    seed = os.environ.get("PYTHONHASHSEED", "0")
    return int(seed) % 2 if seed.isdigit() else 0


class Words(EntropyStage):
    """Four bytes a symbol after one of tables."""

    def encode(self, symbols, prior):
        return b"t" + symbols.astype("<i4").tobytes()

    def decode(self, data, prior, count):
        if len(data) != 4 * count + 1:
            raise CorruptStream(f"{len(data)} bytes are not {count} symbols")
        return np.frombuffer(data, "<i4", offset=1).astype(np.int32)

    def side_bytes(self, data, prior):
        return 1


class Shorts(Words):
    def encode(self, symbols, prior):
        return super().encode(symbols.astype(np.int16), prior)


class RefusesEmpty(Words):
    def encode(self, symbols, prior):
        if not symbols.size:
            raise SemcodecError("nothing to code")
        return super().encode(symbols, prior)


class Counts(Words):
    calls = 0

    def encode(self, symbols, prior):
        self.calls += 1
        return bytes([self.calls % 256]) + super().encode(symbols, prior)[1:]


class SortsInPlace(Words):
    def encode(self, symbols, prior):
        data = super().encode(symbols, prior)
        symbols.sort()
        return data


class DecodesIntoItsOwn(Words):
    def decode(self, data, prior, count):
        found = super().decode(data, prior, count)
        held = vars(self).setdefault(f"of {count}", found)
        held[:] = found
        return held


class AltersThePrior(Words):
    def decode(self, data, prior, count):
        if isinstance(prior, Indexed):
            prior.index[:] = 0
        return super().decode(data, prior, count)


class InflatesAll(Words):
    def encode(self, symbols, prior):
        return b"t" + zlib.compress(symbols.astype("<i4").tobytes())

    def decode(self, data, prior, count):
        try:
            return super().decode(b"t" + zlib.decompress(data[1:]), prior, count)
        except zlib.error as error:
            raise CorruptStream("no symbols") from error


class AllTables(Words):
    def side_bytes(self, data, prior):
        return len(data) + 1


class BlamesItself(Words):
    def decode(self, data, prior, count):
        if len(data) != 4 * count + 1:
            raise ValueError("wrong length")
        return super().decode(data, prior, count)


class Unchecked(Words):
    def decode(self, data, prior, count):
        return np.frombuffer(data, "<i4", offset=1).astype(np.int32)


class TakesWhatComes(Words):
    def decode(self, data, prior, count):
        return np.frombuffer(data, "<i4", len(data) // 4 if len(data) % 4 else 0, len(data) % 4 and 1).astype(np.int32)


class Grey(Recoverer):
    """Missing values become a half."""

    def __init__(self, features):
        pass

    def recover(self, partial):
        filled = {n: torch.where(m.bool(), partial.features[n], 0.5) for n, m in partial.present.items()}
        return {**partial.features, **filled}


class GreyOfTheLatest(Grey):
    def recover(self, partial):
        self.partial = partial
        wait_for_others()
        return super().recover(self.partial)


class AddsABatchMean(Grey):
    def recover(self, partial):
        features = super().recover(partial)
        for name, mask in partial.present.items():
            features[name] = features[name] + (1 - mask) * features[name].mean()
        return features


class FillsWithNaN(Grey):
    def recover(self, partial):
        return {n: t / partial.present[n] if n in partial.present else t for n, t in partial.features.items()}


class Brightens(Grey):
    def recover(self, partial):
        features = super().recover(partial)
        return {n: t + 0.01 if n in partial.present else t for n, t in features.items()}


class HalvesTheUnmarked(Grey):
    def recover(self, partial):
        return super().recover(partial) if partial.present else {n: t / 2 for n, t in partial.features.items()}


class RecoversIntoItsOwn(Grey):
    def recover(self, partial):
        features = super().recover(partial)
        for name, tensor in features.items():
            held = vars(self).setdefault(f"{name} of {tuple(tensor.shape)}", tensor)
            held.copy_(tensor.clone())
            features[name] = held
        return features


class FillsInPlace(Grey):
    def recover(self, partial):
        for name, mask in partial.present.items():
            partial.features[name][~mask.bool().expand_as(partial.features[name])] = 0.5
        return partial.features


def ranked(scores):
    return scores.argsort(dim=-1, descending=True, stable=True)


def first(order, count):
    return torch.zeros_like(order, dtype=torch.bool).scatter_(-1, order[..., :count], True)


def count_of(budget, units):
    return min(units, budget if isinstance(budget, int) else max(1, round(budget * units)))


class Best(Selector):
    def __init__(self, budget=None):
        pass

    def keep(self, scores, budget, sequence):
        if scores.isnan().any():
            raise SemcodecError("the scores are NaN")
        return first(self.order(scores), count_of(budget, scores.shape[-1]))

    def order(self, scores):
        return ranked(scores)


class Worst(Best):
    def order(self, scores):
        return ranked(-scores)


class OneMore(Best):
    def keep(self, scores, budget, sequence):
        return super().keep(scores, count_of(budget, scores.shape[-1]) + 1, sequence)


class NothingAtAll(Best):
    def keep(self, scores, budget, sequence):
        return super().keep(scores, budget, sequence) & (scores > 0)


class BatchOrder(Best):
    uses_scores = False

    def order(self, scores):
        return ranked((scores - scores.mean()).abs())


class Shuffles(Best):
    uses_scores = False

    def order(self, scores):
        return torch.rand(scores.shape).argsort(-1)


class TakesNaN(Best):
    def keep(self, scores, budget, sequence):
        return super().keep(scores.nan_to_num(), budget, sequence)


class Sure(Selector):
    def gate(self, prediction):
        return ~(prediction.softmax(1).amax(1) >= 0.8)  # NaN is no certainty


class SureOfTheLatest(Sure):
    def gate(self, prediction):
        self.prediction = prediction
        wait_for_others()
        return super().gate(self.prediction)


class SurerThanTheRest(Selector):
    def gate(self, prediction):
        top = prediction.softmax(1).amax(1)
        return top < top.mean()


class TakesNaNForSure(Selector):
    def gate(self, prediction):
        return ~(prediction.softmax(1).amax(1) >= 0.8).logical_or(prediction.isnan().any(1))


class NaiveSoftmax(Selector):
    def gate(self, prediction):
        p = prediction.exp() / prediction.exp().sum(1, keepdim=True)
        return ~(p.amax(1) >= 0.8)


class Tentative(Selector):
    def gate(self, prediction):
        return prediction.softmax(1).amax(1)


class Half(Selector):
    """Two frames, of the example's sixteen, where the spec does not say."""

    def point(self, composition, sequence):
        return [{} if "frames" in composition.given else {"frames": 2} for _ in sequence]


class SetsByTheLatest(Selector):
    """An odd number of frames for some samples, by what waits in the instance."""

    def point(self, composition, sequence):
        self.sequence = sequence
        wait_for_others()
        return [{} if "frames" in composition.given else {"frames": 1 + n % 2} for n in self.sequence]


class SetsWhatIsNotThere(Selector):
    def point(self, composition, sequence):
        return [{"frame": 2} for _ in sequence]


class SetsTheFirstOnly(Half):
    def point(self, composition, sequence):
        return super().point(composition, sequence)[:1]


class SetsByPlace(Half):
    def point(self, composition, sequence):
        return [{**knobs, "quality": 1 + i} for i, knobs in enumerate(super().point(composition, sequence))]


class SetsRegardless(Selector):
    def point(self, composition, sequence):
        return [{"frames": 2} for _ in sequence]


class Doubles(Clips):
    def tail(self, features, cut):
        return super().tail(features, cut).double()


class SwapsSides(Clips):
    def head(self, x, cut):
        return {n: t.transpose(-1, -2) if n == "frames" else t for n, t in super().head(x, cut).items()}


class ClipsOfTheLatest(Clips):
    def tail(self, features, cut):
        self.features = features
        wait_for_others()
        return super().tail(self.features, cut)


class AttendsToTheLatest(Patches):
    """What attention is computed of waits in the instance, as by a hook."""

    def attend(self, features, scores="mean"):
        self.features = features
        wait_for_others()
        return super().attend(self.features, scores)


class BatchNormed(Clips):
    def tail(self, features, cut):
        logits = super().tail(features, cut)
        return logits - logits.mean(0)


class WholeClips(Clips):
    def tail(self, features, cut):
        return super().tail({n: t.view(len(t), FRAMES, *t.shape[2:]) for n, t in features.items()}, cut)


class Drops(Clips):
    def tail(self, features, cut):
        return torch.nn.functional.dropout(super().tail(features, cut), training=True)


class OtherWhenCut(Clips):
    def tail(self, features, cut):
        return super().tail(features, cut) + (cut == "late")


# -- guests that behave badly, one of each kind that checks are the same for -----------------------------------------


class WordsAloud(Words):
    def decode(self, data, prior, count):
        print("decoding", file=sys.stderr)
        return super().decode(data, prior, count)


class WordsUnderLock(Words):
    def __init__(self):
        self.lock = threading.Lock()


class WordsOfTheLatest(Words):
    def encode(self, symbols, prior):
        self.symbols = symbols
        wait_for_others()
        return super().encode(self.symbols, prior)


class WordsByProcess(Words):
    def encode(self, symbols, prior):
        return bytes([mark_of_process()]) + super().encode(symbols, prior)[1:]


class WordsOfSize(Words):
    def __init__(self, size=1):
        if size > 4:
            raise ValueError("no word is as long as that")


class GreyAloud(Grey):
    def recover(self, partial):
        print("recovering")
        return super().recover(partial)


class GreyUnderLock(Grey):
    def __init__(self, features):
        self.lock = threading.Lock()


class Toned(torch.nn.Module, Grey):
    """Missing values become what was learned."""

    def __init__(self, features):
        super().__init__()
        self.tone = torch.nn.Parameter(torch.tensor(0.5))

    def recover(self, partial):
        filled = {n: torch.where(m.bool(), partial.features[n], self.fill()) for n, m in partial.present.items()}
        return {**partial.features, **filled}

    def fill(self):
        return self.tone


class TonedByNothing(Toned):
    def fill(self):
        return self.tone.item()


class BestAloud(Best):
    def order(self, scores):
        print("choosing")
        return super().order(scores)


class BestUnderLock(Best):
    def __init__(self, budget=None):
        self.lock = threading.Lock()


class BestOfTheLatest(Best):
    def order(self, scores):
        self.scores = scores
        wait_for_others()
        return super().order(self.scores)


class BestByProcess(Best):
    """Ties go to the first, or in another process to the last."""

    def order(self, scores):
        return scores.shape[-1] - 1 - ranked(scores.flip(-1)) if mark_of_process() else ranked(scores)


class BestOfFew(Best):
    def __init__(self, budget=None, share=0.1):
        if share > 0.5:
            raise ValueError("that is not few")


class ClipsAloud(Clips):
    def tail(self, features, cut):
        print("answering")
        return super().tail(features, cut)


class ClipsUnderLock(Clips):
    def __init__(self, classes):
        super().__init__(classes)
        self.lock = threading.Lock()


class OwnClasses(Clips):
    def __init__(self, classes):
        super().__init__([*classes, "another"])


class Linear(torch.nn.Module, Images):
    """Weights its classes, and goes from cut to cut by itself."""

    def __init__(self, classes):
        super().__init__()
        self.classes = list(classes)
        self.gain = torch.nn.Parameter(torch.ones(len(classes)))

    def tail(self, features, cut):
        return Images.tail(self, features, cut) * self.gain

    def advance(self, features, cut, to):
        return features if cut == to else self.head(features, to)

    def narrowed(self, cut, channels):
        return lambda x: {n: t[:, channels[n]] for n, t in self.head(x, cut).items()}


class LinearOfOne(Linear):
    def tail(self, features, cut):
        return Images.tail(self, features, cut) * self.gain.detach()


class LinearOfNothing(Linear):
    def tail_state(self, cut):
        return ()


class DimsItsInput(Linear):
    def head(self, x, cut):
        x = {name: tensor.mul_(0.999) for name, tensor in x.items()}
        return super().head(x, cut)


class AdvancesTooFar(Linear):
    def advance(self, features, cut, to):
        return {n: t + 1 for n, t in super().advance(features, cut, to).items()}


class NarrowsToTheFirst(Linear):
    def narrowed(self, cut, channels):
        return lambda x: {n: t[:, : len(channels[n])] for n, t in self.head(x, cut).items()}


class Finds(Images):
    """One box of the size of the image, with the scores of its colours."""

    def tail(self, features, cut):
        logits = super().tail(self.head(features, "maps"), "maps")
        box = logits.new_tensor([24.0, 16.0, 48.0, 32.0]).expand(len(logits), 4)
        return torch.cat([box, self.scores(logits)], 1)[:, None]

    def scores(self, logits):
        return logits.sigmoid()


class FindsMoreThanAll(Finds):
    def scores(self, logits):
        return logits.exp() + 1


class ClipsOf(Clips):
    """A member of a family."""

    def __init__(self, classes, model):
        super().__init__(classes)
        self.model = model


class DrawsAnyway(Clips):
    def tail(self, features, cut):
        torch.rand(1)
        return super().tail(features, cut)


class SureByChance(Sure):
    def gate(self, prediction):
        np.random.random()
        return super().gate(prediction)


class HalfByChance(Half):
    def point(self, composition, sequence):
        np.random.random()
        return super().point(composition, sequence)


class AddsAName(Grey):
    def recover(self, partial):
        return {**super().recover(partial), "confidence": torch.ones(len(next(iter(partial.features.values()))))}


class GreyOfTheCPU(Grey):
    def recover(self, partial):
        grey = {n: torch.full(t.shape, 0.5) for n, t in partial.features.items()}
        filled = {n: torch.where(m.bool(), partial.features[n], grey[n]) for n, m in partial.present.items()}
        return {**partial.features, **filled}


class BestOnTheCPU(Best):
    def keep(self, scores, budget, sequence):
        return super().keep(scores.cpu(), budget, sequence)


class SureOnTheCPU(Sure):
    def gate(self, prediction):
        return super().gate(prediction.cpu())


class ClipsOfTheCPU(Clips):
    def tail(self, features, cut):
        logits = super().tail(features, cut)
        return logits + torch.zeros(logits.shape)


class BrightensWhatIsBesideGaps(Grey):
    def recover(self, partial):
        gaps = not all(bool(mask.all()) for mask in partial.present.values())
        return {n: t + 0.01 * gaps if n in partial.present else t for n, t in super().recover(partial).items()}


class WhatIsPositive(Selector):
    uses_scores = False

    def keep(self, scores, budget, sequence):
        return scores > 0


class DrawsBeside(Best):
    def order(self, scores):
        torch.rand(1)
        return super().order(scores)
