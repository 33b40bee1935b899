"""Ternary weights with the scale of TBT."""

import torch
from jaxtyping import Float
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity, QuantizedTensor
from dq_lightning.quantization.functional import for_statistics, sum_of


class TbtTernaryQuantizer(FakeQuantizer):
    """Rounds to {-alpha, 0, alpha}, alpha a fixed multiple of the mean magnitude.

    alpha = 4/3 mean|x|; result = alpha round_half_even(clamp(x / alpha, -1, 1)); the gradient is
    the identity everywhere (TBT, Liu et al. 2023, "Binary and Ternary Natural Language
    Generation", section 3). An all-zero scope gives zeros.

    >>> TbtTernaryQuantizer(bits=2, granularity="per_row")(torch.tensor([[0.1, -1.0, 0.5, 0.2]]))
    tensor([[ 0.0000, -0.6000,  0.6000,  0.0000]])
    """

    def __init__(self, bits: int = 2, granularity: Granularity | str = Granularity.PER_ROW) -> None:
        super().__init__(bits, granularity)
        if bits != 2:
            raise ValueError(f"The TBT ternary quantizer has 2 bits, not bits={bits!r}.")

    @property
    def num_levels(self) -> int:
        """Three of the four that 2 bits could tell apart."""
        return 3

    def quantize(self, x: Float[Tensor, "*shape"]) -> QuantizedTensor:
        """Return codes in {-1, 0, 1} and alpha, one a scope."""
        values, dim = for_statistics(x), self.granularity.dim
        num_values = x.numel() if dim is None else x.shape[dim]
        alpha = sum_of(values.abs(), dim) * (4 / 3 / num_values)
        divisor = alpha.clamp(min=torch.finfo(values.dtype).tiny)
        codes = torch.div(values, divisor).clamp_(-1, 1).round_()
        return QuantizedTensor(codes.to(x.dtype), alpha)
