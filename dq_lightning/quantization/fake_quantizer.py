"""The abstract fake quantizer, its granularities and its result."""

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dq_lightning.quantization.functional import straight_through


class Granularity(enum.Enum):
    """Which values share one scale.

    PER_ROW (a weight's output channel, an embedding's token) and PER_TOKEN (an activation's
    position) both mean one scale per vector of the last dimension.
    """

    PER_TENSOR = "per_tensor"
    PER_ROW = "per_row"
    PER_TOKEN = "per_token"

    @property
    def dim(self) -> int | None:
        """The dimension that a scale's statistics run over; None: all of them."""
        return None if self is Granularity.PER_TENSOR else -1

    @classmethod
    def parse(cls, value: "Granularity | str") -> "Granularity":
        """Accept the enum or its value; anything else is a ValueError."""
        try:
            return cls(value)
        except ValueError:
            names = ", ".join(member.value for member in cls)
            raise ValueError(f"granularity={value!r} is unknown; write one of {names}.") from None


@dataclass(frozen=True)
class QuantizedTensor:
    """Integer codes (here: floats that hold integers), their scale and zero point.

    x ~ scale * (codes - zero_point); scale and zero point broadcast to the codes, which have x's
    type; a zero point need not be an integer. inverse_scale, where given, is what dequantize
    divides by: equal up to the last bit, but the last bit of a tie decides how the next quantizer
    rounds. zero_code, where given, is the code of values that are exactly 0 off the even grid.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None = None
    inverse_scale: Tensor | None = None
    zero_code: Tensor | None = None

    def dequantize(self) -> Tensor:
        """Give scale * (codes - zero_point), in the codes' type where that is a float."""
        codes = self.codes.to(self.scale.dtype)  # so that bfloat16 codes meet their float32 scale
        codes = codes if self.zero_point is None else codes - self.zero_point
        values = codes * self.scale if self.inverse_scale is None else codes / self.inverse_scale
        if self.zero_code is not None:
            values = values.masked_fill(self.codes == self.zero_code, 0.0)
        return values.to(self.codes.dtype) if self.codes.is_floating_point() else values

    def dequantize_(self) -> Tensor:
        """Give the same values in the codes' own memory, where that can hold them."""
        off_center = self.zero_point is not None or self.zero_code is not None
        if off_center or self.codes.dtype != self.scale.dtype:
            return self.dequantize()
        if self.inverse_scale is None:
            return self.codes.mul_(self.scale)
        return self.codes.div_(self.inverse_scale)


class FakeQuantizer(nn.Module, ABC):
    """Rounds a tensor to the grid of `bits` bits and stays in floating point.

    forward(x) == quantize(x).dequantize() bit for bit. Gradient: straight through, 0 where
    |x| >= clip; none to the scale, unless it is learned. Set `enabled = False` to pass tensors
    through untouched. granularities: what the class can be built with.
    """

    granularities: ClassVar[tuple[Granularity, ...]] = tuple(Granularity)
    group_size: int | None = None  # values of the last dimension that share a scale; None: all

    def __init__(
        self, bits: int, granularity: Granularity | str, clip: float | None = None
    ) -> None:
        super().__init__()
        if clip is not None and not clip > 0:
            raise ValueError(f"clip={clip!r} must be positive; write null for no clipping.")
        self.bits = bits
        self.granularity = Granularity.parse(granularity)
        self.clip = clip
        self.enabled = True
        if self.granularity not in self.granularities:
            names = " or ".join(member.value for member in self.granularities)
            raise ValueError(
                f"{type(self).__name__} cannot have granularity={self.granularity.value}; "
                f"write granularity={names}."
            )

    @property
    def num_levels(self) -> int:
        """The most values that one scope of a result can hold."""
        return 2**self.bits

    @property
    def keeps_zero(self) -> bool:
        """Whether 0 is a level of every grid, so that zeros stay zeros beside other values."""
        return True

    @property
    def rows_stand_alone(self) -> bool:
        """Whether a row's result is the same without the other rows of its tensor."""
        return self.granularity.dim is not None

    @property
    def weights_only(self) -> bool:
        """Whether it has state for each row of one Parameter, which activations are not."""
        return False

    def bind(self, parameter: Float[Tensor, "*shape"]) -> None:
        """Meet the one Parameter that this quantizer will quantize, before any optimizer exists.

        `prepare` calls this once for each weight. A learned scale takes its shape and its initial
        value here; a quantizer without learned state has nothing to do.
        """

    @abstractmethod
    def quantize(self, x: Float[Tensor, "*shape"]) -> QuantizedTensor:
        """Return codes and scales of x, outside the graph and in memory of their own."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Quantize and dequantize x, straight through for the gradient."""
        if not self.enabled:
            return x
        dequantized = self.quantize(x).dequantize_()  # its codes are ours alone
        if self.clip is None or not (x.requires_grad and torch.is_grad_enabled()):
            return straight_through(x, dequantized)
        return straight_through(x, dequantized, x.detach().abs() < self.clip)

    def extra_repr(self) -> str:
        """Describe the quantizer in reports."""
        clip = "" if self.clip is None else f", clip={self.clip}"
        return f"bits={self.bits}, granularity={self.granularity.value}{clip}"
