"""Ternary weights (TWN) and the published choice between ternary and symmetric."""

from jaxtyping import Float
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity, QuantizedTensor
from dq_lightning.quantization.functional import for_statistics, sum_of
from dq_lightning.quantization.symmetric import SymmetricQuantizer


class TernaryQuantizer(FakeQuantizer):
    """Rounds to {-alpha, 0, alpha} by a threshold on the magnitude.

    x is clamped to +-clip; delta = 0.7 mean|x|; alpha = mean of |x| where |x| > delta;
    result = alpha sign(x) [|x| > delta] (TWN, Li et al. 2016, arXiv 1605.04711, section 2.2).

    >>> import torch
    >>> TernaryQuantizer(bits=2, granularity="per_row")(torch.tensor([[0.1, -1.0, 0.5, 0.0]]))
    tensor([[ 0.0000, -0.7500,  0.7500,  0.0000]])
    """

    def __init__(
        self, bits: int, granularity: Granularity | str, clip: float | None = None
    ) -> None:
        super().__init__(bits, granularity, clip)
        if bits != 2:
            raise ValueError(
                f"The ternary quantizer has 2 bits, not bits={bits!r}; "
                "choose quantizer symmetric or ternary_or_symmetric for other widths."
            )

    @property
    def num_levels(self) -> int:
        """Three of the four that 2 bits could tell apart."""
        return 3

    def quantize(self, x: Float[Tensor, "*shape"]) -> QuantizedTensor:
        """Return codes in {-1, 0, 1} and alpha, one a scope."""
        values, dim = for_statistics(x), self.granularity.dim
        magnitudes = values.abs()
        if self.clip is not None:
            magnitudes.clamp_(max=self.clip)
        num_values = x.numel() if dim is None else x.shape[dim]
        kept = magnitudes > sum_of(magnitudes, dim) / num_values * 0.7
        num_kept = sum_of(kept.to(values.dtype), dim).clamp_(min=1)
        alpha = sum_of(magnitudes.mul_(kept), dim) / num_kept
        return QuantizedTensor(values.sign().mul_(kept).to(x.dtype), alpha)


def ternary_or_symmetric(
    bits: int, granularity: Granularity | str, clip: float | None = None
) -> FakeQuantizer:
    """Build the published choice: ternary at 2 bits, symmetric at others (DQ-BART, section 2).

    >>> ternary_or_symmetric(2, "per_row"), ternary_or_symmetric(4, "per_row").bits
    (TernaryQuantizer(bits=2, granularity=per_row), 4)
    """
    quantizer = TernaryQuantizer if bits == 2 else SymmetricQuantizer
    return quantizer(bits, granularity, clip)
