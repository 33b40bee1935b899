"""LSQ+: a learned step size, and for activations a learned offset."""

import torch
from jaxtyping import Float
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import Granularity
from dq_lightning.quantization.functional import mean_of
from dq_lightning.quantization.learned_scale import LearnedScaleQuantizer


class LsqPlusQuantizer(LearnedScaleQuantizer):
    """Rounds to multiples of a learned step s, for activations from a learned offset beta.

    result = s round_half_even(clamp((x - beta) / s, n, p)) + beta with n = -2^(bits-1),
    p = 2^(bits-1) - 1 (LSQ+, Bhalgat et al. 2020, arXiv 2004.09576, sections 3.1 and 3.2).
    Weights: beta = 0, s starts at max|mean -+ 3 std| / 2^(bits-1). Activations: s and beta start
    where the levels span min x ... max x. Differs from the paper, which starts activations at the
    least squared error of s and beta, found by gradient descent on a few batches.

    >>> quantizer = LsqPlusQuantizer(bits=2, activation=True)
    >>> quantizer(torch.tensor([1.0, 2.2, 3.0, 4.0])).detach()
    tensor([1., 2., 3., 4.])
    """

    def __init__(
        self,
        bits: int,
        granularity: Granularity | str = Granularity.PER_TENSOR,
        activation: bool = False,
    ) -> None:
        super().__init__(bits, granularity, activation=activation, has_offset=activation)
        least = 1 if activation else 2
        if bits not in range(least, 9):
            kind = "activations" if activation else "weights"
            other = "; choose quantizer stretched or tbt for 1 bit" if bits == 1 else ""
            raise ValueError(
                f"An LSQ+ quantizer of {kind} has {least} to 8 bits, not bits={bits!r}{other}."
            )

    @property
    def keeps_zero(self) -> bool:
        """False with an offset: the learned levels need not hold 0."""
        return self.offset is None

    @property
    def code_range(self) -> tuple[int, int]:
        """Give n and p."""
        return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1

    def first_guess(self, values: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
        """Return the step and the offset that the class describes."""
        low, high = self.code_range
        if self.offset is None:
            dim = self.granularity.dim
            mean = mean_of(values, dim)
            spread = 3 * mean_of((values - mean).square(), dim).sqrt()
            reach = torch.maximum((mean - spread).abs(), (mean + spread).abs())
            return reach / -low, values.new_zeros(())
        smallest, largest = values.aminmax()
        scale = (largest - smallest) / (high - low)
        return scale, smallest - low * scale
