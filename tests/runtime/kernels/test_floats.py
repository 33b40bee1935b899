"""What the kernels compute in floats, against torch, within stated tolerances."""

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dq_lightning.artifacts.packed_matrix import pack_matrix
from dq_lightning.quantization.symmetric import SymmetricQuantizer

CASES = settings(max_examples=40, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32 - 1)
ACTIVATIONS: list[Any] = [
    torch.relu,
    torch.nn.functional.gelu,
    lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    torch.nn.functional.silu,
]


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@CASES
@given(
    bits=st.sampled_from([2, 4, 8, 32]),
    rows=st.integers(1, 40),
    columns=st.integers(1, 90),
    num=st.integers(1, 30),
    with_bias=st.booleans(),
    seed=SEEDS,
)
def test_float_linear_is_a_product_with_the_students_values(
    kernels, bits, rows, columns, num, with_bias, seed
):
    weight = torch.from_numpy(normal(seed, rows, columns))
    bias = normal(seed + 1, rows) if with_bias else None
    if bits == 32:
        struct, _kept = kernels.float_matrix(weight.numpy(), bias)
    else:
        packed = pack_matrix(SymmetricQuantizer(bits, "per_row").quantize(weight), bits)
        struct, _kept = kernels.matrix(packed, bias)
        weight = packed.dequantize()
    x = normal(seed + 2, num, columns + 3)
    out = np.full((num, rows + 2), np.nan, np.float32)
    last = -(-rows // 16)
    kernels.float_linear(
        struct, x.ctypes.data, columns + 3, num, 0, last, out.ctypes.data, rows + 2
    )
    expected = torch.nn.functional.linear(
        torch.from_numpy(x[:, :columns]), weight, None if bias is None else torch.from_numpy(bias)
    )
    np.testing.assert_allclose(out[:, :rows], expected.numpy(), rtol=2e-5, atol=2e-5)
    assert np.isnan(out[:, rows:]).all()
    alone = np.full_like(out, np.nan)
    for row in range(num):
        kernels.float_linear(
            struct, x[row].ctypes.data, columns, 1, 0, last, alone[row].ctypes.data, rows
        )
    np.testing.assert_array_equal(alone, out)


@CASES
@given(
    columns=st.integers(1, 100),
    centred=st.booleans(),
    with_residual=st.booleans(),
    in_place=st.booleans(),
    seed=SEEDS,
)
def test_norm_of_a_sum(kernels, columns, centred, with_residual, in_place, seed):
    x, residual = normal(seed, 5, columns) * 3 + 1, normal(seed + 1, 5, columns)
    weight, bias = normal(seed + 2, columns), normal(seed + 3, columns)
    total = torch.from_numpy(x + residual if with_residual else x)
    if centred:
        norm = torch.nn.functional.layer_norm(
            total, (columns,), torch.from_numpy(weight), torch.from_numpy(bias), 1e-5
        )
    else:
        norm = total * torch.rsqrt(total.pow(2).mean(-1, True) + 1e-5) * torch.from_numpy(weight)
    kept, out = (x, residual) if in_place else (np.full_like(x, np.nan), np.full_like(x, np.nan))
    kernels.norm(
        *(x.ctypes.data, residual.ctypes.data if with_residual else None, 5, columns),
        *(weight.ctypes.data, bias.ctypes.data if centred else None, 1e-5, centred),
        *(kept.ctypes.data, out.ctypes.data),
    )
    np.testing.assert_array_equal(kept, total.numpy())
    np.testing.assert_allclose(out, norm.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("f", range(4))
@pytest.mark.parametrize("gated", [False, True])
def test_activations(kernels, f, gated):
    x = np.concatenate([np.linspace(-12, 12, 20011), [-1e30, -90, 0, 90, 1e30]]).astype(np.float32)
    gate = normal(1, len(x)) if gated else None
    expected = ACTIVATIONS[f](torch.from_numpy(x).double()).numpy() * (1 if gate is None else gate)
    out = x.copy()
    kernels.activate(f, out.ctypes.data, None if gate is None else gate.ctypes.data, len(x))
    largest = np.abs(x) * (1 if gate is None else np.abs(gate))
    assert (np.abs(out - expected) <= 3e-7 * largest).all()


@CASES
@given(
    n=st.integers(1, 150),
    rows=st.integers(1, 5),
    bits=st.none() | st.integers(2, 8),
    clip=st.none() | st.sampled_from([0.05, 0.1, 0.3, 2.0]),
    bias=st.sampled_from(["none", "own", "shared"]),
    spread=st.sampled_from([0.1, 1, 2, 4]),
    seed=SEEDS,
)
def test_softmax_quantizes_its_probabilities(kernels, n, rows, bits, clip, bias, spread, seed):
    scores = normal(seed, rows, n + 5) * np.float32(spread)
    biases = normal(seed + 1, rows if bias == "own" else 1, n)
    logits = torch.from_numpy(scores[:, :n] + (0 if bias == "none" else biases))
    probabilities = torch.softmax(logits, -1)
    factor = np.full(rows, np.nan, np.float32)
    beyond = scores[:, n:].copy()
    kernels.softmax(
        *(scores.ctypes.data, n + 5, rows, n, None if bias == "none" else biases.ctypes.data),
        *(n if bias == "own" else 0, kernels.quantizer(bits, clip), factor.ctypes.data),
    )
    np.testing.assert_array_equal(scores[:, n:], beyond)
    if bits is None:
        weights = scores[:, :n] * factor[:, None]
        np.testing.assert_allclose(weights, probabilities.numpy(), rtol=3e-6, atol=1e-30)
        return
    quantized = SymmetricQuantizer(bits, "per_token", clip).quantize(probabilities)
    assert quantized.inverse_scale is not None
    np.testing.assert_allclose(factor, 1 / quantized.inverse_scale.numpy()[:, 0], rtol=2e-6)
    # A probability within 1e-5 of a tie may go either way.
    exact = (probabilities * quantized.inverse_scale).numpy()
    at_tie = np.abs(exact - np.floor(exact) - 0.5) < 1e-5 * np.maximum(exact, 1)
    assert ((scores[:, :n] == quantized.codes.numpy()) | at_tie).all()


@CASES
@given(
    n=st.integers(1, 60),
    rows=st.integers(1, 30),
    columns=st.sampled_from([1, 3, 8, 16, 24, 33, 64, 80]),
    coded=st.booleans(),
    indexed=st.booleans(),
    seed=SEEDS,
)
def test_weighted_sum(kernels, n, rows, columns, coded, indexed, seed):
    random = np.random.default_rng(seed)
    weights, factor = random.random((rows, n + 2), np.float32), random.random(rows, np.float32)
    places = 2 * n
    index = random.integers(0, places, n).astype(np.int32) if indexed else None
    scale = random.random(places, np.float32) if coded else None
    values = normal(seed, places, columns + 4)
    if coded:
        values = random.integers(-127, 128, (places, columns + 4)).astype(np.int8)
    actual = values.astype(np.float64) * (1 if scale is None else scale[:, None])
    actual = actual[np.arange(n) if index is None else index, :columns]
    expected = (weights[:, :n].astype(np.float64) @ actual) * factor[:, None]
    weights_alone = weights.copy()
    struct = kernels.vectors(values[:, :columns], scale, index)
    outs = np.full((2, rows, columns + 1), np.nan, np.float32)
    kernels.weighted_sum(
        *(weights.ctypes.data, n + 2, rows, n, factor.ctypes.data, struct),
        *(outs[0].ctypes.data, columns + 1),
    )
    tolerance = 1e-6 * (weights[:, :n].max() * np.abs(actual).sum(0).max() + 1)
    np.testing.assert_allclose(outs[0, :, :columns], expected, rtol=1e-5, atol=tolerance)
    assert np.isnan(outs[:, :, columns:]).all()
    for m in range(rows):  # the same bits, row by row
        kernels.weighted_sum(
            *(weights_alone[m].ctypes.data, n + 2, 1, n, factor[m:].ctypes.data, struct),
            *(outs[1, m].ctypes.data, columns + 1),
        )
    np.testing.assert_array_equal(outs[0], outs[1])


@CASES
@given(
    n=st.integers(1, 50),
    columns=st.sampled_from([1, 8, 16, 24, 64, 80, 128]),
    coded=st.booleans(),
    indexed=st.booleans(),
    extreme=st.booleans(),
    seed=SEEDS,
)
def test_dots_with_cached_keys(kernels, n, columns, coded, indexed, extreme, seed):
    random = np.random.default_rng(seed)
    index = random.integers(0, n, n).astype(np.int32) if indexed else None
    taken = np.arange(n) if index is None else index
    scores = np.full(n + 1, np.nan, np.float32)
    if not coded:
        query, keys = normal(seed, 1, columns), normal(seed + 1, n, columns)
        kernels.dots(
            kernels.vectors(query), kernels.vectors(keys, None, index), n, scores.ctypes.data
        )
        expected = keys[taken] @ query[0]
        np.testing.assert_allclose(scores[:n], expected, rtol=1e-5, atol=1e-5)
        return
    padded = -(-columns // 64) * 64
    query = np.zeros((1, padded), np.int8)
    query[0, :columns] = 127 if extreme else random.integers(-127, 128, columns)
    keys = random.integers(-127, 128, (n, padded)).astype(np.int8)  # the padding may hold anything
    if extreme:
        keys[:] = random.choice(np.array([-127, 127], np.int8), (n, 1))
    scale = random.random(n, np.float32)
    one = np.array([0.7], np.float32)
    kernels.dots(
        kernels.vectors(query[:, :columns], one),
        kernels.vectors(keys[:, :columns], scale, index),
        *(n, scores.ctypes.data),
    )
    integers = keys[taken, :columns].astype(np.int32) @ query[0, :columns].astype(np.int32)
    np.testing.assert_array_equal(scores[:n], integers.astype(np.float32) * (one * scale[taken]))
    assert np.isnan(scores[n])


@CASES
@given(n=st.integers(1, 400), k=st.integers(1, 60), ties=st.booleans(), seed=SEEDS)
def test_top_k_in_the_order_of_a_stable_sort(kernels, n, k, ties, seed):
    random = np.random.default_rng(seed)
    x = normal(seed, n)
    if ties:
        x = random.integers(0, 4, n).astype(np.float32)
    x[random.random(n) < 0.3] = -np.inf
    k = min(k, n)
    values, indices = np.full(k, np.nan, np.float32), np.full(k, -1, np.int32)
    kernels.top_k(x.ctypes.data, n, k, values.ctypes.data, indices.ctypes.data)
    order = np.argsort(-x, kind="stable")[:k]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(values, x[order])


@CASES
@given(n=st.integers(1, 400), shift=st.sampled_from([-1000.0, 0.0, 1000.0]), seed=SEEDS)
def test_log_sum_exp(kernels, n, shift, seed):
    x = normal(seed, n) * 10 + np.float32(shift)
    expected = torch.logsumexp(torch.from_numpy(x).double(), 0).item()
    assert abs(kernels.log_sum_exp(x.ctypes.data, n) - expected) <= 1e-6 * abs(expected) + 1e-6


def test_the_structs_are_as_wide_as_in_c(kernels):
    # A field that is missing in one of the two mirrors would shift all after it.
    packed = pack_matrix(SymmetricQuantizer(2, "per_row").quantize(torch.ones(1, 4)), 2)
    struct, _kept = kernels.matrix(packed, np.ones(1, np.float32))
    assert ctypes.sizeof(struct._obj) == 4 * 4 + 5 * 8
