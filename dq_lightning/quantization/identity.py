"""No quantization, where a quantizer is asked for."""

import torch
from jaxtyping import Float
from torch import Tensor

from dq_lightning.quantization.fake_quantizer import FakeQuantizer, Granularity, QuantizedTensor


class IdentityQuantizer(FakeQuantizer):
    """Passes x through: codes = x, scale = 1, never enabled.

    >>> IdentityQuantizer()(torch.tensor([0.1, -7.0]))
    tensor([ 0.1000, -7.0000])
    """

    def __init__(
        self, bits: int = 32, granularity: Granularity | str = Granularity.PER_TENSOR
    ) -> None:
        """Take the arguments of the other quantizers, so that a YAML can stand in for theirs."""
        super().__init__(bits, granularity)
        self.enabled = False

    def quantize(self, x: Float[Tensor, "*shape"]) -> QuantizedTensor:
        """Return x as its own codes."""
        return QuantizedTensor(x.detach().clone(), torch.ones((), dtype=x.dtype, device=x.device))
