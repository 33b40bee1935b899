"""Asymmetric (min-max) linear quantization with a dynamic scale and zero point."""

from jaxtyping import Float
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity, QuantizedTensor
from dq_lightning.quantization.functional import for_statistics

EPSILON = 1e-8  # added to the range, so that a constant scope has a scale


class AsymmetricQuantizer(FakeQuantizer):
    """Rounds to 2^bits levels evenly spread from min x to max x.

    x is clamped to +-clip; range = max x - min x + 1e-8 over the granularity's scope;
    codes = round_half_even((x - min x) / range * (2^bits - 1)), in this order, which decides ties;
    scale = range / (2^bits - 1); result = scale (codes - zero_point) with
    zero_point = -min x / scale, not rounded, so 0 need not be a level (min-max of the released
    code of DQ-BART, Li et al. 2022; TBT uses it for fc2 inputs and attention probabilities).
    include_zero: the range holds 0 too, so that the zeros of masked positions change no level:
    attention probabilities need it, or results would depend on the padding.

    >>> import torch
    >>> AsymmetricQuantizer(bits=2, granularity="per_row")(torch.tensor([[1.0, 2.2, 3.0, 4.0]]))
    tensor([[1., 2., 3., 4.]])
    """

    def __init__(
        self,
        bits: int,
        granularity: Granularity | str,
        clip: float | None = None,
        include_zero: bool = False,
    ) -> None:
        super().__init__(bits, granularity, clip)
        self.include_zero = include_zero
        if bits not in range(1, 9):
            raise ValueError(f"An asymmetric quantizer has 1 to 8 bits, not bits={bits!r}.")

    @property
    def keeps_zero(self) -> bool:
        """False: the levels start at the minimum."""
        return False

    def quantize(self, x: Float[Tensor, "*shape"]) -> QuantizedTensor:
        """Return codes in 0 ... 2^bits - 1, one scale and one zero point a scope."""
        values, dim = for_statistics(x), self.granularity.dim
        if self.clip is not None:
            values = values.clamp(-self.clip, self.clip)
        low, high = values.aminmax() if dim is None else values.aminmax(dim=dim, keepdim=True)
        num_steps = 2**self.bits - 1
        if self.include_zero:
            low, high = low.clamp(max=0.0), high.clamp(min=0.0)
        extent = high - low + EPSILON
        codes = (values - low).div_(extent).mul_(num_steps).round_().clamp_(0, num_steps)
        scale = extent / num_steps
        return QuantizedTensor(codes.to(x.dtype), scale, zero_point=-low / scale)
