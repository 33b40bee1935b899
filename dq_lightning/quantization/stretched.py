"""Balanced levels around zero: the stretched quantizer of ParetoQ."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import Granularity
from dq_lightning.quantization.functional import mean_of
from dq_lightning.quantization.learned_scale import LearnedScaleQuantizer


class StretchedQuantizer(LearnedScaleQuantizer):
    """Rounds weights to the 2^bits odd multiples of s / 2 that are nearest to 0, s learned.

    code = clamp(floor(x / s), -2^(bits-1), 2^(bits-1) - 1), result = s (code + 1/2): as many
    levels below 0 as above, none at 0, so 2 bits are four levels where a symmetric grid has three.
    Gradients as LSQ's: to x where |x| < 2^(bits-1) s, to s level - [inside] x / s (ParetoQ, Liu et
    al. 2025, arXiv 2502.02631, "stretched elastic quant", there for 1.58 and 2 bits; its alpha is
    2^(bits-1) s). Differs from the paper, which starts alpha at max|x|: s starts where the squared
    error of Gaussian weights is least, at a fixed multiple of the root mean square.

    >>> import torch
    >>> quantizer = StretchedQuantizer(bits=2, granularity="per_tensor")
    >>> quantizer(torch.tensor([0.1, -1.0, 3.0, -0.1])).detach() / quantizer.scale.detach()
    tensor([ 0.5000, -0.5000,  1.5000, -0.5000])
    """

    # s / rms(x) of least squared error at 1 to 8 bits, x Gaussian (found by integration; up to
    # 5 bits also in Max 1960, "Quantizing for Minimum Distortion", table II).
    gaussian_steps: ClassVar[tuple[float, ...]] = (
        1.596, 0.9957, 0.586, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308,
    )  # fmt: skip

    def __init__(self, bits: int, granularity: Granularity | str = Granularity.PER_ROW) -> None:
        super().__init__(bits, granularity, activation=False)
        if bits not in range(1, 9):
            raise ValueError(f"A stretched quantizer has 1 to 8 bits, not bits={bits!r}.")

    @property
    def keeps_zero(self) -> bool:
        """False: zeros become s / 2."""
        return False

    @property
    def code_range(self) -> tuple[int, int]:
        """Give the smallest and the largest code."""
        return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1

    @property
    def clip_range(self) -> tuple[int, int]:
        """Half a step beyond the outermost levels."""
        return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1)

    @property
    def zero_point(self) -> float:
        """Half-way between two codes."""
        return -0.5

    def round(self, steps: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Take the code of the half-open step that x lies in."""
        return steps.floor_().clamp_(*self.code_range)

    def first_guess(self, values: Float[Tensor, "*shape"]) -> tuple[Tensor, Tensor]:
        """Return a Gaussian's best step for each scope, and no offset."""
        rms = mean_of(values.square(), self.granularity.dim).sqrt()
        return self.gaussian_steps[self.bits - 1] * rms, values.new_zeros(())
