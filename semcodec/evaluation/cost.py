"""What stages and ends cost: multiply-accumulates, parameters and memory, counted while they run.

Counting slows down what is counted, so that it is done apart from what is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from semcodec.coding.counting import Count, counting
from semcodec.container.packets import LocalRecord, Packet
from semcodec.pipeline.device import Encoded
from semcodec.pipeline.pipeline import Pipeline
from semcodec.pipeline.timing import Clock
from semcodec.tensors import from_eight_bits, inference

if TYPE_CHECKING:
    from semcodec.data.base import UInt8
    from semcodec.tasks.prediction import Size


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Operations of scaled dot-product attention, by shapes (..., tokens, width)."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


# The kernel that CPUs take, which the counter of older torch does not know.
CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


class Meter(Clock):
    """A clock that also counts.

    macs: by stage, multiply-accumulates of matrix products, convolutions and attention.
    parameters: by stage, elements of the parameters that took part.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs: dict[str, int] = {}
        self._used: dict[str, dict[int, int]] = {}

    @property
    def parameters(self) -> dict[str, int]:
        """By stage, elements of the parameters that took part."""
        return {stage: sum(sizes.values()) for stage, sizes in self._used.items()}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        flops = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
        with super().__call__(stage), _Used(self._used.setdefault(stage, {})), flops:
            yield
        self.macs[stage] = self.macs.get(stage, 0) + flops.get_total_flops() // 2


class _Used(TorchFunctionMode):
    """Notes every parameter that a torch function is called with, once; none of the other end's.

    sizes: by parameter, its elements.
    """

    def __init__(self, sizes: dict[int, int], count: Count | None = None) -> None:
        super().__init__()
        self.sizes, self.count = sizes, count
        self.bytes = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if self.count is None or not self.count.away:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, nn.Parameter) and id(leaf) not in self.sizes:
                    self.sizes[id(leaf)] = leaf.numel()
                    self.bytes += leaf.nbytes
        return func(*args, **(kwargs or {}))


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that tensors which torch's operations made held at once; none of the other end's."""

    def __init__(self, count: Count) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count, self.peak, self._now, self._seen = count, 0, 0, set[int]()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in () if self.count.away else tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return found

    def _note(self, storage: torch.UntypedStorage) -> None:
        try:
            name, size = storage.data_ptr(), storage.nbytes()
        except RuntimeError:  # of a device whose memory has no addresses
            return
        if not name or name in self._seen:
            return
        self._seen.add(name)
        self._now += size
        self.peak = max(self.peak, self._now)
        finalize(storage, self._gone, name, size)

    def _gone(self, name: int, size: int) -> None:
        self._seen.discard(name)
        self._now -= size


@dataclass(frozen=True)
class End:
    """What one sample costs an end: multiply-accumulates, and bytes of the weights that took part and of the tensors
    that were held with them at the most."""

    macs: int
    memory: int


class _Work:
    """Counts what is done inside. macs: in all; count: with what of that is the server's."""

    def __init__(self) -> None:
        self._flops = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
        self.count = Count(lambda: self._flops.get_total_flops() // 2)
        self._used, self._held = _Used({}, self.count), _Held(self.count)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with counting(self.count), self._used, self._flops, self._held:
            yield

    @property
    def memory(self) -> int:
        return self._used.bytes + self._held.peak


class Costs:
    """What each sample of an evaluation costs both ends: of samples that cost the same, one is run again and counted.

    Samples cost the same whose packets have equal call parameters and as many units of each target, and so do those
    that stay on the device. ``whole``: multiply-accumulates of the backbone alone, from pixels to its answer.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.whole = 0
        self._known: dict[tuple[Any, ...], tuple[End, End]] = {}
        self._shared: dict[tuple[Any, ...], int] = {}
        self._samples: dict[tuple[Any, ...], int] = {}

    def add(
        self,
        pixels: UInt8,
        numbers: Sequence[int],
        encoded: Sequence[Encoded],
        records: Sequence[Packet | LocalRecord],
        sizes: Sequence[Size] | None = None,
    ) -> None:
        """A batch: its samples' numbers, what they were encoded to and read back as, the sizes of their sources."""
        if not self._known:
            self.whole = self._count_whole(pixels[:1])
        for row, (one, record) in enumerate(zip(encoded, records, strict=True)):
            params = tuple(sorted(record.params.items())) if isinstance(record, Packet) else None
            kind = params, tuple(sorted(one.kept.items()))
            if kind not in self._known:
                size = None if sizes is None else sizes[row : row + 1]
                self._known[kind] = self._count(pixels[row : row + 1], numbers[row : row + 1], size)
                if len(self.pipeline.composition.tails) > 1:
                    self._shared[kind] = self._count_shared(records[row])
            self._samples[kind] = self._samples.get(kind, 0) + 1

    def figures(self) -> dict[str, float | None]:
        """What a record has of it: means over all samples, and of memory the most. ``device_share``: the device's part
        of what both ends compute; None where neither computes anything. ``macs_whole``: local computing, to compare.
        ``macs_shared``: of a stream for several tasks, what the server computes for all of them alike."""
        total = sum(self._samples.values())
        device, server = (
            sum(self._known[kind][end].macs * count for kind, count in self._samples.items()) / total for end in (0, 1)
        )
        shared = sum(self._shared.get(kind, 0) * count for kind, count in self._samples.items()) / total
        memory = [max(ends[end].memory for ends in self._known.values()) for end in (0, 1)]
        return {
            "macs_device": device,
            "macs_server": server,
            "macs_whole": self.whole,
            **({"macs_shared": shared} if self._shared else {}),
            "device_share": device / (device + server) if device + server else None,
            "memory_device": memory[0],
            "memory_server": memory[1],
        }

    def _count(self, pixels: UInt8, numbers: Sequence[int], sizes: Sequence[Size] | None) -> tuple[End, End]:
        device, server = _Work(), _Work()
        with device():
            encoded = self.pipeline.device.encode_batch(pixels, numbers, None, sizes)
        records = self.pipeline.records(encoded)
        with server():
            self.pipeline.server.decode_batch(records)
        asked = device.count.server
        return End(device.count.total - asked, device.memory), End(server.count.total + asked, server.memory)

    @inference
    def _count_shared(self, record: Packet | LocalRecord) -> int:
        """What of the server's work comes before its tail."""
        server, work = self.pipeline.server, _Work()
        if isinstance(record, Packet):
            with work():
                server.recover([server.restore(server.source(record))])
        return work.count.total

    @inference
    def _count_whole(self, pixels: UInt8) -> int:
        pipeline, work = self.pipeline, _Work()
        backbone = pipeline.stages.backbone
        name = "frames" if "frames" in pipeline.input else "image"
        source = {name: from_eight_bits(pixels)}
        with work(), pipeline.accelerator.autocast():
            for _, batch in backbone.collate([backbone.head(pipeline.accelerator.put(source), "input")]):
                backbone.tail(batch, "input")
        return work.count.total
