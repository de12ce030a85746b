"""Graphs as functions of arrays, by onnxruntime: in bounded memory, on as many threads as the process may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from semcodec.artifact.graph_check import check_graph
from semcodec.artifact.manifest import GraphForm
from semcodec.errors import PluginError, WeightsError, first_line
from semcodec.specs import TensorSpec

MOST_MEMORY = 2 << 30
"""Bytes that all graphs of a process may hold at a time, with what they compute."""
_TYPES = {"float32": "tensor(float)", "float64": "tensor(double)", "int64": "tensor(int64)", "uint8": "tensor(uint8)"}
_QUIET = 4
"""onnxruntime tells what goes wrong in exceptions; this much and no more goes to stderr beside."""


Listener = Callable[[Sequence[Any]], None]


class Session:
    """One graph. form: what it takes and gives, of one sample each. what: the file and graph that messages name.

    listen: told of every call's arrays, as calibration wants them.
    """

    def __init__(self, data: bytes, form: GraphForm, what: str, listen: Listener | None = None) -> None:
        self.form, self.what, self._listen = form, what, listen
        try:
            check_graph(data)
        except ValueError as error:
            raise WeightsError(f"{what} is no graph for a device: {error}") from error
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads, options.inter_op_num_threads = threads(), 1
        options.add_session_config_entry("session.use_env_allocators", "1")
        try:
            # Constants are folded when a graph is exported; to fold them here would be outside the bounds of memory.
            self._session = runtime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
            )
        except Exception as error:  # onnxruntime has a class for each of its status codes
            raise WeightsError(f"{what} cannot be loaded: {_reason(error)}") from error
        self._check(self._session.get_inputs(), form.inputs)
        self._check(self._session.get_outputs(), form.outputs)

    def __call__(self, *arrays: Any) -> tuple[Any, ...]:
        """Arrays with a batch axis in the order of the form's inputs, to those of its outputs. Raises WeightsError."""
        if self._listen is not None:
            self._listen(arrays)
        feed = {
            name: np.ascontiguousarray(array, spec.dtype)
            for (name, spec), array in zip(self.form.inputs.items(), arrays, strict=True)
        }
        try:
            found = self._session.run(list(self.form.outputs), feed)
        except Exception as error:
            raise WeightsError(f"{self.what} does not run: {_reason(error)}") from error
        batch = len(arrays[0])
        for array, (name, spec) in zip(found, self.form.outputs.items(), strict=True):
            if array.shape != (batch, *spec.shape) or str(array.dtype) != spec.dtype:
                raise WeightsError(
                    f"{self.what} gives {name} {array.dtype}{list(array.shape[1:])}, where {spec} is due"
                )
        return tuple(found)

    def _check(self, given: Any, due: dict[str, TensorSpec]) -> None:
        there = {one.name: one for one in given}
        for name, spec in due.items():
            one = there.get(name)
            if one is None or one.type != _TYPES.get(spec.dtype) or not _fits(one.shape[1:], spec):
                raise WeightsError(f"{self.what} has no {name} of {spec}, as its manifest says; export it again")
        if len(there) != len(due):
            raise WeightsError(f"{self.what} has {len(there)} tensors where its manifest says {len(due)}")


def _fits(sides: Sequence[int | str], spec: TensorSpec) -> bool:
    """Whether the sides behind the batch are those of a spec; words stand for what only running tells."""
    same = (not isinstance(a, int) or a == b for a, b in zip(sides, spec.shape, strict=False))
    return len(sides) == len(spec.shape) and all(same)


def threads() -> int:
    """As many as OMP_NUM_THREADS says, else as many as there are cores for this process."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _runtime() -> Any:
    """onnxruntime, whose graphs share one arena of bounded size. Raises PluginError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise PluginError(f"graphs run by onnxruntime: pip install 'semcodec[device]' ({first_line(error)})") from error
    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    # Extended by what is asked for rather than twofold; the others are onnxruntime's own choice.
    form = {"max_mem": MOST_MEMORY, "arena_extend_strategy": 1, "initial_chunk_size_bytes": -1}
    arena = onnxruntime.OrtArenaCfg({**form, "max_dead_bytes_per_chunk": -1})
    onnxruntime.create_and_register_allocator(memory, arena)
    return onnxruntime


def _reason(error: Exception) -> str:
    """One line of onnxruntime's, without the places in its sources."""
    text = first_line(error)
    return text.rpartition(" : ")[2][:300]
