"""ONNX graphs over one shared file of weights, built node by node."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dq_lightning.artifacts.onnx_matrix import BlockMatrix, block_matrix
from dq_lightning.artifacts.optional_package import optional_package
from dq_lightning.artifacts.packed_student import PackedStudent

OPSET = 20
"""Has Gelu and LayerNormalization."""
IR_VERSION = 10
_ALIGNMENT = 64


class WeightFile:
    """Tensors one after the other; graphs refer to them by place, each is written once."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.stream, self.name = stream, name
        self._places: dict[str, tuple[int, int]] = {}

    def tensor(self, name: str, values: NDArray[Any]) -> Any:
        """An initializer whose values lie in the file."""
        onnx = optional_package("onnx")
        if name not in self._places:
            self.stream.write(bytes(-self.stream.tell() % _ALIGNMENT))
            content = np.ascontiguousarray(values).tobytes()
            self._places[name] = self.stream.tell(), len(content)
            self.stream.write(content)
        offset, length = self._places[name]
        tensor = onnx.TensorProto(
            name=name,
            data_type=onnx.helper.np_dtype_to_tensor_dtype(values.dtype),
            dims=values.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        facts = {"location": self.name, "offset": offset, "length": length}
        for key, value in facts.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor


class OnnxGraph:
    """One graph of a student: nodes in order, weights of the student by their state-dict keys.

    accuracy_level: of MatMulNBits; 4 computes with int8 activations, a scale for each block of
    columns, and 1 in float32.
    """

    def __init__(self, student: PackedStudent, weights: WeightFile, accuracy_level: int) -> None:
        self.student, self.weights, self.accuracy_level = student, weights, accuracy_level
        self._helper: Any = optional_package("onnx.helper")
        self._numpy: Any = optional_package("onnx.numpy_helper")
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._matrices: dict[str, BlockMatrix] = {}

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Append a node of one output; give its name."""
        output = f"{kind}_{len(self._nodes)}"
        node = self._helper.make_node(kind, inputs, [output], domain=domain, **attributes)
        self._nodes.append(node)
        return output

    def name(self, value: str, name: str) -> None:
        """Call a value by another name, as an output of the graph."""
        self._nodes.append(self._helper.make_node("Identity", [value], [name]))

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """A small tensor inside the graph."""
        name = f"constant_{len(self._initializers)}"
        self._initializers[name] = self._numpy.from_array(np.asarray(values, dtype=dtype), name)
        return name

    def number(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(value, np.float32)

    def stored(self, name: str, values: NDArray[Any]) -> str:
        """A tensor in the file of weights."""
        if name not in self._initializers:
            self._initializers[name] = self.weights.tensor(name, values)
        return name

    def weight(self, key: str) -> str:
        """A float tensor of the student."""
        return self.stored(self.student.uses[key], self.student.weight(key).numpy())

    def has(self, key: str) -> bool:
        """Whether the student has a weight of that key."""
        return key in self.student.uses

    def linear(self, x: str, module: str) -> str:
        """x W^T + b by the codes of W where it is packed."""
        key = f"{module}.weight"
        y = self._product(x, key)
        bias = f"{module}.bias"
        return self.op("Add", y, self.weight(bias)) if self.has(bias) else y

    def _product(self, x: str, key: str) -> str:
        name = self.student.uses[key]
        if name not in self.student.matrices:
            values = self.student.weight(key).numpy().T
            return self.op("MatMul", x, self.stored(f"{name}.transposed", values))
        matrix = self._matrix(name)
        inputs = [x, *self._parts(name, matrix)]
        zero_point = matrix.packed_zero_point()
        if zero_point is not None:
            inputs.append(self.stored(f"{name}.zero_point", zero_point))
        return self.op(
            "MatMulNBits",
            *inputs,
            domain="com.microsoft",
            K=matrix.columns,
            N=matrix.rows,
            bits=matrix.bits,
            block_size=matrix.block,
            accuracy_level=self.accuracy_level,
        )

    def lookup(self, ids: str, key: str) -> str:
        """Rows of a table, dequantized after the lookup; a matrix shares its bytes with `linear`.

        Field i of a byte is (byte >> i bits) & (2^bits - 1).
        """
        name = self.student.uses[key]
        if name not in self.student.matrices:
            return self.op("Gather", self.weight(key), ids)
        matrix = self._matrix(name)
        packed, scale = (self.op("Gather", part, ids) for part in self._parts(name, matrix))
        fields = self.op("Unsqueeze", packed, self.constant([-1]))
        if matrix.bits < 8:
            shifts = self.constant(range(0, 8, matrix.bits), np.uint8)
            fields = self.op("BitShift", fields, shifts, direction="RIGHT")
            fields = self.op("BitwiseAnd", fields, self.constant(2**matrix.bits - 1, np.uint8))
        # (ids, blocks, bytes, fields of a byte) to (ids, blocks, fields)
        fields = self.op("Reshape", fields, self.constant([0, 0, matrix.fields.shape[1], -1]))
        codes = self.op("Cast", fields, to=1)
        codes = self.op("Sub", codes, self._zero(name, matrix, ids))
        values = self.op("Mul", codes, self.op("Unsqueeze", scale, self.constant([-1])))
        values = self.op("Reshape", values, self.constant([0, 0, -1]))
        return self.first(values, matrix.columns)

    def first(self, x: str, number: int) -> str:
        """The first numbers of the last axis."""
        return self.op("Slice", x, *(self.constant([end]) for end in (0, number, -1)))

    def _zero(self, name: str, matrix: BlockMatrix, ids: str) -> str:
        if matrix.zero_point is None:
            return self.number(2 ** (matrix.bits - 1))
        rows = self.stored(f"{name}.zero_point.unpacked", matrix.zero_point)
        gathered = self.op("Cast", self.op("Gather", rows, ids), to=1)
        return self.op("Unsqueeze", gathered, self.constant([-1]))

    def _parts(self, name: str, matrix: BlockMatrix) -> tuple[str, str]:
        return self.stored(name, matrix.fields), self.stored(f"{name}.scale", matrix.scale)

    def _matrix(self, name: str) -> BlockMatrix:
        if name not in self._matrices:
            self._matrices[name] = block_matrix(name, self.student.matrices[name])
        return self._matrices[name]

    def write(
        self,
        file: Path,
        inputs: Mapping[str, tuple[type, Sequence[Any]]],
        outputs: Mapping[str, Sequence[Any]],
    ) -> None:
        """Check and write the model; inputs: type and shape by name, outputs: shape, float32."""
        onnx, helper = optional_package("onnx"), self._helper
        kind = helper.np_dtype_to_tensor_dtype
        graph = helper.make_graph(
            self._nodes,
            file.stem,
            [
                helper.make_tensor_value_info(name, kind(np.dtype(dtype)), shape)
                for name, (dtype, shape) in inputs.items()
            ],
            [
                helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
                for name, shape in outputs.items()
            ],
            list(self._initializers.values()),
        )
        domains = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=IR_VERSION)
        self.weights.stream.flush()
        onnx.save_model(model, str(file))
        onnx.checker.check_model(str(file))  # a path: the file of weights is looked for beside it
