"""Graphs that compute with 8-bit integers: transformers' weights alone, convolutions by ranges that were calibrated.

Activations of convolutions are never quantised as they come (ConvInteger), which takes a CPU several times as long as
floats do.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from semcodec.artifact.graph_check import OWN, check_graph
from semcodec.artifact.manifest import GraphForm
from semcodec.errors import PluginError, UsageError, first_line

DYNAMIC, STATIC, FLOATS = "dynamic", "static", "float32"
"""How a graph is quantised: weights alone, weights and activations, not at all."""
PRODUCTS = ("MatMul", "Gemm")
CONVOLUTIONS = ("Conv",)


def way_of(data: bytes) -> str:
    """How a graph is quantised: of a transformer the products, of a CNN the convolutions; another one stays."""
    onnx, _ = _tools()
    operators = [node.op_type for node in onnx.load_from_string(data).graph.node]
    if "LayerNormalization" in operators and any(name in operators for name in PRODUCTS):
        return DYNAMIC
    return STATIC if any(name in operators for name in CONVOLUTIONS) else FLOATS


def quantised(data: bytes, form: GraphForm, seen: Sequence[Sequence[Any]], name: str) -> tuple[bytes, str]:
    """A graph in 8 bits where ``way_of`` says so, and that way.

    seen: inputs of calibration, each arrays in the form's order. Raises UsageError where it cannot be quantised,
    PluginError where a tool is missing.
    """
    way = way_of(data)
    if way == FLOATS:
        return data, way
    onnx, quantization = _tools()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        source.write_bytes(data)
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)  # it would advise what the exporter has done already
        try:
            if way == DYNAMIC:
                quantization.quantize_dynamic(
                    source,
                    target,
                    op_types_to_quantize=list(PRODUCTS),
                    per_channel=True,
                    weight_type=quantization.QuantType.QInt8,
                )
            else:
                quantization.quantize_static(
                    source,
                    target,
                    _reader(quantization, form, seen),
                    quant_format=quantization.QuantFormat.QDQ,
                    op_types_to_quantize=list(CONVOLUTIONS),
                    per_channel=True,
                    activation_type=quantization.QuantType.QUInt8,
                    weight_type=quantization.QuantType.QInt8,
                    reduce_range=True,  # x86 without VNNI adds two products in 16 bits, which would overflow
                )
            made = onnx.load(target)
        except Exception as error:  # its tools raise whatever their steps do
            raise UsageError(f"the network {name} cannot be quantised: {first_line(error)}") from error
        finally:
            logging.disable(before)
    used = {node.domain for node in made.graph.node}
    opsets = [one for one in made.opset_import if one.domain in OWN or one.domain in used]
    del made.opset_import[:]
    made.opset_import.extend(opsets)
    small: bytes = made.SerializeToString()
    try:
        check_graph(small)
    except ValueError as error:
        raise UsageError(f"the network {name} cannot be quantised: {error}") from error
    return small, way


def _reader(quantization: Any, form: GraphForm, seen: Sequence[Sequence[Any]]) -> Any:
    """onnxruntime's view of the inputs of calibration."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[Sequence[Any]] = iter(seen)

        def get_next(self) -> dict[str, Any] | None:
            arrays = next(self._left, None)
            return None if arrays is None else dict(zip(form.inputs, arrays, strict=True))

    return Reader()


def _tools() -> tuple[Any, Any]:
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise PluginError("quantising needs onnx and onnxruntime: pip install 'semcodec[export]'") from error
    return onnx, quantization
