"""The abstract quantizer with a learned scale, and the gradient of learned scales."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity, QuantizedTensor
from dq_lightning.quantization.functional import for_statistics


class _LearnedRounding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale_path: Tensor,
        offset_path: Tensor | None,
        dequantized: Tensor,
        grid: tuple[Tensor, Tensor, int, int],
    ) -> Tensor:
        # Attributes, not save_for_backward: see functional._StraightThrough.
        ctx.x, ctx.dequantized, ctx.grid = x.detach(), dequantized, grid
        ctx.scale_path, ctx.offset_path = scale_path.detach(), offset_path
        return dequantized

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        scale, offset, quant_min, quant_max = ctx.grid
        centered = ctx.x.to(scale.dtype) - offset
        steps = centered / scale
        inside = (steps > quant_min) & (steps < quant_max)
        grad_x = grad * inside if ctx.needs_input_grad[0] else None
        wide, grad_scale, grad_offset = grad.to(scale.dtype), None, None
        if ctx.needs_input_grad[1]:
            codes = (ctx.dequantized.to(scale.dtype) - offset) / scale
            slope = torch.where(inside, codes - steps, codes)
            grad_scale = (wide * slope).sum_to_size(ctx.scale_path.shape).to(ctx.scale_path.dtype)
        if ctx.needs_input_grad[2]:
            grad_offset = (wide * ~inside).sum().to(ctx.offset_path.dtype)
        return grad_x, grad_scale, grad_offset, None, None


def learned_rounding(
    x: Float[Tensor, "*shape"],
    scale_path: Float[Tensor, "*scope"],
    quantized: QuantizedTensor,
    quant_min: int,
    quant_max: int,
    offset_path: Float[Tensor, ""] | None = None,
) -> Float[Tensor, "*shape"]:
    """Return quantized.dequantize() with the gradient of LSQ to x, to the scale and to the offset.

    With v = (x - offset) / scale and inside = [quant_min < v < quant_max]:
    d/dx = inside; d/dscale = code - v inside; d/doffset = 1 - inside (LSQ, Esser et al. 2020,
    equations 3 and 5; LSQ+, Bhalgat et al. 2020, section 3.1). The scale's *value* is
    quantized.scale; scale_path (of its shape) is only where its gradient goes, so a path such as
    parameter * factor scales the gradient and nothing else; so is offset_path.
    """
    zero_point = quantized.zero_point
    scale = quantized.scale
    offset = torch.zeros_like(scale) if zero_point is None else -zero_point * scale
    dequantized = quantized.dequantize()
    paths = [path for path in (x, scale_path, offset_path) if path is not None]
    if not (torch.is_grad_enabled() and any(path.requires_grad for path in paths)):
        return dequantized
    grid = (scale, offset, quant_min, quant_max)
    return _LearnedRounding.apply(x, scale_path, offset_path, dequantized, grid)  # type: ignore[no-any-return]


class LearnedScaleQuantizer(FakeQuantizer, ABC):
    """Rounds to codes times one learned scale a module, plus a learned offset where it has one.

    The Parameters exist from construction, before any optimizer; their values come from the first
    tensor that is not all zero, recorded in the buffer `initialized`, so a checkpoint restores
    both. The scale's gradient is multiplied by 1 / sqrt(n Q_p), n the number of weights, or of
    features (last dimension) of an activation. One scale a module, because a quantizer is built
    before it meets the shape of its tensor.
    """

    granularities: ClassVar[tuple[Granularity, ...]] = (Granularity.PER_TENSOR,)
    scale: nn.Parameter
    offset: nn.Parameter | None
    initialized: Tensor

    def __init__(
        self,
        bits: int,
        granularity: Granularity | str,
        *,
        activation: bool,
        has_offset: bool = False,
    ) -> None:
        super().__init__(bits, granularity)
        self.activation = activation
        self.scale = nn.Parameter(torch.ones(()))
        self.register_parameter("offset", nn.Parameter(torch.zeros(())) if has_offset else None)
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))
        self._ready = False  # the buffer, without waiting for the device at each step

    @property
    @abstractmethod
    def code_range(self) -> tuple[int, int]:
        """The smallest and the largest code."""

    @abstractmethod
    def first_guess(self, values: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
        """Return the initial scale and offset for the first tensor."""

    def round(self, steps: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Turn (x - offset) / scale into codes, in its memory."""
        return steps.clamp_(*self.code_range).round_()

    def quantize(self, x: Float[Tensor, "*shape"]) -> QuantizedTensor:
        """Return codes in code_range and the learned scale, the zero point with an offset."""
        values = for_statistics(x)
        if not self._ready:
            self._initialize(values)
        # The floor keeps a scale that training pushed below 0 a scale; its gradient still flows.
        tiny = torch.finfo(values.dtype).tiny
        scale = self.scale.detach().to(values.dtype).clamp(min=tiny)
        if self.offset is None:
            return QuantizedTensor(self.round(values / scale).to(x.dtype), scale)
        offset = self.offset.detach().to(values.dtype)
        codes = self.round((values - offset).div_(scale)).to(x.dtype)
        return QuantizedTensor(codes, scale, zero_point=-offset / scale)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Quantize and dequantize x, with gradients to x, scale and offset."""
        if not self.enabled:
            return x
        quantized = self.quantize(x)
        low, high = self.code_range
        num_values = x.numel() if not self.activation or x.dim() == 0 else x.shape[-1]
        factor = (num_values * max(high, 1)) ** -0.5
        offset = None if self.offset is None else self.offset * factor
        return learned_rounding(x, self.scale * factor, quantized, low, high, offset)

    @torch.no_grad()
    def _initialize(self, values: Tensor) -> None:
        if not bool(self.initialized):
            scale, offset = self.first_guess(values)
            if not bool(scale > torch.finfo(values.dtype).tiny):
                return  # all zero: the next tensor may say more
            self.scale.copy_(scale)
            if self.offset is not None:
                self.offset.copy_(offset)
            self.initialized.fill_(True)
        self._ready = True

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._ready = False
