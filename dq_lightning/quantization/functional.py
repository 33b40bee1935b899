"""Straight-through estimator and the reductions that the quantizers share."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dequantized: Tensor, mask: Tensor | None) -> Tensor:
        # An attribute, not save_for_backward: one quantization of a tied matrix may be walked by
        # several backward passes, and saved tensors are freed by the first of them.
        ctx.mask = mask
        return dequantized

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grad_outputs
        return grad if ctx.mask is None else grad * ctx.mask, None, None


def straight_through(
    x: Float[Tensor, "*shape"],
    dequantized: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*shape"] | None = None,
) -> Float[Tensor, "*shape"]:
    """Return `dequantized` itself in the forward pass and d/dx = mask (1 without one) backward.

    The usual x + (dequantized - x).detach() rounds twice and leaves the grid; this one is exact.
    """
    if not (x.requires_grad and torch.is_grad_enabled()):
        return dequantized
    return _StraightThrough.apply(x, dequantized, mask)  # type: ignore[no-any-return]


def round_ste(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Round half to even, gradient of the identity (Bengio et al. 2013, arXiv 1308.3432)."""
    return straight_through(x, torch.round(x.detach()))


def for_statistics(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Cut x from the graph, in float32 where it has less: scales of 8-bit floats are too coarse."""
    return x.detach().float() if x.dtype in (torch.bfloat16, torch.float16) else x.detach()


def largest_magnitude(x: Float[Tensor, "*shape"], dim: int | None) -> Float[Tensor, "*scope"]:
    """Give max|x| along `dim` (kept, size 1), or of the whole tensor (no dimensions) for None."""
    # Two reductions, because |x| would be a second tensor of the size of x.
    low, high = torch.aminmax(x) if dim is None else (x.amin(dim, True), x.amax(dim, True))
    return torch.maximum(high, low.neg())


def mean_of(x: Float[Tensor, "*shape"], dim: int | None) -> Float[Tensor, "*scope"]:
    """Average along `dim` (kept, size 1), or over the whole tensor, summed as `sum_of` does."""
    return sum_of(x, dim) / (x.numel() if dim is None or x.dim() == 0 else x.shape[dim])


def sum_of(x: Float[Tensor, "*shape"], dim: int | None) -> Float[Tensor, "*scope"]:
    """Sum along `dim` (kept, size 1), or over the whole tensor (no dimensions) for None.

    The whole tensor is summed row by row and the rows in float64, so the result does not depend on
    the number of threads (282 of 2.36 M ternary weights flipped between one and two threads).
    """
    if dim is not None:
        return x.sum(dim, keepdim=True)
    return (x.sum(-1) if x.dim() > 0 else x).double().sum().to(x.dtype)
