"""Binary weights with the scale of TBT."""

import torch
from jaxtyping import Float
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity, QuantizedTensor
from dq_lightning.quantization.functional import for_statistics, sum_of


class TbtBinaryQuantizer(FakeQuantizer):
    """Rounds to {-alpha, alpha}, alpha the mean magnitude.

    alpha = mean|x|; result = alpha sign(x) with sign(0) = +1; the gradient is the identity
    everywhere (TBT, Liu et al. 2023, "Binary and Ternary Natural Language Generation", section 3).
    An all-zero scope gives zeros.

    >>> TbtBinaryQuantizer(bits=1, granularity="per_row")(torch.tensor([[0.5, -1.0, 0.0, 0.5]]))
    tensor([[ 0.5000, -0.5000,  0.5000,  0.5000]])
    """

    def __init__(self, bits: int = 1, granularity: Granularity | str = Granularity.PER_ROW) -> None:
        super().__init__(bits, granularity)
        if bits != 1:
            raise ValueError(
                f"The TBT binary quantizer has 1 bit, not bits={bits!r}; "
                "choose quantizer tbt for other widths."
            )

    @property
    def keeps_zero(self) -> bool:
        """False: zeros beside other values become alpha."""
        return False

    def quantize(self, x: Float[Tensor, "*shape"]) -> QuantizedTensor:
        """Return codes -1 and 1, and alpha, one a scope."""
        values, dim = for_statistics(x), self.granularity.dim
        num_values = x.numel() if dim is None else x.shape[dim]
        alpha = sum_of(values.abs(), dim) / num_values
        codes = torch.where(values >= 0, 1.0, -1.0)
        return QuantizedTensor(codes.to(x.dtype), alpha)
