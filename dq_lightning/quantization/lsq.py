"""LSQ: a learned step size."""

from jaxtyping import Float
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import Granularity
from dq_lightning.quantization.functional import mean_of
from dq_lightning.quantization.learned_scale import LearnedScaleQuantizer


class LsqQuantizer(LearnedScaleQuantizer):
    """Rounds to multiples of a learned step s, one a module or one a row of a weight.

    result = s round_half_even(clamp(x / s, -Q_n, Q_p)); signed: Q_n = 2^(bits-1),
    Q_p = 2^(bits-1) - 1; unsigned: Q_n = 0, Q_p = 2^bits - 1. s starts at 2 mean|x| / sqrt(Q_p) and
    its gradient is scaled by 1 / sqrt(n Q_p) (LSQ, Esser et al. 2020, arXiv 1902.08153, section 2).

    >>> import torch
    >>> LsqQuantizer(bits=2)(torch.tensor([0.1, -3.0, 0.6, 0.3])).detach()  # s = 2
    tensor([ 0.0000, -4.0000,  0.0000,  0.0000])
    """

    def __init__(
        self,
        bits: int,
        granularity: Granularity | str = Granularity.PER_TENSOR,
        signed: bool = True,
        activation: bool = False,
    ) -> None:
        super().__init__(bits, granularity, activation=activation)
        least = 2 if signed else 1
        if bits not in range(least, 9):
            kind = "signed" if signed else "unsigned"
            other = "; choose quantizer stretched or tbt for 1 bit" if bits == 1 else ""
            raise ValueError(
                f"A {kind} LSQ quantizer has {least} to 8 bits, not bits={bits!r}{other}."
            )
        self.signed = signed

    @property
    def code_range(self) -> tuple[int, int]:
        """Give -Q_n and Q_p."""
        if self.signed:
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1

    def first_guess(self, values: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
        """Return 2 mean|x| / sqrt(Q_p), and no offset."""
        scale = 2 * mean_of(values.abs(), self.granularity.dim) / self.code_range[1] ** 0.5
        return scale, values.new_zeros(())
