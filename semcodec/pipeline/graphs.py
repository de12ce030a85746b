"""Networks of torch as ONNX graphs, each run beside torch before it is kept."""

from __future__ import annotations

import warnings
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from semcodec.artifact.graph_check import check_graph
from semcodec.artifact.manifest import GraphForm
from semcodec.artifact.sessions import Session
from semcodec.device_half import Network
from semcodec.errors import PluginError, UsageError, first_line
from semcodec.specs import TensorSpec
from semcodec.tensors import as_array

OPSET = 20
BATCHES = (1, 3)
"""Sizes at which a graph is compared; the exporter is shown another one, and may have taken it for the only one."""
SHOWN = 2
TOLERANCE = 1e-3
"""By how much a graph's values may differ from torch's, over the greatest of them."""


class _Function(nn.Module):
    """A network's function as a module, which is what the exporter takes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return as_tuple(self.network.function(*tensors))


def as_tuple(found: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a network's function gives, always several."""
    return found if isinstance(found, tuple) else (found,)


def export_graph(network: Network, name: str) -> tuple[bytes, GraphForm]:
    """A network as a graph whose batch is open and all else fixed.

    Raises UsageError where it cannot be one, PluginError where an exporter is missing.
    """
    for needed in ("onnx", "onnxscript"):
        try:
            __import__(needed)
        except ImportError as error:
            raise PluginError(f"export needs {needed}: pip install 'semcodec[export]'") from error
    module, inputs = _Function(network).eval(), example(network, SHOWN)
    with torch.no_grad():
        found = module(*inputs)  # first, so that what is made on a first call is not made of the exporter's stand-ins
    open_batch = ({0: torch.export.Dim.DYNAMIC},) * len(inputs)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            made: Any = torch.onnx.export(
                module,
                tuple(inputs),
                input_names=list(network.inputs),
                output_names=list(network.outputs),
                dynamic_shapes=(open_batch,),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            data: bytes = made.model_proto.SerializeToString()
        check_graph(data)
    except Exception as error:  # the exporter raises whatever the network's code does under tracing
        raise UsageError(f"the network {name} cannot become a graph: {_told(error)}") from error
    outputs = {
        output: TensorSpec(tuple(t.shape[1:]), str(t.dtype).removeprefix("torch."))
        for output, t in zip(network.outputs, found, strict=True)
    }
    form = GraphForm(dict(network.inputs), outputs)
    compare(data, form, network, name)
    return data, form


def compare(data: bytes, form: GraphForm, network: Network, name: str) -> None:
    """Raise UsageError where a graph does not give what torch does, at batches that the exporter was not shown."""
    session = Session(data, form, f"the network {name}")
    for batch in BATCHES:
        inputs = example(network, batch)
        with torch.no_grad():
            due = [as_array(t) for t in as_tuple(network.function(*inputs))]
        found = session(*(as_array(t) for t in inputs))
        for output, here, there in zip(network.outputs, found, due, strict=True):
            apart = float(np.abs(here - there).max(initial=0))
            if not apart <= TOLERANCE * max(1.0, float(np.abs(there).max(initial=0))):
                raise UsageError(
                    f"the network {name} is another one as a graph: {output} differs by {apart:.3g} at {batch} samples"
                )


def example(network: Network, batch: int) -> list[Tensor]:
    """Inputs to run a network on, the same every time: numbers in [0, 1]."""
    generator = torch.Generator().manual_seed(batch)
    tensors = []
    for spec in network.inputs.values():
        shape = [side or 0 for side in spec.shape]
        tensors.append(torch.rand(batch, *shape, generator=generator).to(getattr(torch, spec.dtype)))
    return tensors


def _told(error: Exception) -> str:
    """The exporter's own cause where it has one, in a line."""
    return f"{type(error).__name__}: {first_line(error.__cause__ or error)}"[:300]
