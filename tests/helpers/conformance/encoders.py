"""A toy Encoder that keeps every promise, and one for each way to break them."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from conformance.toys import mark_of_process, wait_for_others

from semcodec.errors import CorruptStream, SemcodecError
from semcodec.interfaces import Encoder, Latent, Partial
from semcodec.priors import Bits, Counted
from semcodec.tensors import as_array, eight_bits


class Rows(torch.nn.Module, Encoder):
    """Keeps the brightest rows of an image; two layers, of high and of low bits."""

    def __init__(self, features, **params):
        super().__init__()
        self.shape = features["image"].shape
        self.units = {"rows": self.shape[1]}

    def scores(self, analysis, target, masks):
        return analysis.features["image"].mean((1, 3))

    def encode(self, features, analysis, masks, params):
        values = np.moveaxis(eight_bits(features["image"]), -1, 1) // params["step"]
        latents = []
        for row, q in enumerate(values):
            rows = as_array(masks["rows"][row]) if "rows" in masks else np.ones(self.shape[1], bool)
            latents.append(Latent({"rows": rows, "q": q * rows[:, None]}, {"step": params["step"]}))
        return latents

    def write(self, latent, sink):
        q = latent.symbols["q"].astype(np.int32).ravel()
        sink.blob("rows", np.packbits(latent.symbols["rows"]).tobytes(), side=True)
        sink.symbols("high", q >> 4, Counted())
        sink.layer()
        sink.symbols("low", q & 15, Bits(4))
        sink.layer()

    def read(self, source):
        rows = self.unpack(source.blob("rows", self.shape[1] // 8))
        count = int(np.prod(self.shape))
        q = source.symbols("high", count, Counted()) << 4
        if source.layer():
            q = q | source.symbols("low", count, Bits(4))
            source.layer()
        if q.min() < 0 or q.max() > 255:
            raise CorruptStream("a pixel is outside 0 to 255")
        return Latent({"rows": rows, "q": q.astype(np.uint8).reshape(self.shape)}, {"step": source.params["step"]})

    def unpack(self, data):
        if len(data) != self.shape[1] // 8:
            raise CorruptStream("no mask of rows")
        return np.unpackbits(np.frombuffer(data, np.uint8)).astype(bool)

    def restore(self, latent):
        image = torch.from_numpy(latent.symbols["q"])[None].float() * latent.side["step"] / 255
        rows = torch.from_numpy(latent.symbols["rows"]).float()[None, None, :, None]
        return Partial({"image": image * rows}, {} if rows.all() else {"image": rows})


class RestoresDoubles(Rows):
    def restore(self, latent):
        return Partial({"image": super().restore(latent).features["image"].double()})


class MiscountsUnits(Rows):
    def __init__(self, features):
        super().__init__(features)
        self.units = {"rows": self.shape[1] + 1}


class DeclaresOtherLatents(Rows):
    def encode(self, *arguments):
        latents = super().encode(*arguments)
        return [Latent({n: a.astype(np.int32) for n, a in x.symbols.items()}, x.side) for x in latents]


class ForgetsToWrite(Rows):
    def encode(self, *arguments):
        return [Latent(x.symbols, {**x.side, "dark": 1}) for x in super().encode(*arguments)]

    def restore(self, latent):
        partial = super().restore(latent)
        return replace(partial, features={"image": partial.features["image"] / (1 + latent.side.get("dark", 0))})


class Dithers(Rows):
    def encode(self, features, *rest):
        noise = np.random.default_rng().normal(0, 0.1, tuple(features["image"].shape)).astype(np.float32)
        return super().encode({"image": features["image"] + torch.from_numpy(noise)}, *rest)


class DrawsInVain(Rows):
    def encode(self, *arguments):
        torch.rand(1)
        return super().encode(*arguments)


class OverwritesItsInput(Rows):
    def encode(self, features, *rest):
        features["image"].clamp_(0.2, 0.8)
        return super().encode(features, *rest)


class SwitchesMode(Rows):
    def encode(self, *arguments):
        self.train()
        return super().encode(*arguments)


class ScalesByTheBatch(Rows):
    def encode(self, features, *rest):
        return super().encode({"image": features["image"] / features["image"].amax()}, *rest)


class MixesUpTheBatch(Rows):
    def encode(self, *arguments):
        return super().encode(*arguments)[::-1]


class EncodesIntoItsOwn(Rows):
    def encode(self, *arguments):
        latents = super().encode(*arguments)
        self.held = vars(self).get("held", {})
        for row, latent in enumerate(latents):
            self.held.setdefault(row, latent.symbols["q"].copy())[:] = latent.symbols["q"]
            latent.symbols["q"] = self.held[row]
        return latents


class SendsTheFirstRows(Rows):
    """As many as are chosen."""

    def encode(self, features, analysis, masks, params):
        masks = {name: mask.sort(descending=True).values for name, mask in masks.items()}
        return super().encode(features, analysis, masks, params)


class SendsTheOthers(Rows):
    def encode(self, features, analysis, masks, params):
        return super().encode(features, analysis, {name: ~mask for name, mask in masks.items()}, params)


class MixesUpWhatArrives(Rows):
    def restore_batch(self, latents):
        return super().restore_batch(latents)[::-1]


class RestoresIntoItsOwn(Rows):
    def restore(self, latent):
        partial = super().restore(latent)
        self.held = vars(self).get("held", partial.features["image"])
        self.held.copy_(partial.features["image"].clone())
        return replace(partial, features={"image": self.held})


class MarksInBool(Rows):
    def restore(self, latent):
        partial = super().restore(latent)
        return replace(partial, present={name: mask.bool() for name, mask in partial.present.items()})


class HidesNaN(Rows):
    def encode(self, features, *rest):
        return super().encode({"image": features["image"].nan_to_num(0.0, 1.0, 0.0)}, *rest)


class NeedsBothLayers(Rows):
    def read(self, source):
        class Both:
            params, blob, symbols = source.params, source.blob, source.symbols

            def layer(self):
                if not source.layer():
                    raise IndexError("there is no second layer")
                return True

        return super().read(Both())


class TrustsTheMask(Rows):
    def unpack(self, data):
        return np.unpackbits(np.frombuffer(data, np.uint8)).astype(bool)[: self.shape[1]]


class KeepsWhatItReads(Rows):
    def read(self, source):
        rows = self.unpack(source.blob("rows", self.shape[1] // 8))
        q = source.symbols("high", int(np.prod(self.shape)), Counted()) << 4
        if source.layer():
            q = q | source.symbols("low", q.size, Bits(4))
            source.layer()
        return Latent({"rows": rows, "q": q.reshape(self.shape)}, {"step": source.params["step"]})


class TrustsTheSymbols(KeepsWhatItReads):
    def restore(self, latent):
        table = np.arange(256, dtype=np.uint8)
        return super().restore(replace(latent, symbols={**latent.symbols, "q": table[latent.symbols["q"]]}))


class ReadsWithoutARange(KeepsWhatItReads):
    """Values above 255 become others that look as good: the cast wraps."""

    def read(self, source):
        latent = super().read(source)
        latent.symbols["q"] = latent.symbols["q"].astype(np.uint8)
        return latent


class Greets(Rows):
    def encode(self, *arguments):
        print("encoding ...")
        return super().encode(*arguments)


class GreetsFromC(Rows):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        os.write(2, b"a library of C says hello\n")


class PhonesHome(Rows):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        with suppress(OSError):
            socket.create_connection(("198.51.100.7", 9), timeout=0.01).close()


class StepsAside(Rows):
    def encode(self, *arguments):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        return super().encode(*arguments)


class HoldsALambda(Rows):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.quantise = lambda value: value


class ForgetsItself(Rows):
    """Its state leaves out what coding depends on."""

    shift = 0

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.shift = 1

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name != "shift"}

    def encode(self, *arguments):
        latents = super().encode(*arguments)
        return [replace(x, symbols={**x.symbols, "q": x.symbols["q"] // 2 * 2 + self.shift}) for x in latents]


class RemembersTheLatest(Rows):
    """What is sent waits in the instance, as no two threads would find it."""

    def encode(self, *arguments):
        self.latest = super().encode(*arguments)
        wait_for_others()
        return self.latest


class RowsByProcess(Rows):
    def encode(self, *arguments):
        latents = super().encode(*arguments)
        return [replace(x, symbols={**x.symbols, "q": x.symbols["q"] ^ np.uint8(mark_of_process())}) for x in latents]


class ScoresOnTheCPU(Rows):
    def scores(self, analysis, target, masks):
        return super().scores(analysis, target, masks) + torch.linspace(0, 1, self.shape[1])


class Scaled(Rows):
    """Has a gain to train and another that nothing uses."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.gain = torch.nn.Parameter(torch.ones(1))

    def forward_train(self, features, rng):
        image = features["image"] * self.gain
        return [(Partial({"image": image}), image.abs().mean((1, 2, 3)))]


class NamesNoWeights(Scaled):
    def restore(self, latent):
        partial = super().restore(latent)
        return replace(partial, features={"image": partial.features["image"] * self.gain})

    def server_state(self):
        return ()


class TiesStreamsToNothing(NamesNoWeights):
    def server_state(self):
        return None

    def decoder_state(self):
        return {}


class TrainsHalf(Scaled):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.idle = torch.nn.Parameter(torch.ones(1))


class CutsTheGradient(Scaled):
    def forward_train(self, features, rng):
        return [
            (Partial({n: t.detach() for n, t in p.features.items()}), None)
            for p, _ in super().forward_train(features, rng)
        ]


class OneNumberOfBits(Scaled):
    def forward_train(self, features, rng):
        return [(partial, bits.sum()) for partial, bits in super().forward_train(features, rng)]


class FiguresOfTheBatch(Rows):
    def figures(self, features):
        return {"mean": [float(features["image"].mean()), 0.0]}


class TwoOfSix(Encoder):
    """Reads two channels of maps and computes no others."""

    def __init__(self, features):
        self.shape = features["maps"].shape
        self.channels = {"maps": torch.tensor([1, 4])}

    def encode(self, features, analysis, masks, params):
        maps = features["maps"]
        assert maps.shape[1] == 2, "is given channels that it does not read"
        if not maps.isfinite().all():
            raise SemcodecError("the maps hold NaN or infinity")
        return [Latent({"q": q}) for q in (maps.clamp(-8, 8) * 15 + 128).round().byte().cpu().numpy()]

    def write(self, latent, sink):
        sink.symbols("q", latent.symbols["q"].astype(np.int32).ravel(), Bits(8))

    def read(self, source):
        shape = (2, *self.shape[1:])
        q = source.symbols("q", int(np.prod(shape)), Bits(8))
        if q.min() < 0 or q.max() > 255:
            raise CorruptStream("a value is outside 0 to 255")
        return Latent({"q": q.astype(np.uint8).reshape(shape)})

    def restore(self, latent):
        maps, present = torch.zeros(1, *self.shape), torch.zeros(1, self.shape[0], 1, 1)
        maps[:, self.channels["maps"]] = (torch.from_numpy(latent.symbols["q"]).float() - 128) / 15
        present[:, self.channels["maps"]] = 1
        return Partial({"maps": maps}, {"maps": present})
