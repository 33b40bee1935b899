"""The abstract quantizer with a learned scale."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity, QuantizedTensor
from dq_lightning.quantization.functional import for_statistics
from dq_lightning.quantization.learned_rounding import learned_rounding

Guess = tuple[Tensor, Tensor, Tensor]
"""Scale, offset, and whether the tensor says anything."""


class LearnedScaleQuantizer(FakeQuantizer, ABC):
    """Rounds to codes times a learned scale, plus a learned offset where it has one.

    per_tensor: one scale a module. per_row: one a row of a weight, so `bind` must come first.
    A weight's scale starts from the weight, when `bind` gives it. An activation's starts from the
    first tensor in training mode (of several processes that train together, from the mean of their
    first guesses); before that, evaluation takes each tensor's own first guess and keeps nothing. A
    tensor of zeros says nothing; a row of zeros takes the mean of the others'.
    The buffer `initialized` records the start, so a checkpoint restores all of it.
    The scale's gradient is multiplied by 1 / sqrt(n Q_p), n the number of weights that share it,
    or of features (last dimension) of an activation (LSQ, Esser et al. 2020, section 2.2).
    """

    granularities: ClassVar[tuple[Granularity, ...]] = (Granularity.PER_TENSOR, Granularity.PER_ROW)
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
        if activation and self.granularity.dim is not None:
            raise ValueError(
                f"{type(self).__name__} learns one scale for all activations of a module; "
                "write granularity=per_tensor."
            )
        self.activation = activation
        self.scale = nn.Parameter(torch.ones(()))
        self.register_parameter("offset", nn.Parameter(torch.zeros(())) if has_offset else None)
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))
        self._ready = False  # the buffer, without waiting for the device at each step

    @property
    @abstractmethod
    def code_range(self) -> tuple[int, int]:
        """The smallest and the largest code."""

    @property
    def clip_range(self) -> tuple[int, int]:
        """The multiples of the scale beyond which x has no gradient."""
        return self.code_range

    @property
    def zero_point(self) -> float | None:
        """The code of 0 where it is a fixed one other than 0."""
        return None

    @property
    def rows_stand_alone(self) -> bool:
        """False: a learned scale belongs to its row, or to all of them."""
        return False

    @property
    def weights_only(self) -> bool:
        """True with a scale for each row."""
        return self.granularity.dim is not None

    @abstractmethod
    def first_guess(self, values: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
        """Return the initial scale of each scope, and the initial offset."""

    def round(self, steps: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Turn (x - offset) / scale into codes, in its memory."""
        return steps.clamp_(*self.code_range).round_()

    @torch.no_grad()
    def bind(self, parameter: Float[Tensor, "*shape"]) -> None:
        """Give every scope of the Parameter its scale, started from its values."""
        values = for_statistics(parameter)
        self.to(values.device)
        shape = () if self.granularity.dim is None else (*values.shape[:-1], 1)
        self.scale = nn.Parameter(values.new_ones(shape))
        if not values.is_meta:
            self._start_from(values)

    def quantize(self, x: Float[Tensor, "*shape"]) -> QuantizedTensor:
        """Return codes in code_range and the learned scale, the zero point with an offset."""
        values = for_statistics(x)
        scale, offset = self._scale_and_offset(values)
        if offset is None:
            zero = None if self.zero_point is None else scale.new_tensor(self.zero_point)
            return QuantizedTensor(self.round(values / scale).to(x.dtype), scale, zero)
        codes = self.round((values - offset).div_(scale)).to(x.dtype)
        return QuantizedTensor(codes, scale, zero_point=-offset / scale)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Quantize and dequantize x, with gradients to x, scale and offset."""
        if not self.enabled:
            return x
        quantized = self.quantize(x)
        num_values = x.numel() // self.scale.numel()
        if self.activation and x.dim() > 0:
            num_values = x.shape[-1]
        factor = (num_values * max(self.code_range[1], 1)) ** -0.5
        return learned_rounding(x, quantized, self.scale, self.clip_range, self.offset, factor)

    def _scale_and_offset(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.granularity.dim is not None and self.scale.dim() == 0:
            raise ValueError(
                f"{type(self).__name__} with granularity=per_row learns the scales of a weight's "
                "rows; for activations write granularity=per_tensor."
            )
        scale, offset = self.scale, self.offset
        if not self._ready and not self._start(values):
            guess, shift = self.first_guess(values)
            scale, offset = guess, None if offset is None else shift
        # The floor keeps a scale that training pushed below 0 a scale; its gradient still flows.
        limits = torch.finfo(values.dtype)
        scale = scale.detach().to(values.dtype).clamp(min=limits.tiny)
        if offset is None:
            return scale, None
        offset = offset.detach().to(values.dtype)
        return torch.maximum(scale, limits.eps * offset.abs()), offset  # a finite zero point

    def _start(self, values: Tensor) -> bool:
        """Start from these values where that is due and allowed; return whether a start is made."""
        self._ready = bool(self.initialized) or (
            self.training and self._start_from(values, _mean_of_processes)
        )
        return self._ready

    @torch.no_grad()
    def _start_from(self, values: Tensor, agree: Callable[..., Guess] | None = None) -> bool:
        scale, offset = self.first_guess(values)
        usable = scale > torch.finfo(scale.dtype).tiny
        if agree is not None:
            scale, offset, usable = agree(scale, offset, usable)
        if not bool(usable.any()):
            return False  # all zero: the next tensor may say more
        self.scale.copy_(torch.where(usable, scale, scale[usable].mean()))
        if self.offset is not None:
            self.offset.copy_(offset)
        self.initialized.fill_(True)
        self._ready = True
        return True

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._ready = False


def _mean_of_processes(scale: Tensor, offset: Tensor, usable: Tensor) -> Guess:
    """One guess for the processes that train together, each of which saw other tensors."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return scale, offset, usable
    sums = torch.stack([scale * usable, offset * usable, usable.to(scale.dtype)])
    distributed.all_reduce(sums)
    means = sums[:2] / sums[2].clamp(min=1)
    return means[0], means[1], sums[2] > 0
