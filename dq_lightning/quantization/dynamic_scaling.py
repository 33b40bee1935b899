"""Module-wise dynamic scaling of QuantBART."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity, QuantizedTensor
from dq_lightning.quantization.functional import for_statistics, mean_of
from dq_lightning.quantization.learned_rounding import learned_rounding


class DynamicScalingQuantizer(FakeQuantizer):
    """Clips at a learned multiple of the mean magnitude, then rounds symmetrically.

    alpha = gamma ||w||_1 / n over the granularity's scope, gamma one learned number a module;
    result = s round_half_even(clamp(w / s, -Q, Q)) with Q = 2^(bits-1) - 1, s = alpha / Q.
    Gradients as LSQ's: to w inside +-alpha, to gamma code / Q - [inside] w / alpha times
    ||w||_1 / n; none through ||w||_1 (QuantBART, Tao et al. 2022, arXiv 2203.10705, section 3.2).
    gamma, the initial value: null takes the clipping of least squared error for Gaussian weights.

    >>> quantizer = DynamicScalingQuantizer(bits=2, granularity="per_row", gamma=1.0)
    >>> quantizer(torch.tensor([[0.1, -1.0, 0.5, 0.2]])).detach()
    tensor([[ 0.0000, -0.4500,  0.4500,  0.0000]])
    """

    # alpha / mean|w| of least squared error at 2 to 8 bits, w Gaussian (found by integration).
    gaussian_gammas: ClassVar[tuple[float, ...]] = (1.54, 2.44, 3.1, 3.64, 4.1, 4.52, 4.92)

    def __init__(
        self,
        bits: int,
        granularity: Granularity | str = Granularity.PER_TENSOR,
        gamma: float | None = None,
    ) -> None:
        super().__init__(bits, granularity)
        if bits not in range(2, 9):
            other = "; choose quantizer tbt for 1 bit" if bits == 1 else ""
            raise ValueError(
                f"A dynamic-scaling quantizer has 2 to 8 bits, not bits={bits!r}{other}."
            )
        if gamma is not None and not gamma > 0:
            raise ValueError(f"gamma={gamma!r} must be positive; write null for the default.")
        initial = self.gaussian_gammas[bits - 2] if gamma is None else gamma
        self.gamma = nn.Parameter(torch.tensor(float(initial)))

    @property
    def num_levels(self) -> int:
        """One less than 2^bits: as many above 0 as below it."""
        return 2**self.bits - 1

    def quantize(self, x: Float[Tensor, "*shape"]) -> QuantizedTensor:
        """Return codes in +-(2^(bits-1) - 1) and one scale a scope."""
        return self._quantize(x, mean_of(for_statistics(x).abs(), self.granularity.dim))

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Quantize and dequantize x, with gradients to x and gamma."""
        if not self.enabled:
            return x
        quant_max = 2 ** (self.bits - 1) - 1
        magnitude = mean_of(for_statistics(x).abs(), self.granularity.dim)
        scale = self.gamma / quant_max * magnitude
        return learned_rounding(x, self._quantize(x, magnitude), scale, (-quant_max, quant_max))

    def _quantize(self, x: Tensor, magnitude: Tensor) -> QuantizedTensor:
        values = for_statistics(x)
        quant_max = 2 ** (self.bits - 1) - 1
        gamma = self.gamma.detach().to(values.dtype).clamp(min=0.0)
        # The floor keeps the scale a normal number: a zero scope gives zeros, not NaN.
        scale = (gamma / quant_max * magnitude).clamp_(min=torch.finfo(values.dtype).tiny)
        codes = (values / scale).clamp_(-quant_max, quant_max).round_()
        return QuantizedTensor(codes.to(x.dtype), scale)
