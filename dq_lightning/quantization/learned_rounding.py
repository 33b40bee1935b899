"""The gradient of learned scales and offsets."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import QuantizedTensor


def learned_rounding(
    x: Float[Tensor, "*shape"],
    quantized: QuantizedTensor,
    scale: Float[Tensor, "*scope"],
    clip_range: tuple[int, int],
    offset: Float[Tensor, ""] | None = None,
    factor: float = 1.0,
) -> Float[Tensor, "*shape"]:
    """Return quantized.dequantize() with the gradient of LSQ to x, to the scale and to the offset.

    With v = (x - offset) / scale, level = (result - offset) / scale and inside =
    [clip_min < v < clip_max]: d/dx = inside; d/dscale = (level - v inside) factor;
    d/doffset = (1 - inside) factor (LSQ, Esser et al. 2020, equations 3 and 5; LSQ+, Bhalgat et
    al. 2020, section 3.1). The *values* come from `quantized`, whose codes are overwritten; the
    tensors `scale` and `offset` are where the gradients go, whatever floor their values met.
    """
    value, dequantized = quantized.scale, quantized.dequantize_()
    leaves = [leaf for leaf in (x, scale, offset) if leaf is not None]
    if not (torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)):
        return dequantized
    grid = (value, clip_range, factor)
    return _LearnedRounding.apply(x, scale, offset, dequantized, grid)  # type: ignore[no-any-return]


class _LearnedRounding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        offset: Tensor | None,
        dequantized: Tensor,
        grid: tuple[Tensor, tuple[int, int], float],
    ) -> Tensor:
        # Attributes, not save_for_backward: see functional._StraightThrough.
        ctx.x, ctx.dequantized, ctx.grid = x.detach(), dequantized, grid
        ctx.shape, ctx.dtype = scale.shape, scale.dtype
        ctx.offset = None if offset is None else offset.detach().clone()
        return dequantized

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        scale, (low, high), factor = ctx.grid
        wide = grad.to(scale.dtype)
        # Clamped, so that a value far beyond a scale at its floor stays finite.
        steps = _in_steps(ctx.x, scale, ctx.offset).clamp_(low - 1, high + 1)
        # inside * grad in one pass: several times faster than a mask, the rest of the step's cost
        passed = torch.ops.aten.hardtanh_backward(wide, steps, low, high)
        grad_scale = grad_offset = None
        if ctx.needs_input_grad[1]:
            slope = _in_steps(ctx.dequantized, scale, ctx.offset).mul_(wide)
            slope.addcmul_(passed, steps, value=-1)  # grad (level - v inside)
            grad_scale = (slope.sum_to_size(ctx.shape) * factor).to(ctx.dtype)
        if ctx.offset is not None and ctx.needs_input_grad[2]:
            grad_offset = ((wide - passed).sum() * factor).to(ctx.offset.dtype)
        grad_x = passed.to(grad.dtype) if ctx.needs_input_grad[0] else None
        return grad_x, grad_scale, grad_offset, None, None


def _in_steps(x: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    values = x.to(scale.dtype)
    if offset is None:
        return values / scale
    return (values - offset.to(scale.dtype)).div_(scale)
