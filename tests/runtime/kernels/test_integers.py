"""The integers of the kernels: the same on every instruction set, to the last bit."""

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dq_lightning.artifacts.bit_fields import pack_fields
from dq_lightning.artifacts.packed_matrix import PackedMatrix, pack_matrix
from dq_lightning.quantization.symmetric import SymmetricQuantizer
from dq_lightning.quantization.tbt import tbt

CASES = settings(max_examples=60, deadline=None, derandomize=True)


def packed(fields: np.ndarray, bits: int, lowest: int, **options: Any) -> PackedMatrix:
    rows, columns = fields.shape
    scale = options.pop("scale", torch.ones(rows, 1))
    tensor = pack_fields(torch.from_numpy(fields), bits)
    return PackedMatrix(tensor, bits, columns, lowest, scale, **options)


def accumulated(
    kernels: Any, matrix: PackedMatrix, codes: np.ndarray, blocks: tuple[int, int]
) -> np.ndarray:
    struct, _kept = kernels.matrix(matrix)
    out = np.full((len(codes), matrix.rows + 3), -12345, np.int32)
    rows = kernels.int8_rows(codes)
    kernels.accumulate(struct, rows.struct(), *blocks, out.ctypes.data, out.shape[1])
    return out


def expected_integers(
    fields: np.ndarray, lowest: int, codes: np.ndarray, blocks: tuple[int, int]
) -> np.ndarray:
    sums = codes.astype(np.int64) @ (fields.astype(np.int64) + lowest).T
    out = np.full((len(codes), len(fields) + 3), -12345, np.int64)
    part = slice(16 * blocks[0], min(16 * blocks[1], len(fields)))
    out[:, part] = sums[:, part]
    return out


@CASES
@given(
    bits=st.sampled_from([1, 2, 4, 8]),
    rows=st.integers(1, 150),
    columns=st.integers(1, 200),
    num=st.integers(1, 40) | st.sampled_from([95, 96, 97, 120]),
    extreme=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_integer_products_are_exact(kernels, bits, rows, columns, num, extreme, seed, data):
    random = np.random.default_rng(seed)
    top = 2**bits - 1
    fields = random.integers(0, 2**bits, (rows, columns), np.uint8)
    codes = random.integers(-127, 128, (num, columns)).astype(np.int8)
    if extreme:  # where sums of 16 bits would saturate
        fields = random.choice(np.array([0, top], np.uint8), (rows, 1)).repeat(columns, 1)
        codes = random.choice(np.array([-127, 127], np.int8), (num, 1)).repeat(columns, 1)
    last = -(-rows // 16)
    blocks = (data.draw(st.integers(0, last - 1)), last)
    blocks = (blocks[0], data.draw(st.integers(blocks[0] + 1, last)))
    lowest = data.draw(st.sampled_from([0, -(2 ** (bits - 1)), -(2 ** (bits - 1)) + 1]))
    matrix = packed(fields, bits, lowest)
    actual = accumulated(kernels, matrix, codes, blocks)
    np.testing.assert_array_equal(actual, expected_integers(fields, lowest, codes, blocks))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("num", [1, 5, 12, 40])
def test_long_sums_of_extreme_codes_are_exact(kernels, bits, num):
    columns, rows = 3072, 65
    fields = np.full((rows, columns), 2**bits - 1, np.uint8)
    codes = np.full((num, columns), 127, np.int8)
    codes[::2] = -127
    actual = accumulated(kernels, packed(fields, bits, 0), codes, (0, 5))
    np.testing.assert_array_equal(actual, expected_integers(fields, 0, codes, (0, 5)))


@CASES
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 100),
    num=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
    with_bias=st.booleans(),
    with_zero_point=st.booleans(),
)
def test_linear_scales_the_integers(kernels, rows, columns, num, seed, with_bias, with_zero_point):
    random = np.random.default_rng(seed)
    fields = random.integers(0, 4, (rows, columns), np.uint8)
    codes = random.integers(-127, 128, (num, columns)).astype(np.int8)
    scale = torch.from_numpy(random.uniform(0.01, 1, (rows, 1)).astype(np.float32))
    zero = torch.from_numpy(random.normal(size=(rows, 1)).astype(np.float32))
    matrix = packed(fields, 2, -2, scale=scale, zero_point=zero if with_zero_point else None)
    bias = random.normal(size=rows).astype(np.float32) if with_bias else None
    x = kernels.int8_rows(codes, random.uniform(0.01, 1, num).astype(np.float32))
    struct, _kept = kernels.matrix(matrix, bias)
    out = np.full((num, rows), np.nan, np.float32)
    kernels.linear(struct, x.struct(), 0, -(-rows // 16), out.ctypes.data, rows)
    weight = (fields.astype(np.float64) - 2 - (zero.numpy() if with_zero_point else 0)) * (
        scale.numpy()
    )
    expected = codes.astype(np.float64) @ weight.T * x.scale[:num, None].astype(np.float64)
    magnitude = np.abs(codes.astype(np.float64)) @ np.abs(weight).T * x.scale[:num, None]
    expected = expected + (0 if bias is None else bias)
    assert (np.abs(out - expected) <= 3e-7 * (magnitude + np.abs(expected))).all()
    # The same bits however the rows and the blocks are split into calls.
    again = np.full_like(out, np.nan)
    for row in range(num):
        for block in range(-(-rows // 16)):
            kernels.linear(
                struct, x.struct(row, row + 1), block, block + 1, again[row].ctypes.data, rows
            )
    np.testing.assert_array_equal(again, out)


@pytest.mark.parametrize("shape", [(1, 1), (16, 64), (37, 24), (65, 80), (20, 3)])
def test_products_with_keys_are_exact(kernels, shape):
    random = np.random.default_rng(0)
    keys, codes = (random.integers(-127, 128, (n, shape[1])).astype(np.int8) for n in (shape[0], 5))
    matrix, kept = kernels.keys(kernels.int8_rows(keys))
    out = np.full((5, shape[0]), -12345, np.int32)
    x, blocks = kernels.int8_rows(codes), (0, -(-shape[0] // 16))
    kernels.accumulate(matrix, x.struct(), *blocks, out.ctypes.data, shape[0])
    np.testing.assert_array_equal(out, codes.astype(np.int32) @ keys.astype(np.int32).T)
    del kept


def rows_to_quantize(random: np.random.Generator, columns: int) -> np.ndarray:
    x = random.normal(size=(12, columns)).astype(np.float32)
    x[1] = 0
    x[2] *= np.float32(1e37) / np.maximum(np.abs(x[2]).max(), np.float32(0.1))
    x[3] *= np.float32(1e-41)  # subnormal
    x[4] *= np.float32(1e-36)
    x[5] = random.integers(-127, 127, columns) + np.float32(0.5)  # ties
    x[5, 0] = 127
    x[6] = np.float32(0.1)
    x[7] = -x[7] * np.float32(1e6)
    return x


@CASES
@given(
    bits=st.integers(2, 8),
    clip=st.none() | st.sampled_from([0.5, 1.0, 2.5, 1e-3, 1e30]),
    factor=st.sampled_from([1.0, 0.125, 0.3, 7.7]),
    columns=st.integers(1, 150),
    extra=st.integers(0, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_are_quantized_as_the_student_does(kernels, bits, clip, factor, columns, extra, seed):
    x = rows_to_quantize(np.random.default_rng(seed), columns + extra)
    out = kernels.int8_rows(np.full((len(x), columns), 99, np.int8))
    out.codes[:] = 99
    kernels.quantize_rows(
        x.ctypes.data, x.shape[1], factor, kernels.quantizer(bits, clip), out.struct()
    )
    scaled = torch.from_numpy(x[:, :columns]) * factor
    expected = SymmetricQuantizer(bits, "per_token", clip).quantize(scaled)
    np.testing.assert_array_equal(out.codes[:, :columns], expected.codes.to(torch.int8).numpy())
    assert (out.codes[:, columns:] == 0).all()
    assert expected.inverse_scale is not None
    np.testing.assert_array_equal(
        out.scale[: len(x)], (1 / expected.inverse_scale).numpy().reshape(-1)
    )
    np.testing.assert_array_equal(out.sum[: len(x)], out.codes[:, :columns].sum(1, dtype=np.int32))


@pytest.mark.parametrize(
    "matrix",
    [
        *(pack_matrix(SymmetricQuantizer(b, "per_row").quantize(torch.randn(37, 45)), b)
          for b in (2, 3, 4, 8)),
        pack_matrix(SymmetricQuantizer(8, "per_tensor").quantize(torch.randn(37, 45)), 8),
        *(pack_matrix(tbt(b, "per_row").quantize(torch.randn(37, 45)), b)
          for b in (1, 2)),
    ],
    ids=lambda m: f"{m.bits} bits{' divides' if m.divides else ''}",
)  # fmt: skip
def test_a_row_has_the_students_values_to_the_last_bit(kernels, matrix):
    struct, _kept = kernels.matrix(matrix)
    expected = matrix.dequantize().numpy()
    for row in range(matrix.rows):
        out = np.full(matrix.columns, np.nan, np.float32)
        kernels.library.dq_dequantize_row(struct, row, ctypes.c_void_p(out.ctypes.data))
        np.testing.assert_array_equal(out, expected[row])
