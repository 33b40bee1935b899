"""Elastic activations of TBT: one and two bits with a learned scale."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import Granularity
from dq_lightning.quantization.functional import mean_of
from dq_lightning.quantization.learned_scale import LearnedScaleQuantizer


class ElasticQuantizer(LearnedScaleQuantizer):
    """Rounds activations to two or three multiples of a learned alpha, one a module.

    signed: alpha {-1, 1} at 1 bit (sign(0) = +1), alpha {-1, 0, 1} at 2 bits; unsigned (attention
    probabilities, ReLU outputs): alpha {0, 1} and alpha {0, 1, 2}. The gradient is LSQ's, with the
    sign treated as a clamp to +-1 (TBT, Liu et al. 2023, "Binary and Ternary Natural Language
    Generation", section 3, after BiT, Liu et al. 2022). alpha starts at mean|x| (1 bit) or
    4/3 mean|x| (2 bits), the weights' rules; unsigned at LSQ's 2 mean|x| / sqrt(largest code).

    >>> ElasticQuantizer(bits=2)(torch.tensor([0.1, -1.0, 0.5, 0.2])).detach()
    tensor([ 0.0000, -0.6000,  0.6000,  0.0000])
    """

    granularities: ClassVar[tuple[Granularity, ...]] = (Granularity.PER_TENSOR,)

    def __init__(
        self,
        bits: int,
        granularity: Granularity | str = Granularity.PER_TENSOR,
        signed: bool = True,
    ) -> None:
        super().__init__(bits, granularity, activation=True)
        if bits not in (1, 2):
            raise ValueError(
                f"The elastic quantizer has 1 or 2 bits, not bits={bits!r}; "
                "choose quantizer tbt_activation for other widths."
            )
        self.signed = signed

    @property
    def keeps_zero(self) -> bool:
        """False for signs: zeros become alpha."""
        return not (self.signed and self.bits == 1)

    @property
    def num_levels(self) -> int:
        """Two at 1 bit, three at 2."""
        return self.bits + 1

    @property
    def code_range(self) -> tuple[int, int]:
        """Give the smallest and the largest multiple of alpha."""
        return (-1, 1) if self.signed else (0, self.bits)

    def round(self, steps: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Take the sign for the binary signed grid, the nearest code else."""
        if self.keeps_zero:
            return super().round(steps)
        return torch.where(steps >= 0, 1.0, -1.0).to(steps.dtype)

    def first_guess(self, values: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
        """Return the initial alpha, and no offset."""
        ratio = (1.0, 4 / 3)[self.bits - 1] if self.signed else 2 / self.bits**0.5
        scale = ratio * mean_of(values.abs(), None)
        return scale, scale.new_zeros(())
