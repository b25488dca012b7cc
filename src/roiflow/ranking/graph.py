"""An ONNX graph, written node by node: a value takes the operators of a numpy array.

Equal graphs give equal bytes: values are named by the order in which they are made, and nothing of
time, folder or version is kept beside the operator set.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

OPERATORS = 20
IR_VERSION = 10
"""What every onnxruntime since 1.17 reads; the newest would shut out the serving image's."""

Dim = int | str


@dataclass(frozen=True)
class Value:
    """What a node gives, or an input; broadcasts as numpy does."""

    graph: "Graph"
    name: str

    def __add__(self, other: "Operand") -> "Value":
        return self.graph.node("Add", self, other)

    def __sub__(self, other: "Operand") -> "Value":
        return self.graph.node("Sub", self, other)

    def __rsub__(self, other: "Operand") -> "Value":
        return self.graph.node("Sub", other, self)

    def __mul__(self, other: "Operand") -> "Value":
        return self.graph.node("Mul", self, other)

    def __truediv__(self, other: "Operand") -> "Value":
        return self.graph.node("Div", self, other)

    def __matmul__(self, other: "Operand") -> "Value":
        return self.graph.node("MatMul", self, other)

    def __and__(self, other: "Operand") -> "Value":
        return self.graph.node("And", self, other)

    def __or__(self, other: "Operand") -> "Value":
        return self.graph.node("Or", self, other)

    def equals(self, other: "Operand") -> "Value":
        """== element by element; a value's own == says whether it is the same value."""
        return self.graph.node("Equal", self, other)

    def above(self, other: "Operand") -> "Value":
        """> element by element."""
        return self.graph.node("Greater", self, other)

    def at_most(self, other: "Operand") -> "Value":
        """<= element by element."""
        return self.graph.node("LessOrEqual", self, other)

    def clip(self, low: "Operand | None" = None, high: "Operand | None" = None) -> "Value":
        """Held within [low, high]; None is no limit."""
        return self.graph.node("Clip", self, low, high)

    def log(self) -> "Value":
        """Natural logarithm."""
        return self.graph.node("Log", self)

    def exp(self) -> "Value":
        """E to the power of it."""
        return self.graph.node("Exp", self)

    def sigmoid(self) -> "Value":
        """1 / (1 + exp(-x))."""
        return self.graph.node("Sigmoid", self)

    def relu(self) -> "Value":
        """max(x, 0)."""
        return self.graph.node("Relu", self)

    def softmax(self) -> "Value":
        """Over the last axis."""
        return self.graph.node("Softmax", self, axis=-1)

    def number(self) -> "Value":
        """False and True as 0.0 and 1.0."""
        return self.graph.node("Cast", self, to=TensorProto.FLOAT)

    def unsqueeze(self, axis: int) -> "Value":
        """With a new axis of one element."""
        return self.graph.node("Unsqueeze", self, [axis])

    def permute(self, *axes: int) -> "Value":
        """The axes in another order."""
        return self.graph.node("Transpose", self, perm=list(axes))

    def reshape(self, *sizes: int) -> "Value":
        """In another shape; size 0 keeps the axis as it is, -1 is what is left."""
        return self.graph.node("Reshape", self, list(sizes))

    def part(self, start: int, end: int) -> "Value":
        """Elements [start, end) of the last axis; `end` below 0 counts from its end."""
        return self.graph.node("Slice", self, [start], [end], [-1])

    def sizes(self, start: int, end: int) -> "Value":
        """Sizes of the axes [start, end)."""
        return self.graph.node("Shape", self, start=start, end=end)

    def at(self, index: int) -> "Value":
        """One element of the last axis, without that axis."""
        return self.graph.node("Gather", self, index, axis=-1)


Operand = Value | NDArray[Any] | float | list[int]


class Graph:
    """A graph in the making; constants are kept once, however often they are used."""

    def __init__(self) -> None:
        self._proto = GraphProto(name="main")
        self._constants: dict[tuple[bytes, str, tuple[int, ...]], str] = {}

    def input(self, name: str, kind: type[np.generic], *shape: Dim) -> Value:
        """A tensor that is fed; a word in its shape is any size, the same wherever it stands."""
        self._proto.input.append(_info(name, kind, shape))
        return Value(self, name)

    def output(self, name: str, value: Value, *shape: Dim) -> None:
        """`value`, float32, by the name it is asked for."""
        # A value is named by its number, an output by what it is asked for: Identity joins the two.
        self._proto.node.append(NodeProto(op_type="Identity", input=[value.name], output=[name]))
        self._proto.output.append(_info(name, np.float32, shape))

    def node(self, operator: str, *inputs: Operand | None, **attributes: Any) -> Value:
        """What `operator` makes of the inputs; None is an input left out."""
        (value,) = self.nodes(operator, 1, *inputs, **attributes)
        return value

    def nodes(
        self, operator: str, count: int, *inputs: Operand | None, **attributes: Any
    ) -> list[Value]:
        """As `node`, of an operator with `count` outputs."""
        first = sum(len(node.output) for node in self._proto.node)
        names = [f"{operator.lower()}_{first + at}" for at in range(count)]
        given = [self._name(each) for each in inputs]
        self._proto.node.append(helper.make_node(operator, given, names, **attributes))
        return [Value(self, name) for name in names]

    def concat(self, *parts: Operand) -> Value:
        """Along the last axis."""
        return self.node("Concat", *parts, axis=-1)

    def gather(self, table: NDArray[Any], index: Value) -> Value:
        """Rows of `table` (n, d) by `index` (...) -> (..., d)."""
        return self.node("Gather", table, index, axis=0)

    def to_bytes(self) -> bytes:
        """The graph as an ONNX model."""
        model = ModelProto(ir_version=IR_VERSION, producer_name="roiflow", graph=self._proto)
        model.opset_import.append(helper.make_opsetid("", OPERATORS))
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def _name(self, operand: Operand | None) -> str:
        if operand is None:
            return ""
        if isinstance(operand, Value):
            return operand.name
        array = operand if isinstance(operand, np.ndarray) else _array(operand)
        # With type and shape, since equal bytes may be 0 and 0.0.
        key = (array.tobytes(), array.dtype.str, array.shape)
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self._proto.initializer.append(
                numpy_helper.from_array(np.asarray(array, order="C"), self._constants[key])
            )
        return self._constants[key]


def _array(number: float | list[int]) -> NDArray[Any]:
    # Fractions are the network's, whole numbers are axes and sizes, which ONNX wants in 64 bits.
    return np.array(number, np.float32 if isinstance(number, float) else np.int64)


def _info(name: str, kind: type[np.generic], shape: tuple[Dim, ...]) -> Any:
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape
    )
