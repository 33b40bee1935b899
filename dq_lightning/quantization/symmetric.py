"""Symmetric linear quantization with a dynamic scale."""

import torch
from jaxtyping import Float
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity, QuantizedTensor
from dq_lightning.quantization.functional import for_statistics, largest_magnitude


class SymmetricQuantizer(FakeQuantizer):
    """Rounds to the 2^bits - 1 multiples of max|x| / (2^(bits-1) - 1) that are within +-max|x|.

    x is clamped to +-clip; scale = max|x| / (2^(bits-1) - 1) over the granularity's scope;
    codes = round_half_even(x * r), result = codes / r with r = 1 / scale computed from max|x|
    (DQ-BART, Li et al. 2022, section 2): the arithmetic of the paper's code, to the last bit.
    Differs from the paper's code, which gives NaN for an all-zero scope: zeros stay zeros.

    >>> SymmetricQuantizer(bits=3, granularity="per_row")(torch.tensor([[0.2, -0.6, 0.31]]))
    tensor([[ 0.2000, -0.6000,  0.4000]])
    """

    def __init__(
        self, bits: int, granularity: Granularity | str, clip: float | None = None
    ) -> None:
        super().__init__(bits, granularity, clip)
        if bits not in range(2, 9):
            other = "; choose quantizer tbt (quant=tbt) for 1 bit" if bits == 1 else ""
            raise ValueError(f"A symmetric quantizer has 2 to 8 bits, not bits={bits!r}{other}.")

    @property
    def num_levels(self) -> int:
        """One less than 2^bits: as many above 0 as below it."""
        return 2**self.bits - 1

    def quantize(self, x: Float[Tensor, "*shape"]) -> QuantizedTensor:
        """Return codes in +-(2^(bits-1) - 1) and one scale a scope."""
        values = for_statistics(x)
        quant_max = 2 ** (self.bits - 1) - 1
        magnitude = largest_magnitude(values, self.granularity.dim)
        if self.clip is not None:
            magnitude.clamp_(max=self.clip)
        # The floor keeps the scale a normal number: a zero scope gives zeros, not NaN.
        magnitude = magnitude.clamp_(min=quant_max * torch.finfo(values.dtype).tiny)
        inverse_scale = quant_max / magnitude
        codes = torch.mul(values, inverse_scale).round_()
        if self.clip is not None:
            codes = codes.clamp_(-quant_max, quant_max)  # the same as clamping x, without a copy
        scale = magnitude / quant_max
        return QuantizedTensor(codes.to(x.dtype), scale, inverse_scale=inverse_scale)
