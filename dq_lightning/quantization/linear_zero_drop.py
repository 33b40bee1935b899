"""Linear quantization over the total range, with weights near zero dropped."""

import torch
from jaxtyping import Float
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity, QuantizedTensor
from dq_lightning.quantization.functional import for_statistics


class LinearZeroDropQuantizer(FakeQuantizer):
    """Rounds to the boundaries of 2^bits even intervals of the range; those around 0 become 0.

    scale = (max x - min x) / 2^bits over the granularity's scope; codes =
    round_half_even((x - min x) / scale), so 0 ... 2^bits; the boundary nearest to 0, where it is
    within half an interval, stands for exactly 0 and so does any boundary of the other sign than
    x. Zeros are dropped, not stored, which leaves 2^bits codes to store; a range that stays away
    from 0 drops nothing and has one code more (Strimel et al. 2018, arXiv 1807.07520, section on
    quantization). The gradient is the identity.

    >>> LinearZeroDropQuantizer(bits=2)(torch.tensor([-0.9, 0.2, 0.7, 3.1]))
    tensor([-0.9000,  0.0000,  1.1000,  3.1000])
    """

    def __init__(self, bits: int, granularity: Granularity | str = Granularity.PER_TENSOR) -> None:
        super().__init__(bits, granularity)
        if bits not in range(1, 9):
            raise ValueError(f"A zero-dropping quantizer has 1 to 8 bits, not bits={bits!r}.")

    @property
    def num_levels(self) -> int:
        """One more than 2^bits: the zero, which is dropped instead of stored."""
        return 2**self.bits + 1

    def quantize(self, x: Float[Tensor, "*shape"]) -> QuantizedTensor:
        """Return codes 0 ... 2^bits, one scale, zero point and code of 0 (-1: none) a scope."""
        values, dim = for_statistics(x), self.granularity.dim
        low, high = values.aminmax() if dim is None else values.aminmax(dim=dim, keepdim=True)
        limits = torch.finfo(values.dtype)
        # The floor keeps a constant scope what it is: its one value is the lowest boundary.
        floor = (torch.maximum(high.abs(), low.abs()) * limits.eps).clamp_(min=limits.tiny * 2**10)
        scale = torch.maximum(high - low, floor) / 2**self.bits
        zero_point = -low / scale
        nearest = zero_point.round().clamp(0, 2**self.bits)
        zero_code = torch.where((zero_point - nearest).abs() <= 0.5, nearest, -1.0)
        codes = (values - low).div_(scale).round_().clamp_(0, 2**self.bits)
        strayed = (codes - zero_point) * values.sign() <= 0
        codes = torch.where(strayed & (zero_code >= 0), zero_code, codes)
        return QuantizedTensor(codes.to(x.dtype), scale, zero_point, zero_code=zero_code)
