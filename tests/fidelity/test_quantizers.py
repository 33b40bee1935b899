"""Every case of the reference's quantizers: values, gradients, and where it gives none.

float64 to 1e-9. float32 to a few of its own steps: a mean summed in another order differs in the
last bit, and so does all that it scales.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dq_lightning.quantization.asymmetric import AsymmetricQuantizer
from dq_lightning.quantization.fake_quantizer import FakeQuantizer
from dq_lightning.quantization.symmetric import SymmetricQuantizer
from dq_lightning.quantization.ternary import TernaryQuantizer

TOLERANCES = {torch.float64: 1e-9, torch.float32: 2e-6}
KINDS = {"sym": SymmetricQuantizer, "asym": AsymmetricQuantizer, "twn": TernaryQuantizer}
Case = tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]


def quantizer_of(entry: dict[str, Any]) -> FakeQuantizer:
    bits = 2 if entry["quantizer"] == "twn" else entry["bits"]  # the reference's TWN ignores them
    lowest = {"sym": 2, "asym": 1, "twn": 2}[entry["quantizer"]]
    if not lowest <= bits <= 8:
        pytest.skip(f"the package has no {entry['quantizer']} quantizer of {bits} bits")
    granularity = "per_tensor" if entry["layerwise"] else "per_row"
    return KINDS[entry["quantizer"]](bits, granularity, clip=entry["clip"])


def scopes_of(x: Tensor, entry: dict[str, Any]) -> Tensor:
    """One scope a row: 4-D tensors have one scale per [batch, head]."""
    per_head = x.dim() == 4 and not entry["layerwise"]
    return x.flatten(2) if per_head else x


def ours(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Input, output and the gradient of the input."""
    vectors, entry = case
    dtype = torch.float64 if entry["case"].endswith("f64") else torch.float32
    x = torch.from_numpy(vectors[entry["input"]]).to(dtype).requires_grad_()
    out = quantizer_of(entry)(scopes_of(x, entry)).view_as(x)
    out.backward(torch.from_numpy(vectors[entry["gradout"]]).to(dtype))
    assert x.grad is not None
    return x.detach(), out.detach(), x.grad


def expected_of(case: Case, name: str, like: Tensor) -> Tensor:
    vectors, entry = case
    return torch.from_numpy(vectors[entry[name]]).to(like.dtype)


def test_values(oracle_quantizer: Case) -> None:
    _, out, _ = ours(oracle_quantizer)
    expected = expected_of(oracle_quantizer, "out", out)
    assert expected.isnan().any() == oracle_quantizer[1]["nan"]
    known = ~expected.isnan()
    tolerance = TOLERANCES[out.dtype]
    torch.testing.assert_close(out[known], expected[known], rtol=tolerance, atol=tolerance)


def test_gradients(oracle_quantizer: Case) -> None:
    x, _, grad = ours(oracle_quantizer)
    torch.testing.assert_close(grad, expected_of(oracle_quantizer, "gradin", x), rtol=0, atol=0)


def test_where_the_reference_gives_nan(oracle_nan: Case) -> None:
    """All-zero scopes of sym (0 times infinity) and twn (mean of no values): ours stay zero."""
    entry = oracle_nan[1]
    assert entry["quantizer"] in ("sym", "twn")
    x, out, _ = ours(oracle_nan)
    nan = expected_of(oracle_nan, "out", out).isnan()
    zero = scopes_of(x, entry) == 0
    dims = tuple(range(zero.dim())) if entry["layerwise"] else -1
    assert torch.equal(nan, zero.all(dims, keepdim=True).expand_as(zero).reshape(x.shape))
    assert torch.equal(out[nan], torch.zeros_like(out[nan]))


def test_where_the_reference_raises(oracle_raises: Case) -> None:
    """Row-wise twn of more than two dimensions: ours has one alpha a scope there too."""
    vectors, entry = oracle_raises
    assert (entry["quantizer"], entry["layerwise"]) == ("twn", False)
    x, out, grad = ours(oracle_raises)
    assert x.dim() > 2
    clip, tolerance = entry["clip"], TOLERANCES[x.dtype]
    rows = scopes_of(x, entry).double().clamp(-clip, clip).flatten(0, -2)
    for row, result in zip(rows, scopes_of(out, entry).double().flatten(0, -2), strict=True):
        above = row.abs() > 0.7 * row.abs().mean()
        alpha = row.abs()[above].mean() if above.any() else row.new_zeros(())
        expected = alpha * row.sign() * above
        torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)
    gradout = torch.from_numpy(vectors[entry["gradout"]]).to(x)
    assert torch.equal(grad, gradout * (x.abs() < clip))
