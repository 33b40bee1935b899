"""The kernels of ops.h behind ctypes, once for every instruction set that this machine runs."""

import ctypes
from collections.abc import Callable
from ctypes import c_bool, c_char_p, c_float, c_int, c_int32, c_int64, c_void_p
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dq_lightning.artifacts.packed_matrix import PackedMatrix
from dq_lightning.runtime.build import INSTRUCTION_SETS, instruction_set, native_library


class _Matrix(ctypes.Structure):
    _fields_ = [(n, c_int32) for n in ("rows", "columns", "bits", "lowest")] + [
        (n, c_void_p) for n in ("fields", "scale", "divisor", "zero_point", "bias")
    ]


class _Int8Rows(ctypes.Structure):
    _fields_ = [("rows", c_int32), ("columns", c_int32), ("stride", c_int64)] + [
        (n, c_void_p) for n in ("codes", "scale", "sum")
    ]


class _Vectors(ctypes.Structure):
    _fields_ = [("columns", c_int32), ("stride", c_int64), ("scale_stride", c_int64)] + [
        (n, c_void_p) for n in ("codes", "scale", "values", "index")
    ]


class _RowQuantizer(ctypes.Structure):
    _fields_ = [("largest_code", c_int32), ("clip", c_float)]


_pointer, _range = c_void_p, (c_int, c_int)


def _function(result: Any, *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(result, *arguments)


class _Ops(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("quantize_rows", _function(None, _pointer, c_int64, c_float, _RowQuantizer, _pointer)),
        ("accumulate", _function(None, _pointer, _pointer, *_range, _pointer, c_int64)),
        ("linear", _function(None, _pointer, _pointer, *_range, _pointer, c_int64)),
        (
            "float_linear",
            _function(None, _pointer, _pointer, c_int64, c_int, *_range, _pointer, c_int64),
        ),
        ("dots", _function(None, _pointer, _pointer, c_int, _pointer)),
        (
            "softmax",
            _function(
                None,
                *(_pointer, c_int64, c_int, c_int, _pointer, c_int64, _RowQuantizer, _pointer),
            ),
        ),
        (
            "weighted_sum",
            _function(
                None,
                *(_pointer, c_int64, c_int, c_int, _pointer, _pointer, _pointer, c_int64),
            ),
        ),
        (
            "norm",
            _function(
                None,
                *(_pointer, _pointer, c_int, c_int, _pointer, _pointer, c_float, c_bool),
                *(_pointer, _pointer),
            ),
        ),
        ("activate", _function(None, c_int32, _pointer, _pointer, c_int64)),
        ("log_sum_exp", _function(c_float, _pointer, c_int)),
        ("top_k", _function(None, _pointer, c_int, c_int, _pointer, _pointer)),
    ]


def address(array: NDArray[Any] | None) -> int | None:
    """The pointer that a kernel gets; the caller keeps the array."""
    return None if array is None else array.ctypes.data


def padded(values: NDArray[Any]) -> NDArray[Any]:
    """One number a row, readable up to a multiple of 16; what fills it up must not matter."""
    out = np.full(-(-len(values) // 16) * 16, 77, values.dtype)
    out[: len(values)] = values
    return out


class Int8Rows:
    """int8 codes with zeros up to a stride of 64, their scales and sums."""

    def __init__(self, codes: NDArray[np.int8], scale: NDArray[np.float32] | None = None) -> None:
        rows, columns = codes.shape
        self.codes = np.zeros((rows, -(-columns // 64) * 64), np.int8)
        self.codes[:, :columns] = codes
        self.scale = padded(np.ones(rows, np.float32) if scale is None else scale)
        self.sum = padded(codes.sum(1, dtype=np.int32))
        self.columns = columns

    def struct(self, begin: int = 0, end: int | None = None) -> Any:
        """Some of the rows."""
        part = slice(begin, end)
        codes = self.codes[part]
        return ctypes.byref(
            _Int8Rows(
                *(len(codes), self.columns, self.codes.shape[1]),
                *(address(codes), address(self.scale[part]), address(self.sum[part])),
            )
        )


class Kernels:
    """One instruction set's table, on numpy arrays."""

    def __init__(self, name: str) -> None:
        self.library = native_library()
        instruction_set(self.library, name)
        table = ctypes.cast(self.library.dq_ops(name.encode()), ctypes.POINTER(_Ops)).contents
        assert table.name == name.encode()
        self.name, self.table = name, table
        self.library.dq_packed_bytes.restype = c_int64

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self.table, name)

    def int8_rows(
        self, codes: NDArray[np.int8], scale: NDArray[np.float32] | None = None
    ) -> Int8Rows:
        """Rows of activations."""
        return Int8Rows(codes, scale)

    def matrix(
        self,
        packed: PackedMatrix,
        bias: NDArray[np.float32] | None = None,
    ) -> tuple[Any, list[Any]]:
        """A packed matrix in the kernel layout, and what must stay alive beside it."""
        shape = (packed.rows, packed.columns, packed.bits)
        fields = np.zeros(self.library.dq_packed_bytes(*shape), np.uint8)
        row_major = packed.fields.numpy().copy()
        self.library.dq_pack(c_void_p(address(row_major)), *shape, c_void_p(address(fields)))
        given = packed.scale.float().expand(packed.rows, 1).numpy().reshape(-1).copy()
        scale = padded(1 / given if packed.divides else given)
        divisor = padded(given) if packed.divides else None
        zero = packed.zero_point
        zero_point = (
            None
            if zero is None
            else padded(zero.float().expand(packed.rows, 1).numpy().reshape(-1).copy())
        )
        own_bias = None if bias is None else padded(bias)
        kept = [fields, scale, divisor, zero_point, own_bias]
        return ctypes.byref(_Matrix(*shape, packed.lowest, *map(address, kept))), kept

    def float_matrix(
        self, values: NDArray[np.float32], bias: NDArray[np.float32] | None
    ) -> tuple[Any, list[Any]]:
        """Floats in the kernel layout."""
        fields = np.full(self.library.dq_packed_bytes(*values.shape, 32) // 4, 77, np.float32)
        self.library.dq_pack_floats(
            c_void_p(address(values)), *values.shape, c_void_p(address(fields))
        )
        own_bias = None if bias is None else padded(bias)
        struct = _Matrix(*values.shape, 32, 0, address(fields), None, None, None, address(own_bias))
        return ctypes.byref(struct), [fields, own_bias]

    def keys(self, rows: Int8Rows) -> tuple[Any, list[Any]]:
        """Keys of attention in the kernel layout."""
        shape = (len(rows.codes), rows.columns)
        fields = np.full(self.library.dq_packed_bytes(*shape, 8), 77, np.uint8)
        self.library.dq_pack_keys(rows.struct(), c_void_p(address(fields)))
        struct = _Matrix(*shape, 8, -128, address(fields), address(rows.scale), None, None, None)
        return ctypes.byref(struct), [rows, fields]

    def quantizer(self, bits: int | None, clip: float | None = None) -> _RowQuantizer:
        """A symmetric quantizer; None: floats."""
        return _RowQuantizer(
            2 ** (bits - 1) - 1 if bits else 0, float("inf") if clip is None else clip
        )

    def vectors(
        self,
        values: NDArray[Any],
        scale: NDArray[np.float32] | None = None,
        index: NDArray[np.int32] | None = None,
    ) -> Any:
        """int8 codes with their scales, or floats."""
        codes = None if scale is None else address(values)
        floats = address(values) if scale is None else None
        stride = values.strides[0] // values.itemsize
        return ctypes.byref(
            _Vectors(
                *(values.shape[1], stride, 1, codes, address(scale), floats, address(index)),
            )
        )


@pytest.fixture(scope="session", params=INSTRUCTION_SETS)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    """Every instruction set that this machine runs."""
    try:
        return Kernels(request.param)
    except ValueError as error:
        pytest.skip(str(error))
