"""What an ONNX graph is made of, looked at before a runtime sees it: no operator of anybody's own, nothing outside it.

ONNX files are protocol buffers; a reader of the few fields that matter is short, and needs no package. What a graph
would compute is not known here: the memory that it may take is bounded where it runs (``sessions``).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

MODEL_GRAPH, MODEL_OPSETS, MODEL_TRAINING, MODEL_FUNCTIONS = 7, 8, 20, 25
GRAPH_NODES, GRAPH_INITIALIZERS, GRAPH_SPARSE = 1, 5, 15
NODE_OPERATOR, NODE_ATTRIBUTES, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS = 5, 10
ATTRIBUTE_GRAPHS = (6, 11, 22, 23)
"""Graphs and sparse tensors inside an operator."""
TENSOR_DIMS, TENSOR_EXTERNAL, TENSOR_LOCATION = 1, 13, 14
OPSET_DOMAIN = 1
OWN = ("", "ai.onnx")

_NAMES = """
    Abs Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand
    Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
    GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax LpNormalization MatMul MatMulInteger Max MaxPool Mean Min Mish Mod Mul Neg Not Or Pad
    Pow PRelu QLinearConv QLinearMatMul QuantizeLinear Range Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize RMSNormalization Round ScatterElements ScatterND Selu
    Shape Sigmoid Sign Sin Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile TopK
    Transpose Trilu Unsqueeze Where
"""
OPERATORS = frozenset(_NAMES.split())
"""Of ONNX itself, that compute on plain tensors: no control flow, no sequences, no text, no random numbers."""

Fields = Iterator[tuple[int, int | memoryview]]


def check_graph(data: bytes) -> None:
    """Raise ValueError, in words, for a graph that no device runs."""
    graphs = 0
    for number, value in _fields(memoryview(data)):
        if number in (MODEL_TRAINING, MODEL_FUNCTIONS):
            raise ValueError("it defines functions of its own")
        if number == MODEL_OPSETS:
            domains = [_text(v) for n, v in _fields(_inside(value)) if n == OPSET_DOMAIN]
            if any(domain not in OWN for domain in domains):
                raise ValueError(f"it has operators of {domains[0]!r}")
        if number == MODEL_GRAPH:
            graphs += 1
            _check(_inside(value))
    if graphs != 1:
        raise ValueError("it is no graph")


def _check(graph: memoryview) -> None:
    for number, value in _fields(graph):
        if number == GRAPH_NODES:
            _check_node(_inside(value))
        elif number == GRAPH_INITIALIZERS:
            _check_tensor(_inside(value))
        elif number == GRAPH_SPARSE:
            raise ValueError("it holds sparse tensors")


def _check_node(node: memoryview) -> None:
    operator, domain = "", ""
    for number, value in _fields(node):
        if number == NODE_OPERATOR:
            operator = _text(value)
        elif number == NODE_DOMAIN:
            domain = _text(value)
        elif number == NODE_ATTRIBUTES:
            for inner, part in _fields(_inside(value)):
                if inner in ATTRIBUTE_GRAPHS:
                    raise ValueError("an operator holds a graph of its own")
                if inner in (ATTRIBUTE_TENSOR, ATTRIBUTE_TENSORS):
                    _check_tensor(_inside(part))
    if domain not in OWN or operator not in OPERATORS:
        raise ValueError(f"it has the operator {f'{domain}::' * bool(domain)}{operator}, which devices do not run")


def _check_tensor(tensor: memoryview) -> None:
    """A tensor's numbers are in the file, so there are no more of them than it has halves of bytes."""
    sides: list[int] = []
    for number, value in _fields(tensor):
        if number == TENSOR_EXTERNAL or (number == TENSOR_LOCATION and value):
            raise ValueError("it takes numbers from another file")
        if number == TENSOR_DIMS:
            sides += [value] if isinstance(value, int) else _packed(value)
    if any(side >= 1 << 63 for side in sides) or prod(sides) > 2 * len(tensor):
        raise ValueError(f"a tensor of {'x'.join(map(str, sides[:8]))} has fewer bytes than that")


def _fields(message: memoryview) -> Fields:
    """By number, integers and what has a length. Raises ValueError where the bytes end too early."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("it is no graph")
        if at + size > len(message):
            raise ValueError("it is cut short")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i in range(10):
        if at + i >= len(message):
            raise ValueError("it is cut short")
        value |= (message[at + i] & 127) << 7 * i
        if message[at + i] < 128:
            return value, at + i + 1
    raise ValueError("it is no graph")


def _packed(values: memoryview) -> list[int]:
    found, at = [], 0
    while at < len(values):
        value, at = _varint(values, at)
        found.append(value)
    return found


def _inside(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("it is no graph")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_inside(value)[:100]).decode("utf-8", "replace")
